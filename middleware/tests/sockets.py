"""Clients and applications for the tests of what speaks HTTP/1.1, on real sockets."""

import asyncio
import contextlib
import unittest
from typing import Any, Optional

from auditchain_asgi import http1, wire

WAIT = 10.0  # seconds, for what comes at once


async def echo(scope: dict, receive: Any, send: Any) -> None:
    """Answers with what it got."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    else:
        return
    text = b"%b %b?%b %b" % (scope["method"].encode(), scope["path"].encode(), scope["query_string"], body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


class Turns:
    """Counts how often the event loop has given others their turn."""

    def __init__(self) -> None:
        self.count = 0
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, head: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, fields and body of the next response."""
        start, fields = await asyncio.wait_for(wire.read_head(self.reader), WAIT)
        status = int(start.split()[1])
        length = 0 if head or status in (100, 204, 304) else wire.body_length(fields, b"1.1")
        body = wire.Body(self.reader, wire.UNTIL_CLOSE if length is None else length)
        data = []
        while not body.complete:
            data.append(await asyncio.wait_for(body.read(), WAIT))
        return status, dict(fields), b"".join(data)

    async def until_closed(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), WAIT)
        return b""

    def close(self) -> None:
        self.writer.close()


class Case(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # as in use; it takes much time

    async def serve(self, app: Any) -> http1.Server:
        server = http1.Server(app)
        await server.start("127.0.0.1", 0)
        self.addAsyncCleanup(server.stop, 0)
        self.server = server
        return server

    def turns(self) -> Turns:
        turns = Turns()
        self.addCleanup(turns.stop)
        return turns

    async def client(self, server: Optional[http1.Server] = None) -> Client:
        client = Client(*await asyncio.open_connection(*(server or self.server).address))
        self.addCleanup(client.close)
        return client


GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nbo\r\n2\r\ndy\r\n0\r\nT: v\r\n\r\n"


def start(status: int = 200, *fields: tuple[bytes, bytes]) -> dict:
    return {"type": "http.response.start", "status": status, "headers": fields}


def part(data: bytes, more: bool = False) -> dict:
    return {"type": "http.response.body", "body": data, "more_body": more}
