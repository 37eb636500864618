"""What the tests of the middleware share: settings, an application to put it around, and requests."""

import asyncio
import json
import logging
import os
import pathlib
import tempfile
import time
import unittest
from unittest import mock

from auditchain_asgi import AuditMiddleware
from auditchain_asgi.source import Source

KEY = "0123456789abcdef"
CHECKSUM = "sha256:" + "ab" * 32
WAIT = 20  # seconds, for what comes at once


def until(condition, what="it"):
    """Waits for a condition that another thread or process brings about."""
    deadline = time.monotonic() + WAIT
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come")
        time.sleep(0.005)


def lines(directory) -> list:
    """All whole lines in the directory, by file."""
    found = []
    for path in sorted(pathlib.Path(directory).glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found.append(json.loads(line))
    return found


def records(directory) -> list:
    return [line for line in lines(directory) if "source_event" not in line]


def events(directory, name=None) -> list:
    return [line for line in lines(directory) if "source_event" in line and name in (None, line["source_event"])]


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = self.directory()
        logging.getLogger("auditchain_asgi").setLevel(logging.CRITICAL + 1)
        self.addCleanup(logging.getLogger("auditchain_asgi").setLevel, logging.NOTSET)

    def directory(self) -> pathlib.Path:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return pathlib.Path(directory.name)

    def source(self, directory=None, file_size=1 << 20, queue_limit=1 << 20, heartbeat=3600.0, deny=False) -> Source:
        source = Source(directory or self.dir, file_size, queue_limit, heartbeat, dict, list, deny)
        self.addCleanup(source.stop)
        return source

    def settings(self, **given) -> None:
        """Sets AUDITCHAIN_* for this test; a value of None removes one."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("AUDITCHAIN_")}
        values = {"DIR": str(self.dir), "HMAC_KEY": KEY, "MODEL": CHECKSUM, **given}
        environ.update({f"AUDITCHAIN_{k}": v for k, v in values.items() if v is not None})
        patch = mock.patch.dict(os.environ, environ, clear=True)
        patch.start()
        self.addCleanup(patch.stop)

    def wrap(self, app, **given) -> AuditMiddleware:
        self.settings(**given)
        wrapped = AuditMiddleware(app)
        self.addCleanup(lambda: wrapped._source and wrapped._source.stop())
        return wrapped

    def record(self, wrapped) -> dict:
        """Ends the source, and returns its only record."""
        wrapped._source.stop()
        (found,) = records(self.dir)
        return found


class Request:
    """A request as a server hands it to an application."""

    def __init__(self, body=b"{}", headers=(), path="/v1/chat/completions", method="POST", gone_after=None):
        """gone_after: the client is gone once so many messages were sent to it."""
        parts = body if isinstance(body, list) else [body if isinstance(body, bytes) else json.dumps(body).encode()]
        self.parts = [{"type": "http.request", "body": p, "more_body": i + 1 < len(parts)} for i, p in enumerate(parts)]
        self.scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        self.gone_after = gone_after
        self.sent = []

    async def receive(self):
        if self.parts:
            return self.parts.pop(0)
        while self.gone_after is None or len(self.sent) < self.gone_after:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    async def through(self, app):
        await app(self.scope, self.receive, self.send)
        return self


def answering(body=b"{}", status=200, content_type="application/json"):
    """An application that reads the request and answers with a body, or with its parts one after the other."""
    parts = body if isinstance(body, list) else [body if isinstance(body, bytes) else json.dumps(body).encode()]

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", content_type.encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts[:-1]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": parts[-1]})

    return app


def sse(*events) -> bytes:
    """A stream of server-sent events."""
    return b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events)
