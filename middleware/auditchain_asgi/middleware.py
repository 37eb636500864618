"""The middleware itself."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Awaitable, Callable, Optional

from . import bodies, endpoints, metrics, settings
from .digests import Digests
from .exchange import HEAD, MARK, Exchange, Message, Receive, Send
from .model import Models
from .record import Recorder
from .source import Source, starting
from .version import VERSION
from .weights import Weights

App = Callable[[dict, Receive, Send], Awaitable[None]]

_LOG_S = 10.0  # between two lines of the log about the same failure

_log = logging.getLogger(__name__)


class AuditMiddleware:
    """Pure ASGI middleware: every message passes as it is, and at once; a record is written when a request has ended.

    A wrong setting fails the server's start where the server has the application take part in it (lifespan). Where it
    has not, every request is answered with 503.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._source: Optional[Source] = None
        self._recorder: Optional[Recorder] = None
        self._models: Optional[Models] = None
        self._weights: Optional[Weights] = None
        self._models_pid = 0  # of the process in which they are computed
        self._start_logged = -_LOG_S
        self._twice_logged = False
        self._wrong: Optional[str] = None  # why there is no source
        self._settings: Optional[settings.Settings] = None
        try:
            read = settings.read(os.environ)
            Models(read.model, read.dir, self._models_changed)
            self._settings = read
        except settings.SettingsError as error:
            self._wrong = str(error)
        except ValueError as error:
            self._wrong = f"AUDITCHAIN_MODEL: {error}"
        if self._settings is None:
            _log.critical("auditchain: %s", self._wrong)
            return
        for name in settings.unknown(os.environ):
            _log.warning("auditchain: %s is no setting", name)
        self._digests = Digests(self._settings.key, self._settings.keyed)
        self._endpoints = endpoints.Endpoints(self._settings.endpoints)
        keeps = self._settings.payload or self._settings.content
        self._head = max(HEAD, self._settings.payload_limit) if keeps else HEAD

    async def __call__(self, scope: dict, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if MARK in scope:
            self._twice()
            await self._app(scope, receive, send)
        elif kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: dict, receive: Receive, send: Send) -> None:
        if self._settings is None:
            await _refuse(send, "the audit log is not configured")
            return
        if scope["method"] != "POST":
            if scope["method"] == "GET" and metrics.PATH in endpoints.paths(scope):
                await _respond(send, 200, metrics.CONTENT_TYPE, metrics.exposition(self._settings.dir))
            else:
                await self._app(scope, receive, send)
            return
        match = self._endpoints.match(scope)
        if match is None:
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, match.operation, self._digests, self._head)
        while True:
            source = self._running()
            if source is None or self._settings.deny and source.failing:
                await _refuse(send, "the audit log cannot be written to")
                return
            if exchange.begin(source, self._recorder):
                break
        try:
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            exchange.end()
            if match.operation == endpoints.MODEL_CHANGE:
                self._model_change(match.path, exchange)

    async def _lifespan(self, scope: dict, receive: Receive, send: Send) -> None:
        first: Optional[Message] = await receive()
        if first["type"] == "lifespan.startup" and self._running() is None:
            await send({"type": "lifespan.startup.failed", "message": f"auditchain: {self._wrong}"})
            return

        async def receive_on() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        async def send_on(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed"):
                if self._source is not None and self._source.idle:  # else the process's end stops it
                    self._source.stop()
            await send(message)

        await self._app({**scope, MARK: True}, receive_on, send_on)

    def _twice(self) -> None:
        """There is another one of these outside, which records what it marks."""
        if not self._twice_logged:
            self._twice_logged = True
            _log.warning("auditchain: the middleware was added twice; the inner one does nothing")

    def _running(self) -> Optional[Source]:
        """The source of this process; None if it cannot be started. A fork, and a shutdown, end one."""
        source = self._source
        if source is not None and not source.gone:
            return source
        if self._settings is None:
            return None
        with starting():
            if self._source is None or self._source.gone:
                self._start(self._settings)
            return self._source

    def _start(self, s: settings.Settings) -> None:
        try:
            os.makedirs(s.dir, 0o750, exist_ok=True)
            if self._models_pid != os.getpid():
                self._models = Models(s.model, s.dir, self._models_changed)
                self._weights = Weights(s.dir, self._models, self._models_changed)
                self._recorder = Recorder(s, self._digests, self._models, self._weights)
            source = Source(s.dir, s.file_size, s.queue_limit, s.heartbeat, self._describe, self._models.describe, s.deny)
        except OSError as error:
            self._source = None
            self._wrong = f"AUDITCHAIN_DIR: {error}"
            if time.monotonic() - self._start_logged >= _LOG_S:
                self._start_logged = time.monotonic()
                _log.critical("auditchain: %s", self._wrong)
            return
        self._source = source
        if self._models_pid != os.getpid():
            self._models_pid = os.getpid()
            self._models.start()

    def _describe(self) -> dict:
        return {"software": f"auditchain_asgi {VERSION}", "pid": os.getpid(), "settings": self._settings.describe()}

    def _models_changed(self) -> None:
        source = self._source
        if source is not None:
            source.models_changed()

    def _model_change(self, path: str, exchange: Exchange) -> None:
        """What is served has changed. Adapters that were loaded are summed up by the models' own thread."""
        if path in endpoints.UPDATE_WEIGHTS:
            if exchange.http_status is None or not 400 <= exchange.http_status < 500:  # a failure may have changed a part
                self._weights.updated()
            return
        if exchange.http_status is None or not 200 <= exchange.http_status < 300:
            return
        asked = bodies.asked(exchange.input, exchange.content_type).members
        name, directory = asked.get("lora_name"), asked.get("lora_path")
        if not isinstance(name, str) or not name:
            return
        if path in endpoints.UNLOAD_LORA:
            self._models.unload_lora(name)
            self._models_changed()
        elif isinstance(directory, str) and directory:
            self._models.load_lora(name, directory)


async def _respond(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, why: str) -> None:
    """As an OpenAI client expects errors to look."""
    error = {"message": why, "type": "service_unavailable", "param": None, "code": 503}
    await _respond(send, 503, b"application/json", json.dumps({"error": error}).encode())
