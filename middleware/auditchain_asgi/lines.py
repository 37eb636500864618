"""The files that lines go into."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
from typing import Callable, Optional

_MODE = 0o640  # whoever ships the files reads them by their group
_FULL = (errno.ENOSPC, errno.EDQUOT)

SUFFIX = ".jsonl"

_log = logging.getLogger(__name__)


class Files:
    """Appends whole lines to <name>-000001.jsonl and its successors in a directory.

    A file is written by one process only, never renamed and never truncated. Not safe for use by several threads.
    """

    def __init__(self, directory: pathlib.Path, name: str, size_limit: int, failed: Callable[[OSError], None]) -> None:
        """failed is called when something did, and waits before the next attempt; what it raises ends the attempts."""
        self._directory = directory
        self._name = name
        self._size_limit = size_limit
        self._failed = failed
        self._fd: Optional[int] = None
        self._number = 0
        self._size = 0

    def append(self, data: bytes) -> None:
        """Writes lines, each with its newline. It returns when all have been written, not yet synced, however often
        that fails. After a short write the rest follows in the same file, or, if the file cannot be written any more, the
        torn line is written anew in the next."""
        if self._fd is not None and (self._size >= self._size_limit or self._gone()):
            self._leave()
        view, done = memoryview(data), 0
        refused = 0  # attempts on this file in a row
        while done < len(data):
            try:
                if self._fd is None:
                    self._next()
                count = os.write(self._fd, view[done:])
                if count <= 0:
                    raise OSError(errno.EIO, "nothing was written")
                done += count
                self._size += count
                refused = 0
            except OSError as error:
                self._failed(error)
                refused += 1
                if self._fd is not None and error.errno not in _FULL and refused > 1:
                    self._leave()
                    done = data.rfind(b"\n", 0, done) + 1

    def sync(self) -> bool:
        """Makes what was written durable. False if it failed: then what the kernel still has of it may be lost if the
        machine crashes, and the next lines go into another file."""
        if self._fd is None:
            return True
        try:
            os.fsync(self._fd)
            return True
        except OSError as error:
            self._leave()
            self._failed(error)
            return False

    def close(self) -> None:
        if self._fd is not None:
            self._leave()

    def _next(self) -> None:
        if not self._directory.exists():
            os.makedirs(self._directory, 0o750, exist_ok=True)  # another process may do the same
            _log.error("auditchain: %s was gone, and is made anew: of its files what was not shipped is lost", self._directory)
        self._fd = os.open(self._path(self._number + 1), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        self._size = 0
        self._number += 1
        os.fchmod(self._fd, _MODE)  # whatever the process's umask
        sync_directory(self._directory)

    def _path(self, number: int) -> pathlib.Path:
        return self._directory / f"{self._name}-{number:06d}{SUFFIX}"

    def _gone(self) -> bool:
        """Whether somebody has deleted the file: nobody would ever see what is written to it."""
        try:
            if os.fstat(self._fd).st_nlink:
                return False
            raise FileNotFoundError(errno.ENOENT, "the file was deleted while it was written to", str(self._path(self._number)))
        except OSError as error:
            self._failed(error)
            return True

    def _leave(self) -> None:
        fd, self._fd = self._fd, None
        try:
            os.close(fd)
        except OSError:
            pass  # what was written is as durable as the last sync made it


def sync_directory(path: pathlib.Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
