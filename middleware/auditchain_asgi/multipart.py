"""Fields of a form (RFC 7578), such as those that are sent with an audio file."""

from __future__ import annotations

import re
from typing import Collection, Optional, Tuple

_FIELD_MAX = 1000  # bytes of a field's value
_HEADERS_MAX = 4000  # bytes of a part's headers
_PARTS_MAX = 1000  # Starlette takes no more
_boundary = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_parameter = re.compile(rb';[ \t]*([^\s;="]+)=(?:"([^"]*)"|([^\s;"]*))')


def boundary(content_type: str) -> Optional[bytes]:
    """What separates the parts of a form; None if this is the type of something else."""
    if not content_type.lower().startswith("multipart/form-data"):
        return None
    found = _boundary.search(content_type)
    return (found[1] or found[2]).encode("latin-1", "replace") if found else None


def fields(text: bytes, separator: bytes, wanted: Collection[str]) -> Tuple[dict, bool]:
    """Those fields in a piece of a form whose names are wanted, the last one of each name, and whether the
    form's end was reached."""
    delimiter = b"\r\n--" + separator
    pieces = (b"\r\n" + text).split(delimiter, _PARTS_MAX)
    found: dict = {}
    part: Optional[bytes] = None  # the piece's first may have lost its beginning
    for piece in pieces[1:]:
        if not piece.startswith((b"\r\n", b"--")):  # it was no delimiter
            part = part + delimiter + piece if part is not None and len(part) <= _HEADERS_MAX + _FIELD_MAX else None
            continue
        if part is not None:
            name, value = _field(part)
            if name in wanted and value is not None:
                found[name] = value
        part = piece if piece.startswith(b"\r\n") else None
        if part is None:  # what follows is no part of the form
            return found, True
    return found, False


def _field(part: bytes) -> Tuple[str, Optional[str]]:
    """Name and value of a part; no value if it is a file, or too long."""
    headers, end, value = part.partition(b"\r\n\r\n")
    if not end or len(headers) > _HEADERS_MAX or len(value) > _FIELD_MAX:
        return "", None
    for line in headers.split(b"\r\n"):
        header, _, disposition = line.partition(b":")
        if header.strip().lower() != b"content-disposition":
            continue
        given = {found[1].lower(): found[2] or found[3] for found in _parameter.finditer(disposition)}
        if b"filename" in given or b"filename*" in given:
            break
        return given.get(b"name", b"").decode("utf-8", "replace"), value.decode("utf-8", "replace")
    return "", None
