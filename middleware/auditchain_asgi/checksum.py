"""The checksum of a model as it lies on the disk: docs/RECORDS.md, section 4.

Paths are bytes throughout, as they are on the disk.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Iterator

from .sums import Identity, Sums, identity

# How many names are looked at under one directory: links to directories can lead to any number.
MAX_NAMES = 100_000

_BUFFER_SIZE = 4 << 20

# Beginnings and ends of the names, in lower case, of files that document a model and change nothing in it.
_DOCUMENT_PREFIXES = (b"readme", b"license", b"notice")
_DOCUMENT_SUFFIXES = (b".md", b".pdf", b".png", b".jpg", b".jpeg", b".gif", b".svg", b".webp")


class ModelError(ValueError):
    """The files are none that a checksum can be told of."""


def checksum(path: str, sums: Sums) -> str:
    """The checksum of the model at path, a directory or a file. OSError or ModelError if it cannot be told."""
    return "sha256:" + hashlib.sha256(manifest(os.fsencode(path), sums)).hexdigest()


def manifest(path: bytes, sums: Sums) -> bytes:
    """What the checksum is computed from: one line for each file, as sha256sum writes it."""
    mode = os.stat(path).st_mode
    # Paths are put together as they are: cleaned ones may lead elsewhere where there are links.
    if stat.S_ISDIR(mode):
        top = path.rstrip(b"/") + b"/"
        names = sorted(_files(top))
        if not names:
            raise ModelError(f"{_text(top)} has no file of a model")
    elif stat.S_ISREG(mode):
        slash = path.rfind(b"/") + 1
        top, names = path[:slash], [path[slash:]]
    else:
        raise ModelError(f"{_text(path)} is neither a file nor a directory")
    for name in names:
        _check_name(name)
    return b"".join(_sum(top + name, sums).encode() + b"  " + name + b"\n" for name in names)


def _files(top: bytes) -> Iterator[bytes]:
    """The paths, relative to top, of a model's files."""
    # A directory that is still to be listed, and by device and inode those that it lies in.
    todo: list[tuple[bytes, tuple[tuple[int, int], ...]]] = [(b"", ())]
    names = 0
    while todo:
        directory, above = todo.pop()
        info = os.stat(top + directory)
        here = (info.st_dev, info.st_ino)
        if here in above:
            raise ModelError(f"{_text(top + directory)} is a link to a directory that it lies in")
        for name in os.listdir(top + directory):
            names += 1
            if names > MAX_NAMES:
                raise ModelError(f"{_text(top)} has more than {MAX_NAMES} names below it")
            if name.startswith(b"."):
                continue
            path = directory + name
            mode = os.stat(top + path).st_mode
            if stat.S_ISDIR(mode):
                todo.append((path + b"/", (*above, here)))
            elif _is_document(name):
                continue
            elif not stat.S_ISREG(mode):
                raise ModelError(f"{_text(top + path)} is neither a file nor a directory")
            else:
                yield path


def _is_document(name: bytes) -> bool:
    lower = name.lower()  # of bytes: only A to Z have another case
    return lower.startswith(_DOCUMENT_PREFIXES) or lower.endswith(_DOCUMENT_SUFFIXES)


def _check_name(name: bytes) -> None:
    """Refuses paths that sha256sum does not write or read as they are."""
    if any(c in name for c in (b"\n", b"\r", b"\\")):
        raise ModelError(f"the name {_text(name)!r} has a newline, a carriage return or a backslash")
    if name == b"-":
        raise ModelError('a file is named "-", which sha256sum takes for its standard input')


def _sum(path: bytes, sums: Sums) -> str:
    """The SHA-256 of a file, in hex."""
    begun = time.time_ns()
    with open(path, "rb", buffering=0) as file:
        before = identity(os.fstat(file.fileno()))
        known = sums.get(path, before)
        if known is not None:
            return known
        digest, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_BUFFER_SIZE))
        while n := file.readinto(buffer):
            digest.update(buffer[:n])  # lets other threads run, as the reading does
            size += n
    if size != before.size or not _same(before, identity(os.stat(path))):
        raise ModelError(f"{_text(path)} changed while it was read")
    sums.put(path, before, digest.hexdigest(), begun)
    return digest.hexdigest()


def _same(a: Identity, b: Identity) -> bool:
    """Whether the content is the same; another mode or number of links is no other content."""
    return a._replace(ctime_ns=0) == b._replace(ctime_ns=0)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
