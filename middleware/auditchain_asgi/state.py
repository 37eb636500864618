"""The state file of a source: what others need to know when its process was killed.

It is a memory map, so that what was put into it stays when the process is killed at whatever instant; only a crash of
the machine can set it back by seconds. The live process holds its lock. Values are in the machine's own byte order, for
nobody else reads them, and each number is put in with one store.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pathlib
import struct
import time
from typing import Callable, Dict, List, NamedTuple, Optional

SUFFIX = ".state"
SLOTS = 4096  # requests that are open at a time and are remembered

_MAGIC = b"auditch1"
_ID_MAX = 256  # bytes of a source id: as many as the log takes
COUNTERS = ("served", "recorded", "lost", "failures", "open")
_WORDS = (*COUNTERS, "events", "stopped", "found_us", "unslotted")
_WORDS_AT = len(_MAGIC)
_ID_AT = 128
_FINDER_AT = _ID_AT + _ID_MAX
_SLOTS_AT = 1024
_SLOT = struct.Struct("=QQ16sBB126s")  # number + 1, or 0 if free; arrival in microseconds; request id; change; path
_PATH_MAX = 126
_SIZE = _SLOTS_AT + SLOTS * _SLOT.size
_LEFTOVER_S = 3600


class Open(NamedTuple):
    """A request that has not been recorded."""

    seq: int
    arrived_us: int
    request_id: bytes
    model_change: bool
    path: str


class State:
    """A state file whose lock we hold. Not safe for use by several threads."""

    def __init__(self, path: pathlib.Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._numbers = memoryview(self._map).cast("Q")
        self._free = list(range(SLOTS - 1, -1, -1))

    @classmethod
    def create(cls, directory: pathlib.Path, name: str, source_id: str) -> "State":
        def begin(state: "State") -> None:
            state._map[:_WORDS_AT] = _MAGIC
            state._put_text(_ID_AT, source_id)

        return cls._create(directory / (name + SUFFIX), begin)

    @classmethod
    def _create(cls, path: pathlib.Path, fill: Callable[["State"], None]) -> "State":
        # It has its lock and its contents before it has its name, or another process might take it for a dead one's.
        temporary = path.with_name(f".{path.name}.new")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, _SIZE)  # a page that the disk has no room for would kill the process
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state = cls(path, fd)
            fill(state)
            os.rename(temporary, path)
        except BaseException:
            os.close(fd)
            os.unlink(temporary)
            raise
        return state

    @classmethod
    def take(cls, path: pathlib.Path) -> Optional["State"]:
        """The state of a process that is dead, and the lock on it; None if it is alive or has been taken care of."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            info = os.fstat(fd)
            if info.st_nlink == 0:
                os.close(fd)
                return None
            if info.st_size != _SIZE or os.pread(fd, len(_MAGIC), 0) != _MAGIC:
                raise ValueError(f"{path} is no state file")
            return cls(path, fd)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        except BaseException:
            os.close(fd)
            raise

    def __getitem__(self, word: str) -> int:
        return self._numbers[_WORD_AT[word]]

    def __setitem__(self, word: str, value: int) -> None:
        self._numbers[_WORD_AT[word]] = value

    @property
    def source_id(self) -> str:
        return self._text(_ID_AT)

    @property
    def finder(self) -> str:
        """The source that found this one dead; empty as long as none has."""
        return self._text(_FINDER_AT)

    @finder.setter
    def finder(self, source_id: str) -> None:
        self._put_text(_FINDER_AT, source_id)

    def open(self, seq: int, arrived_us: int, request_id: bytes, model_change: bool, path: bytes) -> Optional[int]:
        """Remembers a request, in a slot; None if there is none free, and it is only counted."""
        if not self._free:
            self["unslotted"] += 1
            return None
        slot = self._free.pop()
        at = _SLOTS_AT + slot * _SLOT.size
        path = path[:_PATH_MAX]
        _SLOT.pack_into(self._map, at, 0, arrived_us, request_id, model_change, len(path), path)
        self._numbers[at >> 3] = seq + 1  # last, so that a slot is never seen half written
        return slot

    def close_slot(self, slot: Optional[int]) -> None:
        if slot is None:
            self["unslotted"] -= 1
            return
        self._numbers[(_SLOTS_AT + slot * _SLOT.size) >> 3] = 0
        self._free.append(slot)

    def open_requests(self) -> List[Open]:
        found = []
        for at in range(_SLOTS_AT, _SIZE, _SLOT.size):
            number, arrived_us, request_id, change, length, path = _SLOT.unpack_from(self._map, at)
            if number:
                text = path[: min(length, _PATH_MAX)].decode("utf-8", "replace")
                found.append(Open(number - 1, arrived_us, request_id, bool(change), text))
        return sorted(found)

    def sync(self) -> None:
        os.fsync(self._fd)

    @property
    def deleted(self) -> bool:
        """Whether somebody has deleted the file: nobody would find it."""
        return os.fstat(self._fd).st_nlink == 0

    def renewed(self) -> "State":
        """A new file of the same name with the same contents. What comes meanwhile has to be copied again."""
        return self._create(self.path, self.copy_to)

    def copy_to(self, other: "State") -> None:
        other._map[:] = self._map[:]
        other._free = list(self._free)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the lock back, unless a parent, of which this process is a forked copy, has it too. It may be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._numbers.release()
            self._map.close()
            os.close(fd)

    def _text(self, at: int) -> str:
        length = min(self._map[at], _ID_MAX - 1)
        return self._map[at + 1 : at + 1 + length].decode("utf-8", "replace")

    def _put_text(self, at: int, text: str) -> None:
        data = text.encode()[: _ID_MAX - 1]
        self._map[at + 1 : at + 1 + len(data)] = data
        self._map[at] = len(data)


_WORD_AT = {word: (_WORDS_AT >> 3) + i for i, word in enumerate(_WORDS)}


def counters(directory: pathlib.Path) -> Dict[str, Dict[str, int]]:
    """The counters of each source in the directory, by its id."""
    found = {}
    for path in sorted(directory.glob("*" + SUFFIX)):
        try:
            with open(path, "rb", buffering=0) as file:
                head = file.read(_FINDER_AT)
        except OSError:
            continue
        if len(head) == _FINDER_AT and head.startswith(_MAGIC):
            source_id = head[_ID_AT + 1 : _ID_AT + 1 + head[_ID_AT]].decode("utf-8", "replace")
            found[source_id] = dict(zip(_WORDS, struct.unpack_from(f"={len(COUNTERS)}Q", head, _WORDS_AT)))
    return found


def sweep(directory: pathlib.Path) -> None:
    """Removes state files that were left half made."""
    for path in directory.glob(f".*{SUFFIX}.new"):
        try:
            if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                path.unlink()
        except FileNotFoundError:
            pass
