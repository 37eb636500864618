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


def members(data: bytes) -> dict:
    """The JSON object in an event's data; empty if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
