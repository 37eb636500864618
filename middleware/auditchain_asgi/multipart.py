"""Fields of a form (RFC 7578), such as those that are sent with an audio file."""

from __future__ import annotations

import re
from typing import Optional

_FIELD_MAX = 1000  # bytes of a field's value
_boundary = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)


def boundary(content_type: str) -> Optional[bytes]:
    """What separates the parts of a form; None if this is the type of something else."""
    if not content_type.lower().startswith("multipart/form-data"):
        return None
    found = _boundary.search(content_type)
    return (found[1] or found[2]).encode("latin-1", "replace") if found else None


def field(text: bytes, separator: bytes, name: str) -> Optional[str]:
    """The value of the first field of that name in a piece of a form."""
    part = re.compile(
        rb"--" + re.escape(separator) + rb"\r\n"
        rb"(?:[^\r\n]{1,1000}\r\n){0,10}?"
        rb'content-disposition:[ \t]*form-data;[ \t]*name="?' + re.escape(name.encode()) + rb'"?[ \t]*\r\n'
        rb"(?:[^\r\n]{1,1000}\r\n){0,10}?\r\n"
        rb"(.{0,%d}?)\r\n--" % _FIELD_MAX + re.escape(separator),
        re.DOTALL | re.IGNORECASE,
    )
    found = part.search(text)
    return found[1].decode("utf-8", "replace") if found else None
