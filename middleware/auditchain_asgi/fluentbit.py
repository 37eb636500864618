"""What Fluent Bit (seen with 5.1.1) has read of files and not yet delivered, from what it keeps on the disk.

It says "read" of a place in a file, in the tail input's database, after it has put what lies before it into a chunk, with
storage.type filesystem a file in its storage.path; and it deletes a chunk when the output has taken it. A chunk that the output refuses
is first copied to a name of another form if storage.keep.rejected is on.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import sqlite3
from typing import Dict, List, NamedTuple, Set, Tuple
from urllib.parse import quote

# Limits of what is read.
MAX_ROWS = 1_000_000
MAX_CHUNKS = 1_000_000

_BUSY_S = 10.0  # how long the database may be locked

_CHUNK = re.compile(r"\d+-\d+\. *\d+\.flb")  # process, seconds, nanoseconds; the last are filled up with spaces

_STREAM = "tail."  # what the directory of a tail input's chunks begins with


class UnknownError(Exception):
    """It cannot be told what Fluent Bit has done."""


class Chunks(NamedTuple):
    waiting: Set[str]  # paths of chunks that have not been delivered
    rejected: Set[str]  # paths of chunks that never will be


def offsets(database: pathlib.Path) -> Dict[Tuple[str, int], List[int]]:
    """How far each file has been read, by its name without the directory, and its inode; more than one place if that is not clear."""
    uri = f"file:{quote(str(database.absolute()))}?mode=ro"
    found: Dict[Tuple[str, int], List[int]] = {}
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as connection:
            rows = connection.execute("SELECT name, inode, offset FROM in_tail_files LIMIT ?", (MAX_ROWS + 1,)).fetchall()
    except sqlite3.Error as e:
        raise UnknownError(f"{database}: {e}") from None
    if len(rows) > MAX_ROWS:
        raise UnknownError(f"{database} has more than {MAX_ROWS} files")
    for name, inode, offset in rows:
        if not isinstance(name, str) or not isinstance(inode, int) or not isinstance(offset, int):
            raise UnknownError(f"{database} is not as Fluent Bit's tail input writes it")
        found.setdefault((os.path.basename(name), inode), []).append(offset)
    return found


def chunks(storage: pathlib.Path) -> Chunks:
    """The chunks that lie anywhere under storage.path. What was read before is in one of them or has been delivered."""
    waiting, rejected = set(), set()

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError) or error.filename == str(storage):
            raise UnknownError(f"chunks cannot be listed: {error}")

    for directory, _, names in os.walk(storage, onerror=unreadable):
        for name in names:
            if name.endswith(".flb"):
                (waiting if _CHUNK.fullmatch(name) else rejected).add(os.path.join(directory, name))
        if len(waiting) + len(rejected) > MAX_CHUNKS:
            raise UnknownError(f"{storage} has more than {MAX_CHUNKS} chunks")
    return Chunks(waiting, rejected)


def last_chunk_ns(storage: pathlib.Path) -> int:
    """When a chunk of a tail input was last made or deleted; 0 if there never was one, as without storage.type filesystem."""
    try:
        with os.scandir(storage) as entries:
            return max((e.stat().st_mtime_ns for e in entries if e.name.startswith(_STREAM) and e.is_dir()), default=0)
    except OSError as e:
        raise UnknownError(f"chunks cannot be listed: {e}") from None
