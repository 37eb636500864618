"""Server-sent events, as model servers send them."""

from __future__ import annotations

import json
from typing import List


def datas(stream: bytes) -> List[bytes]:
    """The data of each event in a piece of a stream, a first or last one that was cut included."""
    if b"\r" in stream:
        stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = []
    for event in stream.split(b"\n\n"):
        if event.startswith(b"data:") and b"\n" not in event:  # nearly all
            found.append(event[5:].strip())
            continue
        lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines:
            found.append(b"\n".join(lines))
    return found


class Reader:
    """Finds the events of a stream that comes in parts, wherever it was split: those that datas finds in the whole."""

    __slots__ = ("_rest", "_cr")

    def __init__(self) -> None:
        self._rest = bytearray()  # the beginning of an event that has not ended
        self._cr = False  # the last byte was a CR, and is held back: with a LF it would be one line end

    def add(self, part: bytes) -> List[bytes]:
        """The data of each event that the part ends."""
        if self._cr or b"\r" in part:
            part = self._with_lf(part)
        rest = self._rest
        begin = max(len(rest) - 1, 0)  # nothing is looked at twice, however long an event is
        rest += part
        end = rest.rfind(b"\n\n", begin)
        if end < 0:
            return []
        found = datas(bytes(rest[:end]))
        del rest[: end + 2]
        return found

    def end(self) -> List[bytes]:
        """The data of what was left without an end."""
        found = datas(bytes(self._rest))
        self._rest.clear()
        return found

    def _with_lf(self, part: bytes) -> bytes:
        if self._cr:
            part = b"\r" + part
        self._cr = part.endswith(b"\r")
        if self._cr:
            part = part[:-1]
        return part.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def members(data: bytes) -> dict:
    """The JSON object in an event's data; empty if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
