import asyncio
import base64
import hashlib
import hmac
import json
import time
import unittest
from unittest import mock

from asgi import CHECKSUM, KEY, Case, Request, answering, records, sse
from auditchain_asgi import bodies, capture, exchange, record

ASK = {"model": "asked", "user": "bob", "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 7, "completion_tokens": 12}
ANSWER = {"id": "cmpl-1", "model": "m", "choices": [{"index": 0, "message": {"content": "Hello"}}], "usage": USAGE}


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def keyed(data: bytes) -> str:
    return "hmac-sha256:" + hmac.new(KEY.encode(), data, "sha256").hexdigest()


def raising(error, status=None, parts=()):
    async def app(scope, receive, send):
        await receive()
        if status:
            await send({"type": "http.response.start", "status": status, "headers": []})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        raise error

    return app


class Records(Case):
    def one(self, app, request=None, **given):
        """The record of a request."""
        wrapped = self.wrap(app, **given)
        asyncio.run((request or Request(ASK)).through(wrapped))
        return self.record(wrapped)

    def test_all_members(self):
        request = Request(ASK, headers=[(b"content-type", b"application/json"), (b"x-request-id", b"mine")])
        found = self.one(answering(ANSWER), request)
        body, answer = json.dumps(ASK).encode(), json.dumps(ANSWER).encode()
        self.assertRegex(found["request_id"], "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        self.assertRegex(found["timestamp"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertGreater(found["latency_ms"], 0)
        self.assertGreaterEqual(found["latency_ms"], found["ttft_ms"])
        self.assertRegex(found["source"]["id"], "^[A-Za-z0-9._-]+/[0-9a-f-]{36}$")
        for name in ("request_id", "timestamp", "latency_ms", "ttft_ms", "source"):
            del found[name]
        self.assertEqual(
            found,
            {
                "model_id": "m",
                "model_checksum": CHECKSUM,
                "input_hash": sha256(body),
                "output_hash": sha256(answer),
                "user_id": "user:" + keyed(b"bob"),
                "input_tokens": 7,
                "output_tokens": 12,
                "status": "200",
                "endpoint": "/v1/chat/completions",
                "method": "POST",
                "operation": "inference",
                "stream": False,
                "http_status": 200,
                "hash_of": {"input": "body", "output": "body"},
                "input_bytes": len(body),
                "output_bytes": len(answer),
                "client_request_id": "mine",
                "response_id": "cmpl-1",
            },
        )

    def test_order(self):
        found = self.one(answering(ANSWER), PAYLOAD="on")
        names = list(found)
        self.assertEqual(
            names[:12],
            "request_id timestamp model_id model_checksum input_hash output_hash user_id input_tokens output_tokens latency_ms status source".split(),
        )
        self.assertEqual(names[-2:], ["prompt", "response"])

    def test_line(self):
        """One line of ASCII, without lone surrogates, whatever comes."""
        ask = {"model": "m\u00e9\n\ud800" + "x" * 1000, "user": "\udfff", "messages": "\u2028"}
        headers = [(b"x-request-id", "\u00e9".encode("latin-1") * 1000)]
        wrapped = self.wrap(answering({"id": "\ud800" + "i" * 1000, "error": {"type": "\udc00"}}), PAYLOAD="on")
        asyncio.run(Request(ask, headers=headers).through(wrapped))
        wrapped._source.stop()
        (path,) = self.dir.glob("*.jsonl")
        data = path.read_bytes()
        self.assertTrue(data.isascii())
        self.assertEqual(data.count(b"\n"), 3)
        self.assertNotIn(b"\\ud", data.replace(b"\\\\ud", b""))
        (found,) = records(self.dir)
        self.assertEqual((len(found["model_id"]), len(found["response_id"]), len(found["client_request_id"])), (256, 256, 256))

    def test_model(self):
        for want, ask, answer, model_id in (
            ("m", ASK, ANSWER, "default"),
            ("asked", ASK, {}, "default"),
            ("default", {}, {}, "default"),
            (None, {}, {}, None),
        ):
            self.dir = self.directory()
            self.assertEqual(self.one(answering(answer), Request(ask), MODEL_ID=model_id)["model_id"], want)

    def test_users(self):
        bearer, other = (b"authorization", b"Bearer key"), (b"x-api-key", b"other")
        unread = b'{"prompt":"' + b"x" * bodies.READ + b'"}'
        for user, key, ask, headers in (
            ("user:" + keyed(b"bob"), b"key", {"user": "bob"}, [bearer]),
            ("user:" + keyed(b"bob"), None, {"user": "bob"}, []),
            ("key:" + keyed(b"key"), b"key", {}, [bearer, other]),
            ("key:" + keyed(b"key"), b"key", {}, [bearer, (b"authorization", b"Bearer second")]),
            ("key:" + keyed(b"key"), b"key", {}, [(b"authorization", b"key")]),
            ("key:" + keyed(b"a b"), b"a b", {}, [(b"authorization", b"Basic a b")]),
            ("key:" + keyed(b"other"), b"other", {}, [(b"authorization", b" "), other]),
            ("key:" + keyed(b"other"), b"other", {}, [(b"authorization", b""), bearer, other]),
            ("key:" + keyed(b"other"), b"other", {}, [(b"authorization", b"Bearer "), other]),
            ("key:" + keyed(b"other"), b"other", {}, [other, (b"x-api-key", b"second"), (b"api-key", b"third")]),
            ("key:" + keyed(b"third"), b"third", {}, [(b"x-api-key", b""), other, (b"api-key", b"third")]),
            ("key:" + keyed(b"key"), b"key", unread, [bearer]),
            (None, None, unread, []),
            ("anonymous", None, {}, [(b"authorization", b"")]),
            ("anonymous", None, {}, []),
        ):
            self.dir = self.directory()
            found = self.one(answering({}), Request(ask, headers))
            self.assertEqual(found["user_id"], user, headers)
            self.assertEqual(found.get("api_key"), key and "key:" + keyed(key), headers)

    def test_repeated_headers(self):
        """The first counts, as it does for the application."""
        form = b'--X\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--X--'
        types = [(b"content-type", b"multipart/form-data; boundary=X"), (b"content-type", b"application/json")]
        ids = [(b"x-request-id", b"first"), (b"x-request-id", b"second")]
        found = self.one(answering({}), Request(form, [*types, *ids]))
        self.assertEqual((found["model_id"], found["client_request_id"]), ("m", "first"))

    def test_hashes(self):
        body, answer = json.dumps(ASK).encode(), json.dumps(ANSWER).encode()
        content = b'{"messages":[{"content":"hi","role":"user"}]}'
        for mode, input_hash, output_hash, of in (
            ("body", sha256(body), sha256(answer), "body"),
            ("content", sha256(content), sha256(b"Hello"), "content"),
            ("hmac-body", keyed(body), keyed(answer), "body"),
            ("hmac-content", keyed(content), keyed(b"Hello"), "content"),
        ):
            self.dir = self.directory()
            found = self.one(answering(ANSWER), HASH=mode)
            self.assertEqual((found["input_hash"], found["output_hash"]), (input_hash, output_hash), mode)
            self.assertEqual(found["hash_of"], {"input": of, "output": of})
        self.dir = self.directory()
        found = self.one(answering(b"no JSON"), HASH="content")
        self.assertEqual((found["output_hash"], found["hash_of"]), (sha256(b"no JSON"), {"input": "content", "output": "body"}))

    def test_stream_content(self):
        """It is read part by part; what is unreadable or too long is hashed as body."""
        stream = sse(*({"choices": [{"index": 0, "delta": {"content": c}}]} for c in "Hello"), b"[DONE]")
        filled = b":" + b" " * (998 - len(stream)) + b"\n" + stream
        for want, parts in (
            (b"Hello", [stream]),
            (b"Hello", [b"", stream[:100], stream[100:130], stream[130:], b""]),
            (b"Hello", [filled[:50], filled[50:]]),
            (None, [filled[:50], filled[50:], b"\n"]),
            (None, [stream * 10]),
            (None, [b"data: {\n\n", stream]),
            (None, [stream, sse({"choices": [1]})]),
        ):
            self.dir = self.directory()
            found = self.one(answering(parts, content_type="text/event-stream"), HASH="content", PAYLOAD="on", PAYLOAD_LIMIT="1000")
            body = b"".join(parts)
            self.assertEqual(found["output_hash"], sha256(body if want is None else want))
            self.assertEqual(found["hash_of"], {"input": "content", "output": "body" if want is None else "content"})
            self.assertEqual(found["response"].encode(), body[:1000] if want is None else want)
            self.assertEqual(found.get("cut"), ["output"] if len(body) > 1000 else None)

    def test_payload(self):
        """What is kept is what was hashed."""
        binary = b'{"messages":"\xff"}'
        for mode, ask, answer, prompt, response in (
            ("body", b'{"messages":"\xc3\xa9"}', b"Hello", '{"messages":"é"}', "Hello"),
            ("content", b'{"messages":"\xc3\xa9","n":1}', b'{"text":"Hello"}', '{"messages":"é"}', "Hello"),
            ("content", binary, b"\xfe", {"base64": base64.b64encode(binary).decode()}, {"base64": "/g=="}),
            ("body", b"", b"", "", ""),
        ):
            self.dir = self.directory()
            found = self.one(answering(answer), Request(ask), HASH=mode, PAYLOAD="on")
            self.assertEqual((found["prompt"], found["response"]), (prompt, response))
            for name, hashed in (("prompt", "input_hash"), ("response", "output_hash")):
                kept = found[name]
                kept = kept.encode() if isinstance(kept, str) else base64.b64decode(kept["base64"])
                self.assertEqual(sha256(kept), found[hashed])
        self.dir = self.directory()
        self.assertNotIn("prompt", self.one(answering({})))

    def test_cut(self):
        text = "é" * 1500
        ask = json.dumps({"messages": text, "model": "m", "user": "u"}, ensure_ascii=False).encode()
        answer = json.dumps({"model": "m", "text": text, "usage": USAGE}, ensure_ascii=False).encode()
        found = self.one(answering(answer), Request([ask[:999], ask[999:]]), HASH="content", PAYLOAD="on", PAYLOAD_LIMIT="1K")
        self.assertEqual(found["cut"], ["input", "output"])
        self.assertEqual(found["hash_of"], {"input": "body", "output": "body"})
        self.assertEqual((found["input_hash"], found["output_hash"]), (sha256(ask), sha256(answer)))
        for name, body in (("prompt", ask), ("response", answer)):
            self.assertIn(len(found[name].encode()), (999, 1000))
            self.assertTrue(body.decode().startswith(found[name]))
        self.assertEqual((found["input_tokens"], found["output_tokens"], found["user_id"]), (7, 12, "user:" + keyed(b"u")))

    def test_line_is_never_too_long(self):
        """A payload of control characters, each of which takes six bytes in JSON."""
        with mock.patch.object(record, "_LINE_MAX", 10_000):
            found = self.one(answering(b"\x01" * 4000), Request(b"\x02" * 4000), PAYLOAD="on", PAYLOAD_LIMIT="5K")
        self.assertEqual(found["cut"], ["input", "output"])
        self.assertEqual((found["input_bytes"], found["output_bytes"]), (4000, 4000))
        self.assertLess(len(found["prompt"]), 1000)

    def test_bounded_memory(self):
        """Of bodies that never end only so much is held."""
        held = []

        async def app(scope, receive, send):
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            for _ in range(300):
                await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
                held.append(sum(len(b.head) + len(b.tail) for b in (seen[0].input, seen[0].output)))
            await send({"type": "http.response.body", "body": b""})

        seen = []
        begin = exchange.Exchange.begin
        with mock.patch.object(exchange.Exchange, "begin", lambda self, *a: seen.append(self) or begin(self, *a)):
            found = self.one(app, Request([b"y" * 10_000] * 300))
        self.assertLessEqual(max(held), bodies.READ + exchange.HEAD + 4 * capture.TAIL)
        self.assertEqual((found["input_bytes"], found["output_bytes"]), (3_000_000, 3_000_000))
        self.assertEqual(found["output_hash"], sha256(b"x" * 3_000_000))

    def test_body_not_read(self):
        """A request that the application did not read to its end."""

        async def app(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body"})

        found = self.one(app, Request([b"a", b"b"]))
        self.assertEqual((found["status"], found["input_bytes"], found["input_hash"]), ("401", 1, sha256(b"a")))
        self.assertEqual((found["input_tokens"], found["output_tokens"]), (0, 0))
        self.assertNotIn("ttft_ms", found)

    def test_refused(self):
        error = {"error": {"message": "secret", "type": "BadRequestError", "code": 400}}
        found = self.one(answering(error, status=400))
        self.assertEqual((found["status"], found["error"], found["input_tokens"], found["output_tokens"]), ("400", "BadRequestError", 0, 0))
        self.assertNotIn("secret", json.dumps(found))
        self.dir = self.directory()
        found = self.one(answering({"object": "error"}, status=503))
        self.assertEqual((found["status"], found["input_tokens"], found["output_tokens"]), ("503", None, None))

    def test_other_requests(self):
        """They are nobody's business."""
        wrapped = self.wrap(answering(b"hello"))
        for request in (Request(path="/health"), Request(method="GET"), Request(path="/v1/models", method="GET")):
            scope = dict(request.scope)
            asyncio.run(request.through(wrapped))
            self.assertEqual(request.sent[1]["body"], b"hello")
            self.assertEqual(request.scope, scope)
        self.assertIsNone(wrapped._source)


class Status(Case):
    def outcome(self, app, request=None, raises=None, **given):
        wrapped = self.wrap(app, **given)

        async def run():
            try:
                await (request or Request(ASK)).through(wrapped)
            except BaseException as error:
                return error

        self.assertIs(asyncio.run(run()), raises)
        return self.record(wrapped)

    def test_exceptions(self):
        for error in (RuntimeError("secret"), asyncio.CancelledError()):
            for status, parts in ((None, ()), (200, ()), (200, (b"a",))):
                self.dir = self.directory()
                found = self.outcome(raising(error, status, parts), raises=error)
                self.assertEqual((found["status"], found["error"], found.get("http_status")), ("500", type(error).__name__, status))
                self.assertNotIn("secret", json.dumps(found))
                self.assertEqual(found["output_hash"], sha256(b"".join(parts)))

    def test_exception_after_the_end(self):
        """The client has its answer: what a background task does is no part of it."""

        async def app(scope, receive, send):
            await answering(ANSWER)(scope, receive, send)
            raise error

        error = RuntimeError()
        found = self.outcome(app, raises=error)
        self.assertEqual((found["status"], found["output_tokens"]), ("200", 12))
        self.assertNotIn("error", found)

    def test_no_answer(self):
        async def app(scope, receive, send):
            await receive()

        found = self.outcome(app)
        self.assertEqual(found["status"], "500")
        self.assertNotIn("http_status", found)

    def test_error_in_a_stream(self):
        stream = sse({"choices": [{"delta": {"content": "x"}}]}, {"error": {"type": "InternalServerError", "message": "secret"}}, b"[DONE]")
        found = self.outcome(answering([stream[:50], stream[50:], b""], content_type="text/event-stream; charset=utf-8"))
        self.assertEqual((found["status"], found["http_status"], found["error"], found["stream"]), ("500", 200, "InternalServerError", True))
        self.assertNotIn("secret", json.dumps(found))

    def test_stream(self):
        stream = sse({"id": "c", "model": "m", "choices": [{"delta": {"content": "x"}}]}, {"choices": [], "usage": USAGE}, b"[DONE]")
        for at in range(0, len(stream), 7):
            self.dir = self.directory()
            found = self.outcome(answering([b"", stream[:at], stream[at:], b""], content_type="text/event-stream"))
            self.assertEqual((found["status"], found["output_tokens"], found["output_hash"]), ("200", 12, sha256(stream)))

    def test_client_gone_before_the_answer(self):
        """It is seen by the application's asking; a body of null is what FastAPI sends then."""

        async def app(scope, receive, send):
            await receive()
            self.assertEqual((await receive())["type"], "http.disconnect")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"null"})

        found = self.outcome(app, Request(ASK, gone_after=0))
        self.assertEqual((found["status"], found["http_status"], found["output_bytes"]), ("client_abort", 200, 4))

    def test_client_gone_in_a_stream(self):
        """So Starlette ends: no last part, no exception."""

        async def app(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            await send({"type": "http.response.body", "body": sse({"usage": USAGE}), "more_body": True})

        found = self.outcome(app)
        self.assertEqual((found["status"], found["output_tokens"]), ("client_abort", 12))

    def test_client_gone_by_exception(self):
        """So servers of ASGI 2.4 say it."""
        error = BrokenPipeError()
        for last in (True, False):
            self.dir = self.directory()
            request = Request(ASK)

            async def send(message):
                if message["type"] == "http.response.body":
                    raise error

            request.send = send
            parts = [b"a"] if last else [b"a", b"b"]
            found = self.outcome(answering(parts), request, raises=error)
            self.assertEqual((found["status"], found["output_bytes"]), ("client_abort", 1))

    def test_client_gone_at_the_start(self):
        error = ConnectionResetError()
        request = Request(ASK)

        async def send(message):
            raise error

        request.send = send
        found = self.outcome(answering(b"a"), request, raises=error)
        self.assertEqual((found["status"], found["output_bytes"]), ("client_abort", 0))
        self.assertNotIn("http_status", found)

    def test_server_fails_at_the_last_part(self):
        """That is no answer, whether or not the application lets the exception through."""

        async def swallowing(scope, receive, send):
            try:
                await answering([b"a", b"b"])(scope, receive, send)
            except RuntimeError:
                pass

        error = RuntimeError("secret")
        for app, raises in ((answering([b"a", b"b"]), error), (swallowing, None)):
            self.dir = self.directory()
            request = Request(ASK)

            async def send(message):
                if message.get("body") == b"b":
                    raise error

            request.send = send
            found = self.outcome(app, request, raises=raises)
            self.assertEqual((found["status"], found["error"], found["http_status"]), ("500", "RuntimeError", 200))

    def test_file(self):
        """The server sends a file: what was in it is not known."""
        for messages in (
            [{"type": "http.response.pathsend", "path": "/etc/hostname"}],
            [{"type": "http.response.zerocopysend", "file": 3}],
            [{"type": "http.response.zerocopysend", "file": 3, "more_body": True}, {"type": "http.response.body", "body": b"{}"}],
        ):

            async def app(scope, receive, send):
                await receive()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for message in messages:
                    await send(message)

            self.dir = self.directory()
            found = self.outcome(app, HASH="content", PAYLOAD="on")
            self.assertEqual((found["status"], found["output_hash"], found["hash_of"]), ("200", None, {"input": "content"}))
            self.assertIn("ttft_ms", found)
            for name in ("output_bytes", "response"):
                self.assertNotIn(name, found)

    def test_client_gone_after_the_end(self):
        async def app(scope, receive, send):
            await answering(ANSWER)(scope, receive, send)
            self.assertEqual((await receive())["type"], "http.disconnect")

        found = self.outcome(app, Request(ASK, gone_after=2))
        self.assertEqual(found["status"], "200")

    def test_last_part_on_its_way(self):
        """What comes while the server takes the last part is not before it."""
        for error in (None, asyncio.CancelledError()):
            self.dir = self.directory()
            request, from_app = Request(ASK, gone_after=0), []

            async def app(scope, receive, send):
                from_app.append(receive)
                await answering(ANSWER)(scope, receive, send)

            async def sending(message):
                if message["type"] == "http.response.body":
                    self.assertEqual((await from_app[0]())["type"], "http.disconnect")
                    if error is not None:
                        raise error

            request.send = sending
            found = self.outcome(app, request, raises=error)
            self.assertEqual(found["status"], "200")
            self.assertNotIn("error", found)

    def test_timeout(self):
        """A deadline changes what a record says, never a request."""

        def app(seconds, then):
            async def waiting(scope, receive, send):
                self.now += seconds
                await then(scope, receive, send)

            return waiting

        async def gone(scope, receive, send):
            await receive()
            await receive()
            self.now += 100

        for want, seconds, then, raises in (
            ("200", 1.9, answering(ANSWER), None),
            ("timeout", 2.0, answering(ANSWER), None),
            ("timeout", 3, raising(ValueError()), ValueError),
            ("client_abort", 1, gone, None),
            ("timeout", 3, gone, None),
        ):
            self.dir = self.directory()
            self.now = time.perf_counter()
            with mock.patch.object(exchange.time, "perf_counter", lambda: self.now):
                wrapped = self.wrap(app(seconds, then), TIMEOUT="2s")
                request = Request(ASK, gone_after=0 if then is gone else None)
                try:
                    asyncio.run(request.through(wrapped))
                except ValueError:
                    self.assertIsNotNone(raises)
                found = self.record(wrapped)
            self.assertEqual(found["status"], want)

    def test_defect(self):
        """If the middleware itself fails, the client does not see it, and the request is recorded still."""
        for name in ("bodies.asked", "bodies.answered", "content.of_output"):
            self.dir = self.directory()
            module, function = name.split(".")
            with mock.patch.object(getattr(record, module), function, side_effect=ZeroDivisionError), self.assertLogs("auditchain_asgi", "ERROR"):
                found = self.outcome(answering(ANSWER), HASH="content")
            self.assertEqual((found["status"], found["output_hash"]), ("200", sha256(json.dumps(ANSWER).encode())))
            self.assertIn("user_id", found)

    def test_defect_in_a_stream(self):
        parts = [sse({"choices": [{"index": 0, "delta": {"content": c}}]}) for c in "abc"]
        for function in ("add", "content"):
            self.dir = self.directory()
            request = Request(ASK)
            patch = mock.patch.object(record.content.Streamed, function, side_effect=ZeroDivisionError)
            with patch, self.assertLogs("auditchain_asgi", "ERROR"):
                found = self.outcome(answering(parts, content_type="text/event-stream"), request, HASH="content")
            self.assertEqual([m["body"] for m in request.sent[1:]], parts)
            self.assertEqual((found["status"], found["output_hash"]), ("200", sha256(b"".join(parts))))


class Passing(Case):
    def test_messages_pass_as_they_are(self):
        """The very objects, in order, and each before the next one is made."""
        messages = [
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]},
            {"type": "http.response.debug", "info": {}},
            *({"type": "http.response.body", "body": b"%d" % n, "more_body": True} for n in range(10)),
            {"type": "http.response.body", "body": b""},
            {"type": "http.response.trailers", "headers": []},
        ]

        async def app(scope, receive, send):
            self.assertIs(await receive(), first)
            for n, message in enumerate(messages):
                await send(message)
                self.assertEqual(len(request.sent), n + 1)

        request = Request(ASK)
        first = request.parts[0]
        asyncio.run(request.through(self.wrap(app)))
        for sent, message in zip(request.sent, messages):
            self.assertIs(sent, message)

    def test_headers_that_can_be_read_once(self):
        async def app(scope, receive, send):
            self.assertEqual(list(scope["headers"])[0], (b"host", b"h"))
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": iter([(b"Content-Type", b"text/event-stream")])})
            await send({"type": "http.response.body", "body": b""})

        request = Request(ASK)
        request.scope["headers"] = iter([(b"host", b"h")])
        wrapped = self.wrap(app)
        asyncio.run(request.through(wrapped))
        self.assertEqual(list(request.sent[0]["headers"]), [(b"Content-Type", b"text/event-stream")])
        self.assertTrue(self.record(wrapped)["stream"])

    def test_request_id(self):
        """It is laid into a copy of the scope, and only where the client sent none."""
        seen = []

        async def app(scope, receive, send):
            seen.append([v.decode() for n, v in scope["headers"] if n == b"x-request-id"])
            await answering(ANSWER)(scope, receive, send)

        wrapped = self.wrap(app)
        without, having = Request(ASK), Request(ASK, headers=[(b"x-request-id", b"mine")])
        asyncio.run(without.through(wrapped))
        asyncio.run(having.through(wrapped))
        wrapped._source.stop()
        first, second = records(self.dir)
        self.assertEqual(seen, [[first["request_id"]], ["mine"]])
        self.assertEqual(without.scope["headers"], [])
        self.assertNotIn("client_request_id", first)
        self.assertNotEqual(second["request_id"], "mine")

    def test_numbers_are_taken_at_arrival(self):
        async def run():
            gates = [asyncio.Event() for _ in range(5)]

            async def app(scope, receive, send):
                await receive()
                await gates[int(scope["query_string"])].wait()
                await answering(ANSWER)(scope, lambda: asyncio.sleep(0, {}), send)

            wrapped = self.wrap(app)
            tasks = []
            for n in range(5):
                request = Request({"model": str(n)})
                request.scope["query_string"] = str(n)
                tasks.append(asyncio.ensure_future(request.through(wrapped)))
                await asyncio.sleep(0)
            for gate in reversed(gates):
                gate.set()
                await asyncio.sleep(0.001)
            await asyncio.gather(*tasks)
            wrapped._source.stop()

        asyncio.run(run())
        found = records(self.dir)
        self.assertEqual([r["source"]["seq"] for r in found], [4, 3, 2, 1, 0])
        self.assertEqual(sorted(found, key=lambda r: r["timestamp"]), sorted(found, key=lambda r: r["source"]["seq"]))


if __name__ == "__main__":
    unittest.main()
