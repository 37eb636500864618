"""A small HTTP/1.1 client for one server, whose answers are passed on while they come."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from typing import Optional
from urllib.parse import urlsplit

from . import wire

# In seconds: how long a connection may take to come about, and how long one is kept for the next request. The latter is less than the five
# seconds after which usual model servers close theirs: a request that meets this may have run or not, and cannot be sent again.
CONNECT_TIMEOUT = 10.0
IDLE_TIMEOUT = 2.0

MAX_IDLE = 100

# How many bytes may wait to be sent to the server.
_HIGH_WATER = 64 << 10

_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")


class UpstreamError(ConnectionError):
    """The server cannot be reached, ended the connection, or does not speak HTTP/1.1."""


class Upstream:
    """The server at a URL like http://127.0.0.1:8000, without a path."""

    def __init__(self, url: str) -> None:
        """ValueError says what is wrong with the URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"upstream {url!r} is not like http://127.0.0.1:8000")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None or parts.password is not None:
            raise ValueError(f"upstream {url!r} may have nothing but scheme, host and port")
        self.authority = parts.netloc.encode("ascii")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._idle: list[Connection] = []

    async def connect(self) -> Connection:
        """A connection that no other request is on. UpstreamError if there is none to be had."""
        while self._idle:
            connection = self._idle.pop()
            if await connection.reuse():
                return connection
        try:
            return await asyncio.wait_for(self._open(), CONNECT_TIMEOUT)
        except (OSError, asyncio.TimeoutError) as e:
            raise UpstreamError(f"connecting to {self._host}:{self._port}: {e or 'it took too long'}") from None

    async def _open(self) -> Connection:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=wire.MAX_HEAD)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Connection(reader, writer)

    async def release(self, connection: Connection) -> None:
        """Gives back a connection; it is kept if its response was read and it may be used again."""
        if len(self._idle) < MAX_IDLE and await connection.rest(self._idle):
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Closes the connections that are kept."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class Response:
    """A response's head, and its body as it comes."""

    def __init__(self, status: int, fields: wire.Fields, body: wire.Body) -> None:
        self.status = status
        self.fields = fields
        self._body = body

    async def read(self) -> bytes:
        """The next bytes of the body; none at its end. UpstreamError if it does not come to its end."""
        try:
            return await self._body.read()
        except (OSError, wire.Malformed) as e:
            raise UpstreamError(f"the model server's response was cut: {e}") from None


class Connection:
    """A connection with at most one request on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._watch: Optional[asyncio.Task[bytes]] = None  # while nothing is expected
        self._expiry: Optional[asyncio.TimerHandle] = None
        self._chunked = False
        self._sent = False  # the request, to its end
        self._persistent = False
        self._body: Optional[wire.Body] = None

    def send_head(self, method: bytes, target: bytes, fields: wire.Fields, length: Optional[int]) -> None:
        """Begins a request, whose body has length bytes, or comes in wire.CHUNKED; None: it has none."""
        self._chunked, self._sent, self._body = length == wire.CHUNKED, False, None
        if length is not None:
            framing = (b"transfer-encoding", b"chunked") if self._chunked else (b"content-length", b"%d" % length)
            fields = [*fields, framing]
        self._writer.write(method + b" " + target + b" HTTP/1.1\r\n" + wire.fields_text(fields))

    async def send(self, data: bytes, last: bool) -> None:
        """Sends a part of the body. ConnectionError if the server takes no more; it may have answered all the same."""
        if self._chunked:
            data = wire.chunk(data, last)
        if data:
            self._writer.write(data)
        self._sent = last
        if self._writer.transport.get_write_buffer_size() > _HIGH_WATER:
            await self._writer.drain()

    async def response(self, method: bytes) -> Response:
        """Waits for the response to the request. UpstreamError if there is none."""
        try:
            while True:
                head = await wire.read_head(self._reader)
                match = _STATUS_LINE.fullmatch(head.start)
                if not match or match[2] == b"101":
                    raise wire.Malformed("its status line is malformed")
                status = int(match[2])
                if status >= 200:
                    break
                await asyncio.sleep(0)  # others come before the response, and may be many
            length = wire.body_length(head.fields, match[1])
        except (OSError, wire.Malformed) as e:
            raise UpstreamError(f"the model server gave no response: {e}") from None
        if method == b"HEAD" or status in (204, 304):
            length = 0
        elif length is None:
            length = wire.UNTIL_CLOSE
        self._body = wire.Body(self._reader, length)
        self._persistent = match[1] == b"1.1" and b"close" not in wire.tokens(head.fields, b"connection") and length != wire.UNTIL_CLOSE
        return Response(status, head.fields, self._body)

    async def rest(self, idle: list[Connection]) -> bool:
        """Prepares the connection for being kept in idle. Says whether it may be."""
        if not (self._sent and self._persistent and self._body is not None and self._body.complete):
            return False
        # Whatever comes now, the end or bytes that nobody asked for, makes it useless.
        self._watch = asyncio.ensure_future(self._reader.read(1))
        await asyncio.sleep(0)  # so that it sees what came already

        def expire(_: object = None) -> None:
            if self in idle:
                idle.remove(self)
                self.close()

        self._watch.add_done_callback(expire)
        self._expiry = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, expire)
        return True

    async def reuse(self) -> bool:
        """Takes it out of rest. Says whether it is still good; else it is closed."""
        assert self._watch is not None and self._expiry is not None
        self._expiry.cancel()
        self._watch.cancel()
        await asyncio.wait({self._watch})
        if self._watch.cancelled():
            return True
        self.close()
        return False

    def close(self) -> None:
        """Closes it at once; a server that still works on its request stops."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._writer.transport.abort()
