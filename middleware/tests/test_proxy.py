import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import unittest
from typing import Any, Awaitable, Callable, Optional
from unittest import mock

from sockets import GET, POST, WAIT, Case, Client, echo, part, start

from auditchain_asgi import http1, proxy, upstream, wire

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ProxyCase(Case):
    async def model_server(self, handler: Handler, tls: Optional[ssl.SSLContext] = None) -> str:
        """Starts a server that does as the handler does with each connection. Returns its URL."""
        tasks = set()
        self.connections = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            tasks.add(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, wire.Cut, asyncio.CancelledError):
                await handler(reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)

        async def close() -> None:
            server.close()
            for task in tasks:
                task.cancel()

        self.addAsyncCleanup(close)
        return f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def proxied(self, url: str, wrap: Any = lambda app: app) -> Client:
        await self.serve(wrap(proxy.Proxy(upstream.Upstream(url))))
        return await self.client()

    async def app_behind(self, app: Any) -> Client:
        """A client of the proxy in front of an application."""
        server = http1.Server(app)
        await server.start("127.0.0.1", 0)
        self.addAsyncCleanup(server.stop, 0)
        return await self.proxied("http://%s:%d" % server.address)


def answering(response: bytes, then: str = "keep") -> Handler:
    """A model server that answers every request without a body with these bytes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await wire.read_head(reader)
            writer.write(response)
            await writer.drain()
            if then == "close":
                return
            if then == "reset":
                await asyncio.sleep(0.05)  # so that what was sent is read before the reset takes it away
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return

    return handler


class PassingTest(ProxyCase):
    async def test_requests_and_responses(self) -> None:
        client = await self.app_behind(echo)
        body = bytes(range(256)) * 4000
        for request, want in {
            GET: b"GET /a? ",
            b"DELETE /a%2Fb?c=%64 HTTP/1.1\r\nHost: h\r\n\r\n": b"DELETE /a/b?c=%64 ",
            b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body): b"POST /a? " + body,
            b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + wire.chunk(body, True): b"POST /a? " + body,
            b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n": b"POST /a? ",
            b"POST /a HTTP/1.1\r\nHost: h\r\n\r\n": b"POST /a? ",
        }.items():
            client.write(request)
            self.assertEqual((await client.response())[::2], (200, want), request[:50])

    async def test_fields(self) -> None:
        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                text = json.dumps([[n.decode(), v.decode()] for n, v in scope["headers"]]).encode()
                await send(start(201, (b"x-one", b"1"), (b"x-one", b"2"), (b"set-cookie", b"a=b"), (b"date", b"d")))
                await send(part(text))

        client = await self.app_behind(app)
        client.write(
            b"POST / HTTP/1.1\r\nHost: client.example\r\nAuthorization: Bearer k\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nTE: trailers\r\n"
            b"X-Keep: a\r\nX-Keep: b\r\nX-Forwarded-For: 10.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
        )
        self.assertEqual((await client.response())[0], 100)
        start_line, fields = await wire.read_head(client.reader)
        self.assertEqual(start_line, b"HTTP/1.1 201 Created")
        self.assertEqual(
            fields, [(b"x-one", b"1"), (b"x-one", b"2"), (b"set-cookie", b"a=b"), (b"date", b"d"), (b"transfer-encoding", b"chunked")]
        )
        got = json.loads(await wire.Body(client.reader, wire.CHUNKED).read())
        self.assertRegex(got.pop(0)[1], r"^127\.0\.0\.1:\d+$")
        self.assertEqual(
            got,
            [["authorization", "Bearer k"], ["x-keep", "a"], ["x-keep", "b"], ["x-forwarded-for", "10.0.0.1, 127.0.0.1"], ["content-length", "1"]],
        )

    async def test_paths_of_two_readings_are_refused(self) -> None:
        client = await self.app_behind(echo)
        for path in (b"//v1/chat", b"/v1//chat", b"/v1/./chat", b"/v1/../chat", b"/v1/%2e%2E/chat", b"/v1/..", b"/v1/chat/.", b"/v1\\chat", b"/v1%5Cchat", b"/a%00", b"/v1/%2f/a"):
            client.write(b"POST " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertEqual((await client.response())[0], 400, path)
        for path in (b"/", b"/v1/", b"/v1/...", b"/a.b", b"/a%2Fb", b"/.a", b"/?a=//"):
            client.write(b"POST " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertEqual((await client.response())[0], 200, path)

    async def test_responses_as_model_servers_frame_them(self) -> None:
        for response, then, want in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none", "keep", (200, b"one")),
            (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n", "keep", (200, b"one")),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none", "keep", (200, b"one")),
            (b"HTTP/1.1 204 No Content\r\n\r\n", "keep", (204, b"")),
            (b"HTTP/1.0 200 OK\r\n\r\none", "close", (200, b"one")),
            (b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\none", "close", (500, b"one")),
            (b"HTTP/1.1 599 Whatever\r\nContent-Length: 0\r\n\r\n", "keep", (599, b"")),
        ):
            with self.subTest(response[:60]):
                client = await self.proxied(await self.model_server(answering(response, then)))
                for _ in range(2):
                    client.write(GET)
                    self.assertEqual((await client.response())[::2], want)
                self.assertEqual(self.connections, 1 if then == "keep" else 2)

    async def test_head(self) -> None:
        client = await self.proxied(await self.model_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")))
        for _ in range(2):
            client.write(GET.replace(b"GET", b"HEAD"))
            status, fields, _ = await client.response(head=True)
            self.assertEqual((status, fields[b"content-length"]), (200, b"3"))
        self.assertEqual(self.connections, 1)

    async def test_every_split_of_a_response(self) -> None:
        response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\none\r\n3\r\ntwo\r\n0\r\nT: v\r\n\r\n"
        cut = 1

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await wire.read_head(reader)
                writer.write(response[:cut])
                await asyncio.sleep(0.001)
                writer.write(response[cut:])

        client = await self.proxied(await self.model_server(handler))
        for cut in range(1, len(response)):
            client.write(GET)
            self.assertEqual((await client.response())[::2], (200, b"onetwo"), cut)
        self.assertEqual(self.connections, 1)

    async def test_each_part_arrives_before_the_next_is_made(self) -> None:
        go_on = asyncio.Semaphore(0)

        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send(start(200, (b"content-type", b"text/event-stream")))
                for i in range(50):
                    await go_on.acquire()
                    await send(part(b"data: %d\n\n" % i, True))
                await send(part(b""))

        client = await self.app_behind(app)
        client.write(GET)
        _, fields = await asyncio.wait_for(wire.read_head(client.reader), WAIT)  # before the first part
        self.assertIn((b"content-type", b"text/event-stream"), fields)
        body = wire.Body(client.reader, wire.CHUNKED)
        for i in range(50):
            go_on.release()
            self.assertEqual(await asyncio.wait_for(body.read(), WAIT), b"data: %d\n\n" % i)
        self.assertEqual(await asyncio.wait_for(body.read(), WAIT), b"")

    async def test_a_request_is_passed_on_while_it_comes(self) -> None:
        got: asyncio.Queue[bytes] = asyncio.Queue()

        async def app(scope: dict, receive: Any, send: Any) -> None:
            while scope["type"] == "http" and (message := await receive()).get("more_body"):
                got.put_nowait(message["body"])
            await echo(scope, receive, send)

        client = await self.app_behind(app)
        client.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(5):
            client.write(b"1\r\n%d\r\n" % i)
            self.assertEqual(await asyncio.wait_for(got.get(), WAIT), b"%d" % i)

    async def test_two_hundred_streams_at_once(self) -> None:
        async def app(scope: dict, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                body = (await receive())["body"]
                await send(start())
                for i in range(20):
                    await send(part(b"%b:%d\n" % (body, i), True))
                    await asyncio.sleep(0)
                await send(part(b""))

        await self.app_behind(app)

        async def one(number: int) -> None:
            client = await self.client()
            for turn in range(3):
                body = b"%d/%d" % (number, turn)
                client.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                got = await client.response()
                self.assertEqual(got[2], b"".join(b"%b:%d\n" % (body, i) for i in range(20)))

        await asyncio.gather(*(one(i) for i in range(200)))

    @unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
    async def test_tls(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = f"{directory}/c.pem", f"{directory}/k.pem"
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate,
                 "-days", "1", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
                check=True, capture_output=True,
            )
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            url = await self.model_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"), context)
            with self.assertLogs("auditchain_asgi.proxy", "WARNING") as logs:
                client = await self.proxied(url)  # whose certificate nobody trusts
                client.write(GET)
                self.assertEqual((await client.response())[0], 502)
            self.assertIn("certificate verify failed", logs.output[0])
            with mock.patch.dict("os.environ", SSL_CERT_FILE=certificate):
                client = await self.proxied(url)
            for _ in range(2):
                client.write(GET)
                self.assertEqual((await client.response())[::2], (200, b"one"))


class FailuresTest(ProxyCase):
    async def test_a_model_server_that_is_not_there(self) -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        await server.wait_closed()
        read = []

        def wrap(app: Any) -> Any:
            async def wrapped(scope: dict, receive: Any, send: Any) -> None:
                async def reading() -> dict:
                    read.append((message := await receive()).get("body"))
                    return message

                await app(scope, reading if scope["type"] == "http" else receive, send)

            return wrapped

        client = await self.proxied(url, wrap)
        for _ in range(2):  # and the client's connection goes on
            client.write(POST)
            with self.assertLogs("auditchain_asgi.proxy", "WARNING"):
                status, fields, body = await client.response()
            self.assertEqual((status, fields[b"content-type"]), (502, b"application/json"))
            want = {"message": "the model server cannot be reached", "type": "BadGatewayError", "param": None, "code": 502}
            self.assertEqual(json.loads(body), {"error": want})
        self.assertEqual(read, [b"body", b"body"])

    async def test_no_response(self) -> None:
        for response in (
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        ):
            for then in ("close", "reset"):
                with self.subTest(response[:50], then=then), self.assertLogs("auditchain_asgi.proxy", "WARNING"):
                    client = await self.proxied(await self.model_server(answering(response, then)))
                    client.write(GET)
                    self.assertEqual((await client.response())[0], 502)

    async def test_a_response_that_breaks_off_is_not_ended(self) -> None:
        for response, then in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\non", "close"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n", "close"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\non", "reset"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nx\r\n", "keep"),
            (b"HTTP/1.0 200 OK\r\n\r\non", "reset"),
        ):
            for version in (b"1.1", b"1.0"):
                with self.subTest(response[:60], version=version), self.assertLogs("auditchain_asgi.http1", "WARNING"):
                    client = await self.proxied(await self.model_server(answering(response, then)))
                    client.write(GET.replace(b"1.1", version))
                    with self.assertRaises(ConnectionError):  # wire.Cut, or a reset
                        await client.response()

    async def test_the_application_around_it_hears_of_it(self) -> None:
        raised = []

        def wrap(app: Any) -> Any:
            async def wrapped(scope: dict, receive: Any, send: Any) -> None:
                try:
                    await app(scope, receive, send)
                except ConnectionError as e:
                    raised.append(e)
                    raise

            return wrapped

        with self.assertLogs("auditchain_asgi.http1", "WARNING"):
            client = await self.proxied(await self.model_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\non", "close")), wrap)
            client.write(GET)
            with self.assertRaises(wire.Cut):
                await client.response()
        self.assertIsInstance(raised[0], upstream.UpstreamError)

    async def test_the_model_stops_when_the_client_leaves(self) -> None:
        for when in ("before the response", "within the response", "within the request"):
            heard: asyncio.Queue[str] = asyncio.Queue()

            async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await wire.read_head(reader)
                if when == "within the response":
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
                heard.put_nowait("request")
                with contextlib.suppress(ConnectionError):
                    while await reader.read(100):
                        pass
                heard.put_nowait("gone")

            with self.subTest(when):
                client = await self.proxied(await self.model_server(handler))
                client.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\nx" % (2 if when == "within the request" else 1))
                self.assertEqual(await asyncio.wait_for(heard.get(), WAIT), "request")
                if when == "within the response":
                    await wire.read_head(client.reader)
                client.close()
                self.assertEqual(await asyncio.wait_for(heard.get(), WAIT), "gone")

    async def test_an_answer_before_the_request_was_read(self) -> None:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await wire.read_head(reader)
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            await asyncio.sleep(0.1)

        client = await self.proxied(await self.model_server(handler))
        client.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 1_000_000)
        self.assertEqual((await client.response())[::2], (413, b"big"))

    async def test_a_slow_client_slows_the_model_server(self) -> None:
        sent = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await wire.read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
            for _ in range(500):
                writer.write(b"x" * 100_000)
                await writer.drain()
                sent += 1

        client = await self.proxied(await self.model_server(handler))
        client.write(GET)
        last = -1
        while last != sent:  # it stands still
            last = sent
            await asyncio.sleep(0.1)
        self.assertLess(sent, 300)
        self.assertEqual(len((await client.response())[2]), 50_000_000)


class FairnessTest(ProxyCase):
    async def test_many_interim_responses(self) -> None:
        reader, turns = asyncio.StreamReader(), self.turns()
        reader.feed_data(b"HTTP/1.1 103 E\r\n\r\n" * 1000 + b"HTTP/1.1 204 No Content\r\n\r\n")
        response = await upstream.Connection(reader, mock.Mock()).response(b"GET")
        self.assertEqual(response.status, 204)
        self.assertGreater(turns.count, 900)


class PoolTest(ProxyCase):
    OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    async def test_what_comes_unasked_is_no_response_to_the_next(self) -> None:
        client = await self.proxied(await self.model_server(answering(self.OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")))
        for _ in range(3):
            client.write(GET)
            self.assertEqual((await client.response())[2], b"ok")
        self.assertEqual(self.connections, 3)

    async def test_what_comes_unasked_is_seen_at_once(self) -> None:
        server = upstream.Upstream(await self.model_server(answering(self.OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")))
        self.addCleanup(server.close)
        first = await server.connect()
        first.send_head(b"GET", b"/", [(b"host", b"h")], None)
        await first.send(b"", last=True)
        response = await first.response(b"GET")
        self.assertEqual(await response.read(), b"ok")
        await server.release(first)
        second = await server.connect()
        self.addCleanup(second.close)
        self.assertIsNot(first, second)

    async def test_a_connection_that_was_closed_is_not_used(self) -> None:
        closed = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await wire.read_head(reader)
            writer.write(self.OK)
            await writer.drain()
            writer.close()
            closed.set()

        client = await self.proxied(await self.model_server(handler))
        for _ in range(5):
            client.write(GET)
            self.assertEqual((await client.response())[::2], (200, b"ok"))
            await closed.wait()
            closed.clear()
            await asyncio.sleep(0.01)  # that it is closed has to be heard of, as everything over a network

    async def test_expiry(self) -> None:
        with mock.patch.object(upstream, "IDLE_TIMEOUT", 0.05):
            over = asyncio.Event()

            async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await wire.read_head(reader)
                writer.write(self.OK)
                with contextlib.suppress(ConnectionError):
                    await reader.read(1)
                over.set()

            client = await self.proxied(await self.model_server(handler))
            client.write(GET)
            self.assertEqual((await client.response())[0], 200)
            await asyncio.wait_for(over.wait(), WAIT)

    async def test_number_that_is_kept(self) -> None:
        with mock.patch.object(upstream, "MAX_IDLE", 2):
            server = await self.model_server(answering(self.OK))
            await self.proxied(server)
            clients = [await self.client() for _ in range(5)]
            for _ in range(2):
                for client in clients:
                    client.write(GET)
                for client in clients:
                    self.assertEqual((await client.response())[2], b"ok")
            self.assertLessEqual(self.connections, 8)
            await self.server.stop(0)


class UpstreamTest(unittest.TestCase):
    def test_urls(self) -> None:
        for url in ("127.0.0.1:8000", "ftp://h", "http://", "http://h/v1", "http://u:p@h", "http://h?q", "http://h:x", "http://h:99999", "unix:/x"):
            with self.subTest(url), self.assertRaises(ValueError):
                upstream.Upstream(url)
        for url, authority in {"http://h": b"h", "https://h:1/": b"h:1", "http://[::1]:8000": b"[::1]:8000"}.items():
            self.assertEqual(upstream.Upstream(url).authority, authority)


if __name__ == "__main__":
    unittest.main()
