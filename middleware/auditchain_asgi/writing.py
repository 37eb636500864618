"""How records and events are written as lines."""

from __future__ import annotations

import json
import time
from typing import Any, Optional

_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode

_TEXT_MAX = 256  # characters of what clients and models say of themselves


def line(members: dict) -> bytes:
    return _encode(members).encode("ascii") + b"\n"


def timestamp(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:06d}Z"


def uuid_text(data: bytes) -> str:
    digits = data.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def source(source_id: str, seq: int) -> dict:
    return {"id": source_id, "seq": seq}


def source_mark(source_id: str) -> bytes:
    """What a line of this source holds, and no other line can: inside of a string its quotes were escaped. Its number
    and a closing brace follow."""
    return b'"source":{"id":' + _encode(source_id).encode("ascii") + b',"seq":'


def text(value: Any) -> Optional[str]:
    """A string from outside: bounded, and without lone surrogates, which not every reader of JSON takes."""
    if not isinstance(value, str) or not value:
        return None
    value = value[:_TEXT_MAX]
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
