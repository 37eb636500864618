"""A request while it runs: looks at the messages that pass, and changes none."""

from __future__ import annotations

import logging
import time
from typing import Any, Awaitable, Callable, Dict, Optional

from .bodies import READ
from .capture import Capture
from .content import Streamed
from .digests import Digests
from .endpoints import MODEL_CHANGE
from .record import Recorder, Request
from .source import Source

Message = Dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEAD = 64 << 10  # bytes kept of the beginning of a response of which only some members are looked for

_HEADERS = frozenset((b"content-type", b"authorization", b"x-api-key", b"api-key", b"x-request-id"))
MARK = "auditchain_asgi"  # in a scope: it is being recorded
_BODIES = frozenset(("http.response.body", "http.response.pathsend", "http.response.zerocopysend"))  # with the last two a server sends a file

_log = logging.getLogger(__name__)


class Exchange(Request):
    __slots__ = ("scope", "_receive", "_send", "_source", "_recorder", "_final", "_done")

    def __init__(self, scope: dict, receive: Receive, send: Send, operation: str, digests: Digests, head: int) -> None:
        self.arrived = time.perf_counter()
        self.arrived_us = time.time_ns() // 1000
        self._receive = receive
        self._send = send
        self.path = scope["path"]
        self.method = scope["method"]
        self.operation = operation
        self.client_request_id: Optional[str] = None
        self.content_type = ""
        self.credential = b""
        self.scope = scope
        self._read_headers()
        self.input = Capture(digests.new(), max(head, READ))
        self.output = Capture(digests.new(), head)
        self.http_status: Optional[int] = None
        self.stream = False
        self.streamed: Optional[Streamed] = None
        self.first_part: Optional[float] = None
        self.unseen = False
        self.aborted: Optional[float] = None
        self.error: Optional[str] = None
        self._final = False  # the last part is on its way
        self._done = False

    def _read_headers(self) -> None:
        headers = self.scope["headers"]
        if not isinstance(headers, (list, tuple)):  # it can be read once only
            headers = list(headers)
            self.scope = {**self.scope, "headers": headers}
        # Of several of one name the first counts, even if it is empty: so Starlette reads them.
        first: Dict[bytes, bytes] = {}
        for name, value in headers:
            if name in _HEADERS and name not in first:
                first[name] = value
        self.content_type = first.get(b"content-type", b"").decode("latin-1")
        self.credential = _credential(first.get(b"authorization", b"")) or first.get(b"x-api-key") or first.get(b"api-key", b"")
        if b"x-request-id" in first:
            self.client_request_id = first[b"x-request-id"].decode("latin-1")

    def begin(self, source: Source, recorder: Recorder) -> bool:
        """Takes a number; False if the source is gone."""
        change = self.operation == MODEL_CHANGE
        taken = source.begin(self.arrived_us, change, self.path.encode("utf-8", "replace"))
        if taken is None:
            return False
        self.source_id = source.id
        self.seq, self.request_id = taken
        self._source, self._recorder = source, recorder
        headers = self.scope["headers"]
        if self.client_request_id is None:
            headers = [*headers, (b"x-request-id", self.request_id.encode("ascii"))]
        self.scope = {**self.scope, "headers": headers, MARK: True}
        return True

    async def receive(self) -> Message:
        message = await self._receive()
        kind = message["type"]
        if kind == "http.request":
            body = message.get("body")
            if body:
                self.input.add(body)
        elif kind == "http.disconnect":
            self._client_gone()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind in _BODIES:
            last = not message.get("more_body", False)
            self._final = self._final or last
            self.unseen = self.unseen or kind != "http.response.body"
            try:
                await self._send(message)
            except OSError:  # so servers say that the client is gone
                self._final = self._done
                self._client_gone()
                raise
            except Exception as error:
                if last:
                    self._final = self._done
                    self.failed(error)
                raise
            finally:
                body = message.get("body")
                if (body or self.unseen) and not self._done:
                    if self.first_part is None:
                        self.first_part = time.perf_counter()
                    if body:
                        self.output.add(body)
                        if self.streamed is not None:
                            self._read(self.streamed, body)
            if last:
                self.end()
        elif kind == "http.response.start":
            await self._start(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = message.get("headers", ())
        if not isinstance(headers, (list, tuple)):
            headers = list(headers)
            message = {**message, "headers": headers}
        self.http_status = message["status"]
        for name, value in headers:
            if name.lower() == b"content-type":
                self.stream = value.lower().startswith(b"text/event-stream")
        if self.stream and self.output.size == 0:  # it reads all of a body, or nothing
            self.streamed = self._recorder.streamed()
        try:
            await self._send(message)
        except Exception as error:
            self.http_status = None
            if isinstance(error, OSError):  # so servers say that the client is gone
                self._client_gone()
            raise

    def _read(self, streamed: Streamed, part: bytes) -> None:
        try:
            streamed.add(part)
        except Exception:  # a defect; the response is not to suffer from it, and its body is hashed still
            _log.exception("auditchain: reading the stream of request %s", self.request_id)
            streamed.drop()

    def _client_gone(self) -> None:
        if not self._final and self.aborted is None:
            self.aborted = time.perf_counter()

    def failed(self, error: BaseException) -> None:
        """An exception came out of the application. After the last part the client did not see any of it."""
        if not self._final:
            self.error = type(error).__name__

    def end(self) -> None:
        """Writes the record, once."""
        if self._done:
            return
        self._done = True
        self.ended = time.perf_counter()
        if not self._final and self.http_status is not None and self.error is None:
            self._client_gone()  # so Starlette ends a stream whose client is gone
        try:
            line = self._recorder.line(self)
        except Exception:  # a defect; the request is not to suffer from it, and is recorded still
            _log.exception("auditchain: reading the bodies of request %s", self.request_id)
            line = self._recorder.bare_line(self)
        self._source.put(self.seq, line)


def _credential(authorization: bytes) -> bytes:
    """What follows the scheme; all of it where there is no scheme."""
    words = authorization.split(None, 1)
    if not words or len(words) == 1 and words[0].lower() in (b"bearer", b"basic"):
        return b""
    return words[-1]
