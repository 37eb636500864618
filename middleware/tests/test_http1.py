import asyncio
import contextlib
import signal
import socket
import sys
import unittest
from typing import Any
from unittest import mock

from sockets import CHUNKED, GET, POST, WAIT, Case, Client, echo, part, start

from auditchain_asgi import http1, wire


class RequestsTest(Case):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        await self.serve(echo)

    async def test_one_after_the_other(self) -> None:
        client = await self.client()
        client.write(GET + POST + CHUNKED + GET)  # all at once
        for want in (b"GET /a? ", b"POST /a?b=c body", b"POST /a? body", b"GET /a? "):
            self.assertEqual((await client.response())[::2], (200, want))

    async def test_every_split(self) -> None:
        requests = POST + CHUNKED + GET
        for i in range(1, len(requests)):
            client = await self.client()
            client.write(requests[:i])
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # so that the server, in this loop, has read it
            client.write(requests[i:])
            answers = [(await client.response())[2] for _ in range(3)]
            self.assertEqual(answers, [b"POST /a?b=c body", b"POST /a? body", b"GET /a? "], i)
            client.close()

    async def test_byte_by_byte(self) -> None:
        client = await self.client()
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CHUNKED:
            client.write(bytes([byte]))
            await asyncio.sleep(0)
        self.assertEqual((await client.response())[2], b"POST /a? body")

    async def test_accepted(self) -> None:
        for request, want in {
            b"\r\n" + GET: b"GET /a? ",
            b"GET http://other:80/x?y HTTP/1.1\r\nHost: h\r\n\r\n": b"GET /x?y ",
            b"GET http://other HTTP/1.1\r\nHost: h\r\n\r\n": b"GET /? ",
            b"GET /%61%2Fb?%61 HTTP/1.1\r\nHost:h\r\n\r\n": b"GET /a/b?%61 ",
            b"GET / HTTP/1.0\r\n\r\n": b"GET /? ",
            b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx": b"POST /? x",
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n": b"POST /? ",
            b"POST / HTTP/1.1\r\nHost: h\r\n\r\n": b"POST /? ",
            b"POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: CHUNKED\r\n\r\n00A\r\n0123456789\r\n00\r\n\r\n": b"POST /? 0123456789",
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n": b"GET /? ",
            b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 60_000 + b"\r\n\r\n": b"GET /? ",
        }.items():
            with self.subTest(request[:60]):
                client = await self.client()
                client.write(request)
                self.assertEqual((await client.response())[::2], (200, want))

    async def test_refused(self) -> None:
        post = b"POST / HTTP/1.1\r\nHost: h\r\n"
        chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
        for request, want in {
            # What has made one server see two requests where another saw one.
            post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
            post + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n": 400,
            post + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n": 400,
            post + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\n": 400,
            post + b"Content-Length: 4, 4\r\n\r\n": 400,
            post + b"Content-Length: +4\r\n\r\n": 400,
            post + b"Content-Length: -4\r\n\r\n": 400,
            post + b"Content-Length: 0x4\r\n\r\n": 400,
            post + b"Content-Length: 4 4\r\n\r\n": 400,
            post + b"Content-Length: \xd9\xa4\r\n\r\n": 400,
            post + b"Content-Length: 1_0\r\n\r\n": 400,
            post + b"Content-Length: 9999999999999999999\r\n\r\n": 400,
            post + b"Content-Length:\r\n\r\n": 400,
            post + b"Content-Length : 4\r\n\r\n": 400,
            post + b" Content-Length: 4\r\n\r\n": 400,
            post + b"X: a\r\n Content-Length: 4\r\n\r\n": 400,
            post + b"X: a\nContent-Length: 4\r\n\r\n": 400,
            post + b"X: a\rContent-Length: 4\r\n\r\n": 400,
            post + b"X: a\0b\r\n\r\n": 400,
            post + b"X\0: a\r\n\r\n": 400,
            post + b": a\r\n\r\n": 400,
            post + b"X\r\n\r\n": 400,
            post + b"Transfer-Encoding: chunked, identity\r\n\r\n": 501,
            post + b"Transfer-Encoding: identity, chunked\r\n\r\n": 501,
            post + b"Transfer-Encoding: xchunked\r\n\r\n": 501,
            post + b"Transfer-Encoding: \x0bchunked\r\n\r\n": 400,
            post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": 501,
            post + b"Transfer-Encoding:\r\n\r\n": 501,
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
            chunked + b"0x1\r\nx\r\n0\r\n\r\n": 400,
            chunked + b"+1\r\nx\r\n0\r\n\r\n": 400,
            chunked + b" 1\r\nx\r\n0\r\n\r\n": 400,
            chunked + b"-1\r\nx\r\n0\r\n\r\n": 400,
            chunked + b"\r\nx\r\n0\r\n\r\n": 400,
            chunked + b"1\nx\r\n0\r\n\r\n": 400,
            chunked + b"1;a\nb\r\nx\r\n0\r\n\r\n": 400,
            chunked + b"1\r\nxy\r\n0\r\n\r\n": 400,
            chunked + b"1\r\nx0\r\n\r\n": 400,
            chunked + b"1000000000000000\r\nx": 400,
            chunked + b"1;" + b"x" * 300 + b"\r\nx\r\n0\r\n\r\n": 400,
            chunked + b"1" * 70_000: 400,
            chunked + b"0\r\nX: a\r\n b\r\n\r\n": 400,
            chunked + b"0\r\n" + b"X: a\r\n" * 201 + b"\r\n": 431,
            # Start lines.
            b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n": 400,
            b" GET / HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"GET /\r\nHost: h\r\n\r\n": 400,
            b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"GET a HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n": 400,
            b"G" * 33 + b" / HTTP/1.1\r\nHost: h\r\n\r\n": 400,
            b"GET / HTTP/1.2\r\nHost: h\r\n\r\n": 505,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\n\r\n": 400,
            b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n": 400,
            # Limits, and what is not implemented.
            b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n": 431,
            b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n": 431,
            b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: x\r\n" * 200 + b"\r\n": 431,
            b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n": 417,
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n": 501,
        }.items():
            with self.subTest(request[:90]):
                client = await self.client()
                client.write(request + GET)  # which is not to be taken for a request any more
                status, fields, body = await client.response()
                self.assertEqual(status, want, body)
                self.assertEqual(fields[b"connection"], b"close")
                self.assertEqual(await client.until_closed(), b"")

    async def test_a_request_without_end_is_not_answered(self) -> None:
        for i in range(len(POST)):
            client = await self.client()
            client.write(POST[:i])
            client.writer.write_eof()
            self.assertEqual(await client.until_closed(), b"", i)

    async def test_slow_heads(self) -> None:
        with mock.patch.object(http1, "HEAD_TIMEOUT", 0.05):
            client = await self.client()
            client.write(b"GET / HT")
            self.assertEqual((await client.response())[0], 408)
            self.assertEqual(await client.until_closed(), b"")

    async def test_slow_bodies(self) -> None:
        with mock.patch.object(http1, "BODY_TIMEOUT", 0.05):
            client = await self.client()
            client.write(POST[:-1])
            self.assertEqual((await client.response())[0], 408)

    async def test_idle_connections_are_closed(self) -> None:
        with mock.patch.object(http1, "IDLE_TIMEOUT", 0.05):
            client = await self.client()
            client.write(GET)
            self.assertEqual((await client.response())[0], 200)
            self.assertEqual(await client.until_closed(), b"")

    async def test_keep_alive(self) -> None:
        for request, want in {
            GET: None,
            GET.replace(b"Host", b"Connection: close\r\nHost"): b"close",
            GET.replace(b"Host", b"Connection: x, Close\r\nHost"): b"close",
            b"GET / HTTP/1.0\r\n\r\n": b"close",
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n": b"close",
        }.items():
            client = await self.client()
            client.write(request)
            _, fields, _ = await client.response()
            self.assertEqual(fields.get(b"connection"), want)
            client.write(GET)
            if want is None:
                self.assertEqual((await client.response())[0], 200)
            else:
                self.assertEqual(await client.until_closed(), b"")

    async def test_number_of_connections(self) -> None:
        with mock.patch.object(http1, "MAX_CONNECTIONS", 1):
            first, second = await self.client(), await self.client()
            second.write(GET)
            self.assertEqual(await second.until_closed(), b"")
            first.write(GET)
            self.assertEqual((await first.response())[0], 200)

    async def test_two_hundred_at_once(self) -> None:
        async def one(i: int) -> None:
            client = await self.client()
            for j in range(10):
                body = b"%d/%d" % (i, j)
                client.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                self.assertEqual((await client.response())[2], b"POST /? " + body)

        await asyncio.gather(*(one(i) for i in range(200)))


class FairnessTest(Case):
    """What has arrived already is not read in one go, while others wait."""

    async def test_small_chunks(self) -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
        body, size, turns = wire.Body(reader, wire.CHUNKED), 0, self.turns()
        while not body.complete:
            size += len(await body.read())
        self.assertEqual(size, 10_000)
        self.assertGreater(turns.count, 1000)

    async def test_pipelined(self) -> None:
        turns, seen = self.turns(), []

        async def app(scope: dict, receive: Any, send: Any) -> None:
            seen.append(turns.count)
            await send(start(204))
            await send(part(b""))

        await self.serve(app)
        seen.clear()  # of the lifespan
        client = await self.client()
        client.write(GET * 500)
        for _ in range(500):
            await client.response()
        self.assertEqual(len(set(seen)), 500)


class ResponsesTest(Case):
    """What an application sends, and what the client gets."""

    async def answer(self, *messages: dict, request: bytes = GET, fail: bool = False) -> Client:
        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                for message in messages:
                    await send(message)
                if fail:
                    raise ConnectionError("the model server is gone")

        await self.serve(app)
        client = await self.client()
        client.write(request)
        return client

    async def test_chunks(self) -> None:
        client = await self.answer(start(), part(b"one", True), part(b"", True), part(b"two"))
        raw = await client.reader.readuntil(b"0\r\n\r\n")
        self.assertEqual(raw, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        client.write(GET)
        self.assertEqual((await client.response())[2], b"onetwo")

    async def test_until_close_for_old_clients(self) -> None:
        client = await self.answer(start(), part(b"one", True), part(b"two"), request=b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(await client.until_closed(), b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo")

    async def test_without_body(self) -> None:
        for status, request, length in ((204, GET, None), (304, GET, b"9"), (200, GET.replace(b"GET", b"HEAD"), b"9")):
            client = await self.answer(start(status, (b"content-length", b"9")), part(b"ignored"[:0]), request=request + request)
            for _ in range(2):
                got, fields, _ = await client.response(head=True)
                self.assertEqual((got, fields.get(b"content-length")), (status, length))

    async def test_fields_of_one_connection_are_the_servers_own(self) -> None:
        client = await self.answer(
            start(200, (b"Connection", b"x-a"), (b"X-A", b"1"), (b"Keep-Alive", b"9"), (b"transfer-encoding", b"gzip"), (b"x-b", b"2")), part(b"")
        )
        _, fields, _ = await client.response()
        self.assertEqual(fields, {b"x-b": b"2", b"transfer-encoding": b"chunked"})

    async def test_failures_before_the_response(self) -> None:
        for messages in (
            [],
            [start(200, (b"x", b"a\r\nb"))],
            [start(200, (b"x y", b"a"))],
            [start(200, (b"content-length", b"x"))],
            [part(b"x")],
            [{"type": "http.response.trailers"}],
        ):
            with self.subTest(messages), self.logs(bool(messages)):
                client = await self.answer(*messages)
                self.assertEqual((await client.response())[0], 500)
                self.assertEqual(await client.until_closed(), b"")

    async def test_a_path_adds_no_line_to_the_log(self) -> None:
        for error in (ConnectionError("cut"), RuntimeError("failed")):

            async def app(scope: dict, receive: Any, send: Any) -> None:
                raise error

            await self.serve(app)
            client = await self.client()
            with self.assertLogs("auditchain_asgi.http1") as logs:
                client.write(b"GET /a%0Aforged%1B[2J HTTP/1.1\r\nHost: h\r\n\r\n")
                self.assertEqual((await client.response())[0], 500)
            self.assertIn(r"/a\nforged\x1b[2J", logs.records[0].getMessage())

    async def test_failures_within_the_response_cut_it(self) -> None:
        length = (b"content-length", b"3")
        for messages, fail, said in (
            ([start()], False, False),
            ([start(), part(b"one", True)], False, False),
            ([start(), part(b"one", True)], True, True),
            ([start(), start()], False, True),
            ([start(200, length), part(b"on", True)], True, True),
            ([start(200, length), part(b"on")], False, True),
            ([start(200, length), part(b"ones")], False, True),
        ):
            with self.subTest(messages), self.logs(said):
                client = await self.answer(*messages, fail=fail)
                with self.assertRaises(wire.Cut):
                    await client.response()

    async def test_a_cut_response_of_an_old_client_ends_in_a_reset(self) -> None:
        with self.logs(True):
            client = await self.answer(start(), part(b"one", True), fail=True, request=b"GET / HTTP/1.0\r\n\r\n")
            with self.assertRaises(ConnectionResetError):
                while await asyncio.wait_for(client.reader.read(100), WAIT):
                    pass

    def logs(self, some: bool) -> Any:
        return self.assertLogs("auditchain_asgi.http1") if some else contextlib.nullcontext()

    async def test_an_answer_before_the_request_was_read(self) -> None:
        client = await self.answer(
            start(413, (b"content-length", b"3")), part(b"big"), request=b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n"
        )
        for _ in range(3):
            client.write(b"x" * 1_000_000)
        status, fields, body = await client.response()
        self.assertEqual((status, fields[b"connection"], body), (413, b"close", b"big"))
        self.assertEqual(await client.until_closed(), b"")


class LifeTest(Case):
    async def test_continue_is_said_when_the_body_is_wanted(self) -> None:
        wanted = asyncio.Event()

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await wanted.wait()
                await echo(scope, receive, send)

        await self.serve(app)
        client = await self.client()
        client.write(POST[:-4].replace(b"Host", b"Expect: 100-Continue\r\nHost"))
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.05)
        wanted.set()
        self.assertEqual((await client.response())[0], 100)
        client.write(b"body")
        self.assertEqual((await client.response())[2], b"POST /a?b=c body")

    async def test_no_continue_before_a_refusal(self) -> None:
        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send(start(401, (b"content-length", b"0")))
                await send(part(b""))

        await self.serve(app)
        client = await self.client()
        client.write(POST[:-4].replace(b"Host", b"Expect: 100-continue\r\nHost"))
        self.assertEqual((await client.response())[0], 401)
        self.assertEqual(await client.until_closed(), b"")

    async def test_each_part_arrives_before_the_next_is_made(self) -> None:
        go_on = asyncio.Semaphore(0)

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send(start())
                for i in range(50):
                    await go_on.acquire()
                    await send(part(b"data: %d\n\n" % i, True))
                await go_on.acquire()
                await send(part(b""))

        await self.serve(app)
        client = await self.client()
        client.write(GET)
        _, fields = await asyncio.wait_for(wire.read_head(client.reader), WAIT)
        body = wire.Body(client.reader, wire.CHUNKED)
        for i in range(50):
            go_on.release()
            self.assertEqual(await asyncio.wait_for(body.read(), WAIT), b"data: %d\n\n" % i)
        go_on.release()
        self.assertEqual(await asyncio.wait_for(body.read(), WAIT), b"")

    async def test_the_application_hears_that_the_client_left(self) -> None:
        for how in ("close", "reset", "half-close"):
            begun, heard = asyncio.Event(), asyncio.Event()

            async def app(scope: dict, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    self.assertEqual((await receive())["type"], "http.request")
                    await send(start())
                    begun.set()
                    self.assertEqual((await receive())["type"], "http.disconnect")
                    await send(part(b"nobody takes this"))
                    heard.set()

            with self.subTest(how):
                server = await self.serve(app)
                client = await self.client(server)
                client.write(GET + (b"GET / HTTP/1.1\r\n" if how == "close" else b""))  # what comes behind it is not in the way
                await asyncio.wait_for(begun.wait(), WAIT)
                if how == "half-close":
                    client.writer.write_eof()
                elif how == "reset":
                    client.writer.transport.abort()
                else:
                    client.close()
                await asyncio.wait_for(heard.wait(), WAIT)

    async def test_a_client_that_left_within_its_body(self) -> None:
        heard = asyncio.Queue()

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                heard.put_nowait("begun")
                while (message := await receive())["type"] == "http.request":
                    pass
                heard.put_nowait(message["type"])

        await self.serve(app)
        client = await self.client()
        client.write(POST[:-1])
        self.assertEqual(await asyncio.wait_for(heard.get(), WAIT), "begun")
        client.close()
        self.assertEqual(await asyncio.wait_for(heard.get(), WAIT), "http.disconnect")

    async def test_disconnect_after_the_response(self) -> None:
        heard = asyncio.Queue()

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await echo(scope, receive, send)
                heard.put_nowait((await receive())["type"])

        await self.serve(app)
        client = await self.client()
        for _ in range(2):
            client.write(POST)
            self.assertEqual((await client.response())[0], 200)
            self.assertEqual(await asyncio.wait_for(heard.get(), WAIT), "http.disconnect")

    async def test_a_slow_client_slows_the_application(self) -> None:
        sent = 0

        async def app(scope: dict, receive: Any, send: Any) -> None:
            nonlocal sent
            if scope["type"] == "http":
                await send(start())
                for _ in range(300):
                    await send(part(b"x" * 100_000, True))
                    sent += 1
                await send(part(b""))

        await self.serve(app)
        client = await self.client()
        client.write(GET)
        last = -1
        while last != sent:  # it stands still
            last = sent
            await asyncio.sleep(0.1)
        self.assertLess(sent, 150)
        self.assertEqual(len((await client.response())[2]), 30_000_000)

    async def test_a_client_that_takes_nothing_is_cut(self) -> None:
        heard = asyncio.Event()

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await receive()
                await send(start())
                for _ in range(100):
                    await send(part(b"x" * 1_000_000, True))
                self.assertEqual((await receive())["type"], "http.disconnect")
                heard.set()

        with mock.patch.object(http1, "WRITE_TIMEOUT", 0.1):
            await self.serve(app)
            client = await self.client()
            client.write(GET)
            await asyncio.wait_for(heard.wait(), WAIT)

    async def test_stop(self) -> None:
        go_on, begun = asyncio.Event(), asyncio.Semaphore(0)
        cancelled = []

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                begun.release()
                try:
                    await (go_on if scope["path"] == "/a" else asyncio.Event()).wait()
                except asyncio.CancelledError:
                    cancelled.append(scope["path"])
                    raise
                await echo(scope, receive, send)

        server = await self.serve(app)
        ends, never, idle = await self.client(), await self.client(), await self.client()
        ends.write(GET)
        never.write(GET.replace(b"/a", b"/never"))
        await begun.acquire()
        await begun.acquire()
        stopping = asyncio.ensure_future(server.stop(0.3))
        self.assertEqual(await idle.until_closed(), b"")
        with self.assertRaises(ConnectionRefusedError):
            await self.client()
        go_on.set()
        status, fields, _ = await ends.response()
        self.assertEqual((status, fields[b"connection"]), (200, b"close"))
        self.assertEqual(await ends.until_closed(), b"")
        self.assertEqual(await never.until_closed(), b"")
        await stopping
        self.assertEqual(cancelled, ["/never"])

    async def test_lifespan(self) -> None:
        told = []

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                for _ in range(2):
                    told.append((await receive())["type"])
                    await send({"type": told[-1] + ".complete"})
            else:
                await echo(scope, receive, send)

        server = await self.serve(app)
        self.assertEqual(told, ["lifespan.startup"])
        client = await self.client()
        client.write(GET)
        self.assertEqual((await client.response())[0], 200)
        await server.stop(0)
        self.assertEqual(told, ["lifespan.startup", "lifespan.shutdown"])

    async def test_an_application_that_cannot_start(self) -> None:
        async def app(scope: dict, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no directory"})

        with self.assertRaisesRegex(RuntimeError, "no directory"):
            await http1.Server(app).start("127.0.0.1", 0)


class SignalTest(unittest.IsolatedAsyncioTestCase):
    PROGRAM = """
import asyncio, sys
from auditchain_asgi import http1

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    print("begun", flush=True)
    await asyncio.sleep(60)

asyncio.run(http1.serve(app, "127.0.0.1", 0, float(sys.argv[1]), lambda s: print(s.address[1], flush=True)))
print("done", flush=True)
"""

    async def test_signals(self) -> None:
        for grace, signals in (("0.1", [signal.SIGTERM]), ("0.1", [signal.SIGINT]), ("60", [signal.SIGTERM, signal.SIGTERM])):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", self.PROGRAM, grace, stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)}
            )

            async def line() -> str:
                return (await asyncio.wait_for(process.stdout.readline(), WAIT)).decode().strip()

            reader, writer = await asyncio.open_connection("127.0.0.1", int(await line()))
            writer.write(GET)
            self.assertEqual(await line(), "begun")
            for number in signals:
                process.send_signal(number)
                if len(signals) > 1:
                    await asyncio.sleep(0.2)  # two that come at once are one to the system
            self.assertEqual(await asyncio.wait_for(reader.read(), WAIT), b"")
            self.assertEqual([await line(), await line()], ["ended", "done"])
            self.assertEqual(await asyncio.wait_for(process.wait(), WAIT), 0)
            writer.close()


if __name__ == "__main__":
    unittest.main()
