"""HTTP/1.1 as it is on the wire (RFC 9112), read strictly: what two programs could read in two ways is refused."""

from __future__ import annotations

import asyncio
import json
import re
from typing import NamedTuple, Optional

# Limits of a request's or a response's head, with its start line, and of a chunked body's trailer.
MAX_HEAD = 64 << 10
MAX_FIELDS = 200

# How long the line before a chunk, with its size, may be.
_MAX_SIZE_LINE = 256

# How much of a body is taken at a time, in bytes.
_PIECE = 64 << 10

# After how many reads the event loop gets its turn: one of what is here already never waits, and there may be thousands of them.
_READS = 8

# In the place of a body's length: it comes in chunks, or it lasts until the connection is closed.
CHUNKED = -1
UNTIL_CLOSE = -2

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")

# Fields that are about one connection (RFC 9110, 7.6.1), with those that Connection itself names.
_HOP_BY_HOP = frozenset(
    [b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"]
)

Fields = list[tuple[bytes, bytes]]  # names in lower case


class Malformed(Exception):
    """What came is not what HTTP/1.1 allows, or more than is read. status is what to answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Cut(ConnectionError):
    """The connection ended before its message did."""


class Head(NamedTuple):
    start: bytes
    fields: Fields


async def read_head(reader: asyncio.StreamReader, begun: bytes = b"") -> Head:
    """Reads the start line and the fields; begun is what was read of them already."""
    try:
        data = begun + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as e:
        raise Cut("the connection ended within a head" if begun or e.partial else "the connection ended before a head") from None
    except asyncio.LimitOverrunError:
        raise Malformed(f"the head is longer than {MAX_HEAD} bytes", 431) from None
    if len(data) > MAX_HEAD:
        raise Malformed(f"the head is longer than {MAX_HEAD} bytes", 431)
    start, *lines = data[:-4].removeprefix(b"\r\n").split(b"\r\n")  # one empty line before it is to be ignored
    return Head(start, _parse_fields(lines))


def _parse_fields(lines: list[bytes]) -> Fields:
    if len(lines) > MAX_FIELDS:
        raise Malformed(f"there are more than {MAX_FIELDS} header fields", 431)
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        value = value.strip(b" \t")
        if not colon or not TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Malformed("a header field is malformed")
        fields.append((name.lower(), value))
    return fields


def get(fields: Fields, name: bytes) -> list[bytes]:
    return [value for n, value in fields if n == name]


def tokens(fields: Fields, name: bytes) -> set[bytes]:
    """The elements, in lower case, of fields that are lists."""
    return {token.strip(b" \t").lower() for value in get(fields, name) for token in value.split(b",")}


def body_length(fields: Fields, version: bytes) -> Optional[int]:
    """The length of the body that follows, or CHUNKED; None if the fields say nothing of one."""
    lengths, codings = get(fields, b"content-length"), get(fields, b"transfer-encoding")
    if codings:
        if lengths:
            raise Malformed("both Content-Length and Transfer-Encoding are there")
        if version == b"1.0":
            raise Malformed("HTTP/1.0 has no Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Malformed("a Transfer-Encoding other than chunked is not implemented", 501)
        return CHUNKED
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("Content-Length is not one number")
    return int(lengths[0])


def end_to_end(fields: Fields) -> Fields:
    """The fields that are not about the connection alone."""
    drop = _HOP_BY_HOP | tokens(fields, b"connection")
    return [(name, value) for name, value in fields if name not in drop]


def fields_text(fields: Fields) -> bytes:
    """The fields as they are written, with the empty line after them. ValueError if they could be read as something else."""
    for name, value in fields:
        if not TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"header field {name!r} cannot be written")
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"


def chunk(data: bytes, last: bool) -> bytes:
    """A chunk; data may be empty."""
    text = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return text + b"0\r\n\r\n" if last else text


def error_body(status: int, message: str) -> bytes:
    """An error as model servers answer it."""
    kind = {501: "NotImplementedError", 502: "BadGatewayError"}.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}}).encode()


class Body:
    """A body that is read piece by piece, as it comes."""

    def __init__(self, reader: asyncio.StreamReader, length: int) -> None:
        """length is a number of bytes, CHUNKED or UNTIL_CLOSE."""
        self._reader = reader
        self._framing = length
        self._left = max(length, 0)  # of the body, or of the chunk
        self._within = False  # a chunk, or the end of the line after it
        self._reads = 0
        self.complete = length == 0

    async def read(self) -> bytes:
        """The next bytes; none, and complete is set, where there are no more. Malformed or Cut otherwise."""
        if self.complete:
            return b""
        self._reads += 1
        if self._reads % _READS == 0:
            await asyncio.sleep(0)
        if self._framing == CHUNKED:
            await self._next_chunk()
            if self.complete:
                return b""
        data = await self._reader.read(min(self._left, _PIECE) if self._framing != UNTIL_CLOSE else _PIECE)
        if not data:
            if self._framing != UNTIL_CLOSE:
                raise Cut("the connection ended within a body")
            self.complete = True
        self._left -= len(data)
        if self._left == 0 and self._framing >= 0:
            self.complete = True
        return data

    async def _next_chunk(self) -> None:
        """Goes on to the next chunk if this one was read."""
        if self._left:
            return
        if self._within and await self._line() != b"\r\n":
            raise Malformed("a chunk is longer than it says")
        line = await self._line()
        match = _SIZE_LINE.fullmatch(line)
        if not match or len(line) > _MAX_SIZE_LINE:
            raise Malformed("the size of a chunk is malformed")
        self._left, self._within = int(match[1], 16), True
        if self._left == 0:
            await self._trailer()
            self.complete = True

    async def _trailer(self) -> None:
        """Reads the fields after the last chunk, which mean nothing here."""
        lines, size = [], 0
        while (line := await self._line()) != b"\r\n":
            size += len(line)
            if size > MAX_HEAD or len(lines) >= MAX_FIELDS:
                raise Malformed("the trailer is too long", 431)
            lines.append(line[:-2])
        _parse_fields(lines)

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError:
            raise Cut("the connection ended within a chunked body") from None
        except asyncio.LimitOverrunError:
            raise Malformed("a line of a chunked body is too long") from None
