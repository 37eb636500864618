"""Sums of files that were read before, kept in a file that several processes share."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pathlib
from typing import BinaryIO, NamedTuple, Optional

# Limits of the kept file: entries, and bytes that are read.
MAX_ENTRIES = 50_000
MAX_BYTES = 64 << 20

# How old a file's last change must be, before it is read, for its sum to be kept. Of two changes that are closer together than the ticks
# of a file system's clock, which are up to two seconds, the later cannot be seen.
SETTLED_NS = 2_000_000_000

# How many bytes are read before what is known so far is saved, so that a restart need not begin anew.
SAVE_EVERY = 4 << 30

_VERSION = 1

_log = logging.getLogger(__name__)


class Identity(NamedTuple):
    """What tells that a file is as it was."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity(info: os.stat_result) -> Identity:
    return Identity(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


class Sums:
    """Sums by path and identity. Entering it waits until no other process has it: what that one read need not be read again.

    A directory that cannot be written, and a file that is damaged, cost time and nothing else.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._path = directory / "model-sums.json"
        self._sums: dict[str, tuple[Identity, str]] = {}
        self._unsaved = -1  # bytes whose sums are not saved yet; -1: nothing to save
        self._lock: Optional[BinaryIO] = None

    def __enter__(self) -> Sums:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = open(self._path.with_suffix(".lock"), "wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as e:
            _log.warning("sums of model files are not shared: %s", e)
        self._sums = self._load()
        return self

    def __exit__(self, *_: object) -> None:
        self._save()
        if self._lock is not None:
            try:
                # A process that was forked meanwhile has the file open too: closing alone would not release it.
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            except OSError:
                pass  # it was not taken
            self._lock.close()
            self._lock = None

    def get(self, path: bytes, now: Identity) -> Optional[str]:
        key = os.fsdecode(path)
        known = self._sums.get(key)
        if known is None or known[0] != now:
            return None
        self._sums[key] = self._sums.pop(key)  # the last to be forgotten
        self._unsaved = max(self._unsaved, 0)
        return known[1]

    def put(self, path: bytes, read: Identity, digest: str, begun_ns: int) -> None:
        """Keeps the sum of what was read from begun_ns on."""
        if begun_ns - max(read.mtime_ns, read.ctime_ns) < SETTLED_NS:
            return
        key = os.fsdecode(path)
        self._sums.pop(key, None)
        self._sums[key] = (read, digest)
        self._unsaved = max(self._unsaved, 0) + read.size
        if self._unsaved >= SAVE_EVERY:
            self._save()

    def _load(self) -> dict[str, tuple[Identity, str]]:
        try:
            with open(self._path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as e:
            _log.warning("sums of model files are computed anew: %s", e)
            return {}
        try:
            if len(data) > MAX_BYTES:
                raise ValueError("too large")
            return _parse(json.loads(data))
        except (ValueError, RecursionError) as e:
            _log.warning("sums of model files are computed anew: %s: %s", self._path, e)
            return {}

    def _save(self) -> None:
        if self._unsaved < 0:
            return
        self._unsaved = -1
        entries = [[path, *known[0], known[1]] for path, known in self._sums.items()]
        data = json.dumps({"version": _VERSION, "sums": entries[-MAX_ENTRIES:]}).encode()
        # Written beside it and renamed, so that a crash leaves the old one or the new one. Each process has a name of its own, for where
        # there is no lock.
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
        except OSError as e:
            _log.warning("sums of model files are not kept: %s", e)


def _parse(kept: object) -> dict[str, tuple[Identity, str]]:
    """Reads what _save wrote; ValueError if it is anything else."""
    if not isinstance(kept, dict) or kept.get("version") != _VERSION or not isinstance(kept.get("sums"), list):
        raise ValueError(f"no sums of version {_VERSION}")
    sums = {}
    for entry in kept["sums"]:
        if not isinstance(entry, list) or len(entry) != 7:
            raise ValueError("an entry is damaged")
        path, *numbers, digest = entry
        if not isinstance(path, str) or not isinstance(digest, str) or any(type(n) is not int for n in numbers):
            raise ValueError("an entry is damaged")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError("an entry is damaged")
        sums[path] = (Identity(*numbers), digest)
    return sums
