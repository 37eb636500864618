"""Whether the weights that are served are still those on the disk.

A call that updates them reaches one of a server's processes, and changes what all of them answer with. So they share a
counter of updates, in a file that they map, under the number of the process that started them all.
"""

from __future__ import annotations

import mmap
import os
import pathlib
from typing import Callable

from .model import Models

_SIZE = 8


class Weights:
    def __init__(self, directory: pathlib.Path, models: Models, changed: Callable[[], None]) -> None:
        """changed is called when the models' checksums have ceased to hold. OSError if there can be no such file."""
        fd = os.open(directory / f".weights-{os.getppid()}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, _SIZE)
            self._updates = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        finally:
            os.close(fd)
        self._seen = self._updates[0]
        self._models = models
        self._changed = changed

    def look(self) -> None:
        """Takes note of an update. It costs no system call."""
        if self._updates[0] != self._seen:
            self._seen = self._updates[0]
            self._models.invalidate()
            self._changed()

    def updated(self) -> None:
        """They were updated by a call to this process."""
        self._updates[0] = (self._updates[0] + 1) % (1 << 64)
        self.look()
