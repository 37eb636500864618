"""Random UUIDs (version 4), without a system call for each."""

from __future__ import annotations

import os

_POOL = 256


class Pool:
    """Not to be used on in a forked copy of the process, which would give the same ones."""

    def __init__(self) -> None:
        self._random = b""
        self._at = 0

    def take(self) -> bytes:
        at = self._at
        if at == len(self._random):
            self._random, at = os.urandom(16 * _POOL), 0
        self._at = at + 16
        data = bytearray(self._random[at : at + 16])
        data[6] = data[6] & 0x0F | 0x40
        data[8] = data[8] & 0x3F | 0x80
        return bytes(data)
