"""An ASGI application that passes requests on to a model server, and its responses back as they come.

The model server gets its own name as Host, the client's address at the end of X-Forwarded-For, and otherwise what the client sent, without the
fields that are about one connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import unquote_to_bytes

from . import wire
from .http1 import Message
from .upstream import Connection, Upstream, UpstreamError

_log = logging.getLogger(__name__)


class Proxy:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} cannot be passed on")
        if is_ambiguous(scope["raw_path"]):
            await _answer(send, 400, "the path could be read in more than one way")
            return
        try:
            connection = await self._upstream.connect()
        except UpstreamError as e:
            _log.warning("%s", e)
            while (await receive()).get("more_body"):  # what was asked is to be recorded all the same
                pass
            await _answer(send, 502, "the model server cannot be reached")
            return
        try:
            await _exchange(connection, self._upstream.authority, scope, receive, send)
        except BaseException:
            connection.close()
            raise
        await self._upstream.release(connection)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._upstream.close()
        await send({"type": "lifespan.shutdown.complete"})


def is_ambiguous(path: bytes) -> bool:
    """Whether a server could take the path for another, under which a request would be recorded."""
    plain = unquote_to_bytes(path)
    segments = plain.split(b"/")[1:]
    return b"" in segments[:-1] or b"." in segments or b".." in segments or b"\\" in plain or b"\0" in plain


async def _exchange(connection: Connection, authority: bytes, scope: Message, receive: Any, send: Any) -> None:
    """Passes on one request and its response. It ends early, with the connection unfit for more, when the client is gone."""
    method = scope["method"].encode()
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    length = wire.body_length(scope["headers"], b"1.1")
    connection.send_head(method, target, _request_fields(scope, authority), length)
    until_gone = asyncio.ensure_future(_pass_request(connection, receive, length is not None))
    response = asyncio.ensure_future(_pass_response(connection, method, send))
    try:
        await asyncio.wait({until_gone, response}, return_when=asyncio.FIRST_COMPLETED)
        if response.done():
            response.result()
        else:
            until_gone.result()
    finally:
        for task in (until_gone, response):
            task.cancel()
        await asyncio.wait({until_gone, response})


async def _pass_request(connection: Connection, receive: Any, has_body: bool) -> None:
    """Passes on the request's body, and then waits until the client is gone."""
    if not has_body:
        await connection.send(b"", last=True)
    taken = True
    while (message := await receive())["type"] != "http.disconnect":
        if not has_body or not taken:
            continue
        try:
            await connection.send(message.get("body", b""), last=not message.get("more_body", False))
        except ConnectionError:
            taken = False  # it may have answered before it had all


async def _pass_response(connection: Connection, method: bytes, send: Any) -> None:
    try:
        response = await connection.response(method)
    except UpstreamError as e:
        _log.warning("%s", e)
        connection.close()
        await _answer(send, 502, "the model server gave no response")
        return
    await send({"type": "http.response.start", "status": response.status, "headers": wire.end_to_end(response.fields)})
    while data := await response.read():
        await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _request_fields(scope: Message, authority: bytes) -> wire.Fields:
    drop = (b"host", b"expect", b"content-length", b"x-forwarded-for")
    fields = wire.end_to_end([(bytes(n), bytes(v)) for n, v in scope["headers"]])
    forwarded = wire.get(fields, b"x-forwarded-for")
    if scope.get("client"):
        forwarded.append(scope["client"][0].encode())
    fields = [(b"host", authority), *(f for f in fields if f[0] not in drop)]
    return [*fields, (b"x-forwarded-for", b", ".join(forwarded))] if forwarded else fields


async def _answer(send: Any, status: int, message: str) -> None:
    body = wire.error_body(status, message)
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
