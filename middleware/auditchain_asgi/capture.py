"""A body on its way through: its hash, its length, and as much of it as is needed when it has ended."""

from __future__ import annotations

TAIL = 32 << 10  # bytes kept of the end, at least, of a body longer than its head


class Capture:
    """Takes a body part by part in about a microsecond each. Holds at most head_limit + 2 * TAIL bytes of it."""

    __slots__ = ("size", "running", "head", "tail", "_head_limit")

    def __init__(self, running, head_limit: int) -> None:
        self.size = 0
        self.running = running
        self.head = bytearray()
        self.tail = bytearray()  # what follows the head; once that is too much, its end
        self._head_limit = head_limit

    def add(self, part: bytes) -> None:
        self.size += len(part)
        self.running.update(part)
        head = self.head
        room = self._head_limit - len(head)
        if room >= len(part):
            head += part
            return
        if room > 0:
            head += part[:room]
            part = part[room:]
        tail = self.tail
        if len(part) >= TAIL:
            tail[:] = part[-TAIL:]
            return
        tail += part
        if len(tail) > 2 * TAIL:
            del tail[:-TAIL]

    @property
    def whole(self) -> bool:
        """Whether the head is all."""
        return self.size == len(self.head)

    @property
    def gapless(self) -> bool:
        """Whether head and tail are all."""
        return self.size == len(self.head) + len(self.tail)

    def last(self, count: int) -> bytes:
        """Up to count bytes of the body's end."""
        if len(self.tail) >= count or not self.gapless:
            return bytes(self.tail[-count:])
        return bytes(self.head[-(count - len(self.tail)) :]) + bytes(self.tail)
