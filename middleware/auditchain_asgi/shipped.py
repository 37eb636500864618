"""python -m auditchain_asgi.shipped: deletes files of records whose every byte has reached the aggregator.

A file goes if
- nothing will be written to it, nor looked up in it when its process dies: of a living process the last two files stay, of one that was
  killed all until another has said that it died;
- its last change is older than --older-than;
- Fluent Bit has read it to its end. What a crash tore at its end, without a newline, is no line, and will never be one: it does not count;
- of the chunks that lay in Fluent Bit's storage after that was seen none is left. A rejected chunk may hold lines of any file, so
  as long as there is one, nothing goes.

It relies on Fluent Bit's settings: for the input storage.type filesystem, and not threaded; for the output require_ack_response on and
retry_limit no_limits; for the service storage.keep.rejected on, without a limit, under storage.path, and no storage.total_limit_size.
What it cannot see are chunks that a power cut destroyed before they were synced, and those that Fluent Bit could not write to a full disk.
"""

from __future__ import annotations

import argparse
import fcntl
import pathlib
import re
import stat
import sys
import time
from typing import Dict, List, NamedTuple, Optional

from . import fluentbit, lines, state

# How many of a living process's files stay.
_LAST = 2

_POLL_S = 0.5
_PIECE = 1 << 20

_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(\d{6,12})" + re.escape(lines.SUFFIX), re.ASCII)
_DURATION = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class File(NamedTuple):
    path: pathlib.Path
    device: int
    inode: int
    size: int
    changed_ns: int


class Result(NamedTuple):
    deleted: List[File]
    kept: Dict[pathlib.Path, str]  # with the reason: it is old enough, and not known to have arrived


def main() -> int:
    what = (__doc__ or "").partition(": ")[2]
    parser = argparse.ArgumentParser(
        prog="python -m auditchain_asgi.shipped",
        description=what[:1].upper() + what[1:],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 done; 1 files stay that are not known to have arrived; 2 it could not be told.",
    )
    parser.add_argument("--dir", required=True, type=pathlib.Path, help="where the middleware writes: AUDITCHAIN_DIR")
    parser.add_argument("--db", required=True, type=pathlib.Path, help="the database of Fluent Bit's tail input; it is only read")
    parser.add_argument("--storage", required=True, type=pathlib.Path, help="Fluent Bit's storage.path")
    parser.add_argument("--older-than", default="7d", type=_duration, metavar="TIME", help="90s, 10m, 12h, 7d (default: %(default)s)")
    parser.add_argument("--wait", default="2m", type=_duration, metavar="TIME", help="how long to wait for chunks to arrive (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        result = delete_shipped(arguments.dir, arguments.db, arguments.storage, arguments.older_than, arguments.wait)
    except (OSError, fluentbit.UnknownError) as e:
        print(f"shipped: {e}", file=sys.stderr)
        return 2
    for path, reason in result.kept.items():
        print(f"kept {path}: {reason}", file=sys.stderr)
    return 1 if result.kept else 0


def delete_shipped(directory: pathlib.Path, database: pathlib.Path, storage: pathlib.Path, older_than: float, wait: float) -> Result:
    """Deletes what has arrived and prints it. OSError or fluentbit.UnknownError if it cannot be told what has; nothing is deleted then."""
    kept: Dict[pathlib.Path, str] = {}
    read = []
    old = _old_files(directory, older_than, kept)
    offsets = fluentbit.offsets(database)
    last_chunk_ns = fluentbit.last_chunk_ns(storage)
    for file in old:
        reason = _not_read(file, offsets.get((file.path.name, file.inode), []))
        if reason is None and last_chunk_ns < file.changed_ns:
            reason = f"no chunk of a tail input came or went under {storage} since: is it Fluent Bit's storage.path, and the input's storage.type filesystem?"
        if reason is None:
            read.append(file)
        else:
            kept[file.path] = reason
    # After the offsets: what was read is in one of these, or has arrived.
    reason = _not_arrived(storage, fluentbit.chunks(storage), wait) if read else None
    deleted = []
    for file in read:
        if reason is not None:
            kept[file.path] = reason
        elif _identify(file.path) != file:
            kept[file.path] = "it has changed meanwhile"
        else:
            file.path.unlink()
            print(f"deleted {file.path}, {file.size} bytes", flush=True)
            deleted.append(file)
    return Result(deleted, kept)


def _old_files(directory: pathlib.Path, older_than: float, kept: Dict[pathlib.Path, str]) -> List[File]:
    """Files to which nothing will be written, that are old enough. Those of processes that nobody has spoken for are put into kept."""
    by_process: Dict[str, List[pathlib.Path]] = {}
    for path in directory.iterdir():
        if match := _NAME.fullmatch(path.name):
            by_process.setdefault(match[1], []).append(path)
    newest_ns = time.time_ns() - int(older_than * 1e9)
    old = []
    for process, paths in sorted(by_process.items()):
        paths.sort(key=lambda p: int(_NAME.fullmatch(p.name)[2]))
        living = _is_living(directory / (process + state.SUFFIX))
        for path in paths[:-_LAST] if living else paths:
            file = _identify(path)
            if file is None or file.changed_ns > newest_ns:
                continue
            if living is False:
                kept[path] = "its process was killed, and no other has yet written what is known of its requests"
            else:
                old.append(file)
    return old


def _is_living(path: pathlib.Path) -> Optional[bool]:
    """Whether the process with this state file lives; None if it has none, so that all about it has been written."""
    try:
        with open(path, "rb") as file:
            # Shared, and for an instant: who takes care of the dead takes it for alive meanwhile, and comes back.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return True
    return False


def _identify(path: pathlib.Path) -> Optional[File]:
    """None if it is no file, or gone."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return None
    regular = stat.S_ISREG(info.st_mode)
    return File(path, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns) if regular else None


def _not_read(file: File, offsets: List[int]) -> Optional[str]:
    """Why it is not known that Fluent Bit has read the file to its end; None if it is."""
    if not offsets:
        return "Fluent Bit's database does not have it"
    if len(offsets) > 1:
        return "Fluent Bit's database has it more than once"
    offset = offsets[0]
    if not 0 <= offset <= file.size:
        return f"Fluent Bit has read to {offset}, and it has {file.size} bytes"
    with open(file.path, "rb") as content:
        if offset:
            content.seek(offset - 1)
            if content.read(1) != b"\n":
                return f"Fluent Bit has read to {offset}, which is within a line"
        while piece := content.read(_PIECE):
            if b"\n" in piece:
                return f"Fluent Bit has read to {offset} of {file.size} bytes"
    return None


def _not_arrived(storage: pathlib.Path, before: fluentbit.Chunks, wait: float) -> Optional[str]:
    """Waits until none of the chunks is left. Says why it is not known that they arrived; None if they did."""
    deadline = time.monotonic() + wait
    while True:
        now = fluentbit.chunks(storage)
        # A chunk is copied to the rejected ones before it is deleted, so that one of the two is always seen.
        if rejected := sorted(before.rejected | now.rejected):
            return f"Fluent Bit has kept {len(rejected)} rejected chunks, which did not arrive: {rejected[0]}"
        left = sorted(before.waiting & now.waiting)
        if not left:
            return None
        if time.monotonic() >= deadline:
            return f"{len(left)} of Fluent Bit's chunks may hold lines of it and have not arrived: {left[0]}"
        time.sleep(_POLL_S)


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 90s, 10m, 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


if __name__ == "__main__":
    sys.exit(main())
