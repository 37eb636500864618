"""A strict HTTP/1.1 server for one ASGI application: what a reverse proxy in front of a model server needs, and no more.

Requests on a connection are answered one after the other. A client that closes its side is taken for one that left, as other servers do.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
import signal
import socket
import struct
from typing import Any, Awaitable, Callable, Optional
from urllib.parse import unquote

from . import wire
from .lifespan import Lifespan

_log = logging.getLogger(__name__)

Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# In seconds: how long a connection may wait for a request, a request's head may take to come, a body may pause, and a client may take nothing,
# within a response and at its end.
IDLE_TIMEOUT = 75.0
HEAD_TIMEOUT = 10.0
BODY_TIMEOUT = 60.0
WRITE_TIMEOUT = 300.0
CLOSE_TIMEOUT = 10.0

# How much of a request is thrown away, and for how many seconds, so that a client that still sends it reads the answer.
LINGER_BYTES = 16 << 20
LINGER_TIMEOUT = 2.0

MAX_CONNECTIONS = 4096

# Bytes that may wait to be sent before the application has to.
_HIGH_WATER = 64 << 10

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21-\x7e]+) HTTP/([0-9]\.[0-9])")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(/.*)?", re.IGNORECASE)


class Server:
    """Serves an application on one address."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.stopping = False
        self.address: tuple[str, int] = ("", 0)  # where it listens
        self._lifespan = Lifespan(app)
        self._listener: Optional[asyncio.AbstractServer] = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    async def start(self, host: str, port: int) -> None:
        """Starts the application, and then to listen. OSError if that is not possible, RuntimeError if the application says so."""
        loop = asyncio.get_running_loop()
        await self._lifespan.startup()

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Reader(), self._connected)

        try:
            self._listener = await loop.create_server(protocol, host, port, backlog=1024)
        except OSError:
            await self._lifespan.shutdown()
            raise
        self.address = self._listener.sockets[0].getsockname()[:2]

    async def stop(self, grace: float) -> None:
        """Listens no more, lets what runs end for so many seconds, and cuts the rest. Then the application ends."""
        self.stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections.values():
            connection.close_if_idle()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=grace)
        await asyncio.gather(*self.cut(), return_exceptions=True)
        await self._lifespan.shutdown()

    def cut(self) -> list[asyncio.Task[None]]:
        """Cancels what runs, and returns it."""
        running = list(self._connections)
        for task in running:
            task.cancel()
        return running

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        if self.stopping or len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        # A client whose machine is gone is noticed while a model works for it.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = _Connection(self, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)


async def serve(app: App, host: str, port: int, grace: float, started: Callable[[Server], None]) -> None:
    """Serves until SIGTERM or SIGINT; a second one cuts what still runs."""
    server = Server(app)
    await server.start(host, port)
    started(server)
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, None)
    await signals.get()
    stopping = asyncio.ensure_future(server.stop(grace))
    second = asyncio.ensure_future(signals.get())
    await asyncio.wait({stopping, second}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        server.cut()
    second.cancel()
    await stopping


class _Reader(asyncio.StreamReader):
    """A stream that says at once when its other end is gone, while nobody reads from it."""

    def __init__(self) -> None:
        super().__init__(limit=wire.MAX_HEAD)
        self.gone = False
        self.over: Optional[asyncio.Event] = None  # set when it is gone

    def feed_eof(self) -> None:
        super().feed_eof()
        self._set_gone()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)
        self._set_gone()

    def _set_gone(self) -> None:
        self.gone = True
        if self.over is not None:
            self.over.set()


class _Connection:
    def __init__(self, server: Server, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._idle = False

    async def run(self) -> None:
        try:
            while not self._server.stopping and await self._request():
                await asyncio.sleep(0)  # else those that are here already would be answered before anybody else gets a turn
        except (ConnectionError, TimeoutError, asyncio.TimeoutError):
            pass  # the client is gone
        except asyncio.CancelledError:
            self._writer.transport.abort()
        except Exception:
            _log.exception("a connection failed")
            self._writer.transport.abort()
        finally:
            await self._close()

    async def _close(self) -> None:
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), CLOSE_TIMEOUT)
        except ConnectionError:
            pass
        except (asyncio.TimeoutError, asyncio.CancelledError):  # it does not take what it was sent
            self._writer.transport.abort()

    def close_if_idle(self) -> None:
        if self._idle:
            self._writer.close()

    async def _request(self) -> bool:
        """Answers one request. Says whether another may follow."""
        self._idle = True
        first = await asyncio.wait_for(self._reader.read(1), IDLE_TIMEOUT)
        self._idle = False
        if not first:
            return False
        try:
            head = await asyncio.wait_for(wire.read_head(self._reader, first), HEAD_TIMEOUT)
            exchange = _Exchange(self._reader, self._writer, _Request(head), lambda: self._server.stopping)
        except asyncio.TimeoutError:
            await self._refuse(408, "the request's head did not come in time")
            return False
        except wire.Malformed as e:
            await self._refuse(e.status, str(e))
            return False
        if self._reader.gone:
            return False  # nobody is there to answer
        keep = await exchange.run(self._server.app)
        if not keep and not self._reader.gone and not self._writer.transport.is_closing():
            await self._linger()
        return keep

    async def _refuse(self, status: int, message: str) -> None:
        body = wire.error_body(status, message)
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        self._writer.write(_status_line(status) + wire.fields_text(fields) + body)
        await self._linger()

    async def _linger(self) -> None:
        """Ends the answer and throws away what still comes: a connection closed before that would take the answer away from its reader."""

        async def discard() -> None:
            size = 0
            while size < LINGER_BYTES and (data := await self._reader.read(_HIGH_WATER)):
                size += len(data)

        if self._writer.can_write_eof():
            self._writer.write_eof()
        try:
            await asyncio.wait_for(discard(), LINGER_TIMEOUT)
        except asyncio.TimeoutError:
            pass


class _Request:
    """A request's head, whose every part is as it has to be."""

    def __init__(self, head: wire.Head) -> None:
        match = _REQUEST_LINE.fullmatch(head.start)
        if not match:
            raise wire.Malformed("the request line is malformed")
        self.method, target, self.version = match.groups()
        if self.version not in (b"1.0", b"1.1"):
            raise wire.Malformed("the version of HTTP is not implemented", 505)
        self.fields = head.fields
        hosts = wire.get(self.fields, b"host")
        if len(hosts) > 1 or not hosts and self.version == b"1.1":
            raise wire.Malformed("there is not one Host")
        if absolute := _ABSOLUTE.fullmatch(target):
            target = absolute[2] or b"/"
            self.fields = [(b"host", absolute[1]), *(f for f in self.fields if f[0] != b"host")]
        if not target.startswith(b"/") or b"#" in target:
            raise wire.Malformed("the request target is not a path")
        self.path, _, self.query = target.partition(b"?")
        self.length = wire.body_length(self.fields, self.version) or 0
        self.expects_continue = False
        for expectation in wire.get(self.fields, b"expect"):
            if expectation.lower() != b"100-continue":
                raise wire.Malformed("the expectation is not known", 417)
            self.expects_continue = self.version == b"1.1" and self.length != 0
        if b"websocket" in wire.tokens(self.fields, b"upgrade"):
            raise wire.Malformed("WebSocket is not implemented here: what passes through it could not be recorded", 501)

    def keeps_alive(self) -> bool:
        return self.version == b"1.1" and b"close" not in wire.tokens(self.fields, b"connection")

    def scope(self, client: Any, server: Any) -> Message:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version.decode(),
            "method": self.method.decode(),
            "scheme": "http",
            "path": unquote(self.path.decode()),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": self.fields,
            "client": client[:2] if client else None,
            "server": server[:2] if server else None,
            "state": {},
        }


class _Exchange:
    """One request and its response."""

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter, request: _Request, stopping: Callable[[], bool]) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request
        self._stopping = stopping
        self._body = wire.Body(reader, request.length)
        self._body_given = False  # to its end
        self._failure: Optional[wire.Malformed] = None  # of reading the body
        self._over = asyncio.Event()  # the client is gone, or has its response
        self._status = 0  # 0: the response was not begun
        self._left: Optional[int] = None  # bytes of its body that must still come; None: it goes out in chunks
        self._keep = request.keeps_alive()
        self._complete = False

    async def run(self, app: App) -> bool:
        """Says whether the connection may serve another request."""
        self._reader.over = self._over
        if self._reader.gone:
            self._over.set()
        get = self._writer.get_extra_info
        scope = self._request.scope(get("peername"), get("sockname"))
        try:
            await app(scope, self.receive, self.send)
        except ConnectionError as e:
            _log.warning("%s %r: %s", scope["method"], scope["path"], e)
        except Exception:
            _log.exception("%s %r: the application failed", scope["method"], scope["path"])
        except asyncio.CancelledError:
            self._cut()
            raise
        finally:
            self._reader.over = None
        if self._reader.gone:
            return False
        if not self._status:
            await self._answer_failure()
        if not self._complete:
            self._cut()
        return self._complete and self._keep

    async def receive(self) -> Message:
        if self._request.expects_continue and not self._status and not self._body_given:
            self._request.expects_continue = False
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._body_given and not self._complete and self._failure is None:
            try:
                data = await asyncio.wait_for(self._body.read(), BODY_TIMEOUT)
                self._body_given = self._body.complete
                return {"type": "http.request", "body": data, "more_body": not self._body_given}
            except wire.Malformed as e:
                self._failure = e
            except asyncio.TimeoutError:
                self._failure = wire.Malformed("the request's body did not come in time", 408)
            except ConnectionError:
                self._over.set()
        if self._failure is None:
            await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._reader.gone or self._writer.transport.is_closing():
            return  # who left is told by receive
        if message["type"] == "http.response.start":
            self._start(message["status"], [(bytes(n).lower(), bytes(v)) for n, v in message.get("headers", ())])
        elif message["type"] == "http.response.body":
            self._send_body(bytes(message.get("body", b"")), message.get("more_body", False))
        else:
            raise RuntimeError(f"the message {message['type']!r} is not known")
        if self._writer.transport.get_write_buffer_size() > _HIGH_WATER:
            try:
                await asyncio.wait_for(self._writer.drain(), WRITE_TIMEOUT)
            except (ConnectionError, asyncio.TimeoutError):
                self._writer.transport.abort()
                self._over.set()

    def _start(self, status: int, fields: wire.Fields) -> None:
        if self._status:
            raise RuntimeError("the response was begun already")
        fields = wire.end_to_end(fields)
        length = wire.body_length(fields, b"1.1")
        if self._bodiless(status):
            self._left = 0
            if status < 200 or status == 204:
                fields = [f for f in fields if f[0] != b"content-length"]
        elif length is not None:
            self._left = length
        elif self._request.version == b"1.1":
            fields.append((b"transfer-encoding", b"chunked"))
        # Of a body that was not read the rest would be taken for the next request.
        self._keep = self._keep and self._body.complete and not self._stopping()
        if not self._keep:
            fields.append((b"connection", b"close"))
        self._writer.write(_status_line(status) + wire.fields_text(fields))
        self._status = status

    def _bodiless(self, status: int) -> bool:
        return self._request.method == b"HEAD" or status in (204, 304)

    def _send_body(self, data: bytes, more: bool) -> None:
        if not self._status or self._complete:
            raise RuntimeError("a part of the body came before or after the response")
        if self._bodiless(self._status):
            data = b""
        if self._left is not None:
            if len(data) > self._left:
                raise RuntimeError("the body is longer than its Content-Length")
            self._left -= len(data)
            if not more and self._left:
                raise RuntimeError("the body is shorter than its Content-Length")
        elif self._request.version == b"1.1":
            data = wire.chunk(data, last=not more)
        if data:
            self._writer.write(data)
        if not more:
            self._complete = True
            self._over.set()

    async def _answer_failure(self) -> None:
        status, message = 500, "the application gave no response"
        if self._failure is not None:
            status, message = self._failure.status, str(self._failure)
        self._keep = False
        body = wire.error_body(status, message)
        self._start(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))])
        self._send_body(body, False)

    def _cut(self) -> None:
        """Ends the connection so that nobody takes the response for complete."""
        if self._request.version == b"1.0" and self._left is None:
            # Its end is the response's end: only a reset tells the difference.
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
