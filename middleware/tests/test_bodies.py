import hashlib
import json
import time
import unittest

from asgi import sse
from auditchain_asgi import bodies
from auditchain_asgi.capture import Capture

USAGE = {"prompt_tokens": 7, "total_tokens": 19, "completion_tokens": 12}


def kept(*parts: bytes, head: int = 64 << 10) -> Capture:
    body = Capture(hashlib.sha256(), head)
    for part in parts:
        body.add(part)
    return body


def chunk(**members) -> dict:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", **members}


def delta(text) -> dict:
    return chunk(choices=[{"index": 0, "delta": {"content": text}}])


def messages_stream(count: int) -> bytes:
    message = {"id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 'say "usage"'}}
    return sse(
        {"type": "message_start", "message": message},
        *[text] * count,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    )


def responses_stream(length: int) -> bytes:
    response = {"id": "resp_1", "instructions": "i" * length, "model": "m", "output": [], "usage": None}
    done = {**response, "output": [{"type": "message", "content": [{"type": "output_text", "text": "x" * length}]}]}
    done["usage"] = {"input_tokens": 7, "output_tokens": 12, "input_tokens_details": {"cached_tokens": 0}}
    return sse(
        {"type": "response.created", "response": response, "sequence_number": 0},
        {"type": "response.output_text.delta", "delta": "x" * length, "sequence_number": 1},
        {"type": "response.completed", "response": done, "sequence_number": 2},
    )


STREAMS = {
    "usage at the end": sse(delta("a"), delta("b"), chunk(choices=[], usage=USAGE), b"[DONE]"),
    "usage in each chunk": sse(
        chunk(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 1}), chunk(choices=[], usage=USAGE), b"[DONE]"
    ),
    "usage is null until the end": sse(chunk(usage=None, choices=[]), chunk(usage=USAGE, choices=[]), chunk(usage=None, choices=[])),
    "messages": messages_stream(3),
    "responses": responses_stream(10),
    "other line ends": sse(delta("a"), chunk(choices=[], usage=USAGE)).replace(b"\n", b"\r\n"),
    "no space, comments, names": b": hi\n\n" + sse(delta("a"), chunk(choices=[], usage=USAGE)).replace(b"data: ", b"event: e\nid: 3\ndata:"),
    "data on several lines": b"data: " + json.dumps(chunk(usage=USAGE), indent=1).replace("\n", "\ndata: ").encode() + b"\n\n",
    "many events": sse(*[delta("x" * 50)] * 3000, chunk(choices=[], usage=USAGE), b"[DONE]"),
    "many events of messages": messages_stream(3000),
    "events longer than what is kept": responses_stream(200_000),
    "one event without an end": sse(chunk(choices=[{"delta": {"content": "x" * 200_000}}], usage=USAGE))[:-2],
}


class Streams(unittest.TestCase):
    def check(self, body, name):
        said = bodies.answered(body, True)
        self.assertIn(said.id, ("chatcmpl-1", "msg_1", "resp_1"), name)
        model = None if "longer" in name else "m"  # behind the instructions; then the request says it
        self.assertEqual(tuple(said)[1:], (model, 7, 12, None, False), name)

    def test_cut_anywhere(self):
        for name, stream in STREAMS.items():
            for at in range(0, len(stream) + 1, 1 if len(stream) < 2000 else len(stream) // 40):
                self.check(kept(stream[:at], stream[at:]), name)
            for size in (1, 3, 100, 5000):
                if len(stream) // size < 20_000:
                    self.check(kept(*(stream[i : i + size] for i in range(0, len(stream), size))), name)

    def test_head_sizes(self):
        """However much is kept of the beginning, the end is found."""
        for name, stream in STREAMS.items():
            if "longer" in name or "without an end" in name:
                continue
            for head in (400, 1000, 16 << 10, 1 << 20):
                self.check(kept(*(stream[i : i + 900] for i in range(0, len(stream), 900)), head=head), name)

    def test_unfinished(self):
        stream = sse(*[chunk(choices=[], usage={"prompt_tokens": 7, "completion_tokens": n}) for n in range(2000)])
        said = bodies.answered(kept(stream[:-20]), True)
        self.assertEqual((said.input_tokens, said.output_tokens), (7, 1998))
        said = bodies.answered(kept(sse(delta("a"), delta("b"))), True)
        self.assertEqual((said.model, said.input_tokens, said.output_tokens, said.failed), ("m", None, None, False))

    def test_errors(self):
        for want, last in {
            "BadRequestError": [{"error": {"message": "secret", "type": "BadRequestError", "code": 400}}, b"[DONE]"],
            "500": [{"error": {"message": "secret", "code": 500}}],
            "overloaded_error": [{"type": "error", "error": {"type": "overloaded_error", "message": "secret"}}],
            "server_error": [{"type": "response.failed", "response": {"id": "r", "error": {"code": "server_error", "message": "secret"}}}],
            "error": [{"error": "secret"}, b"[DONE]"],
        }.items():
            for before in (1, 3000):
                said = bodies.answered(kept(sse(*[delta("x" * 50)] * before, *last)), True)
                self.assertEqual((said.error, said.failed), (want, True))
        said = bodies.answered(kept(sse({**delta('"error": {"type": "no"}'), "error": None}, chunk(usage=USAGE))), True)
        self.assertFalse(said.failed)

    def test_what_is_no_stream(self):
        for body in (b"", b"\n", b"data:", b"data: [1]\n\n", b"data: 1\n\ndata: null\n\n", b"\xff" * 70_000, b"data: {" * 20_000, b"[" * 200_000):
            self.assertEqual(tuple(bodies.answered(kept(body), True))[:4], (None,) * 4)


class Whole(unittest.TestCase):
    def test_usage(self):
        for want, response in (
            ((7, 12), {"usage": USAGE}),
            ((7, 12), {"usage": {"input_tokens": 7, "output_tokens": 12}}),
            ((7, 0), {"usage": {"prompt_tokens": 7, "total_tokens": 7}}),
            ((7, 0), {"usage": {"prompt_tokens": 7, "total_tokens": 7, "completion_tokens": 0}}),
            ((7, 0), {"usage": {"total_tokens": 7}}),
            ((7, 12), {"text": "x", "meta_info": {"id": "a", "prompt_tokens": 7, "completion_tokens": 12}}),
            ((7, 0), {"meta": {"billed_units": {"input_tokens": 7}}}),
            ((None, None), {"usage": {"type": "duration", "seconds": 3}}),
            ((None, None), {"usage": None}),
            ((None, None), {"usage": [1]}),
            ((None, None), {"usage": {"prompt_tokens": True, "completion_tokens": -1}}),
            ((None, None), {"usage": {"prompt_tokens": 1.5, "completion_tokens": "3"}}),
            ((None, None), {"choices": [{"usage": USAGE}]}),
            ((None, None), [{"usage": USAGE}]),
        ):
            said = bodies.answered(kept(json.dumps(response).encode()), False)
            self.assertEqual((said.input_tokens, said.output_tokens), want, response)

    def test_long(self):
        data = [{"embedding": [0.1] * 1000, "usage": {"prompt_tokens": 1}, "model": "no"}] * 100
        body = json.dumps({"id": "embd-1", "model": "m", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}).encode()
        self.assertEqual(tuple(bodies.answered(kept(body), False)), ("embd-1", "m", 7, 0, None, False))

    def test_errors(self):
        for want, response in (
            ("BadRequestError", {"error": {"message": "secret", "type": "BadRequestError", "param": None, "code": 400}}),
            ("BadRequestError", {"object": "error", "message": "secret", "type": "BadRequestError", "code": 400}),
            ("error", {"error": "secret"}),
            (None, {"detail": [{"msg": "secret"}]}),
            (None, {"error": None}),
        ):
            self.assertEqual(bodies.answered(kept(json.dumps(response).encode()), False).error, want)


class Requests(unittest.TestCase):
    def test_who_asks(self):
        for want, request in (
            (("m", "u"), {"model": "m", "user": "u", "safety_identifier": "s", "metadata": {"user_id": "x"}}),
            (("m", "s"), {"model": "m", "user": "", "safety_identifier": "s"}),
            (("m", "x"), {"model": "m", "user": None, "metadata": {"user_id": "x"}}),
            (("m", None), {"model": "m", "metadata": {"user": "x"}, "messages": [{"user": "x"}]}),
            ((None, None), {"model": 3, "user": ["u"], "metadata": "user_id"}),
            ((None, None), ["model"]),
        ):
            self.assertEqual(bodies.asked(kept(json.dumps(request).encode()), "application/json")[1:], (*want, True))

    def asked(self, body, kind="application/json"):
        return bodies.asked(kept(body, head=bodies.READ), kind)[1:]

    def test_long(self):
        """A body too long to be read whole: what is nested, or quoted in a prompt, is not taken for its own."""
        tricky = '"model":"no","user":"no"}],"model":"no"}' * 5_000
        nested = [{"model": "no", "user": "no", "content": tricky, "metadata": {"user_id": "no"}}] * 2
        text = "x" * 200_000
        for request in (
            {"model": "m", "user": "u", "messages": nested},
            {"messages": nested, "model": "m", "user": "u"},
            {"model": "m", "messages": nested, "user": "u"},
            {"messages": nested, "model": "m", "tools": [{"parameters": {"model": {"type": "no"}}}] * 50, "user": "u"},
            {"model": "m", "prompt": text, "user": "u"},
            {"prompt": text, "model": "m", "user": "u", "suffix": text},
            {"prompt": text, "model": "m", "metadata": {"user_id": "u", "user": "no"}, "suffix": text},
        ):
            body = json.dumps(request).encode()
            self.assertEqual(self.asked(body), ("m", "u", True))
            self.assertEqual(self.asked(body[:-1] + b',"user":"v"}'), ("m", "v", True))

    def test_in_doubt(self):
        """Where a part was not read, it may say something else than what stands before it."""
        text, many = b"x" * bodies.READ, b"[]," * 30_000
        for want, body in (
            ((None, None, False), b'{"model":"m","user":"u","prompt":"' + text + b'"}'),
            ((None, "u", False), b'{"model":"m","prompt":"' + text + b'","user":"u"}'),
            (("m", None, False), b'{"user":"u","prompt":"' + text + b'","model":"m"}'),
            ((None, None, False), b'{"model":"m","user":"u","x":[' + many + b"0]}"),
            (("m", "u", False), b'{"x":[' + many + b'0],"model":"m","user":"u"}'),
            ((None, None, False), '{"model":"m","user":"u"}'.encode("utf-16") + b"\0 " * 50_000),
            (("m", "u", True), b'{"model":"m","user":"u","n":' + b"9" * 5000 + b"}"),
            (("m", "u", True), b'{"model":"m","user":"u","prompt":"cut'),
            ((None, None, True), b"no JSON"),
        ):
            self.assertEqual(self.asked(body), want, body[:40])

    def test_long_takes_no_longer(self):
        """However long a body is, and whatever it is made of."""
        for inner in (b"[" * 5_000_000, b'"' + b"x" * 10_000_000 + b'"', b'"\\' * 3_000_000, b'{"a":' * 2_000_000, b"1," * 5_000_000, b"\\" * 9_000_000, b'"' + b'\\"' * 500_000 + b'"', b'"",' * 340_000):
            body = kept(b'{"messages":' + inner + b',"model":"m"}', head=bodies.READ)
            best = min(self.time_taken(body) for _ in range(5))
            self.assertLess(best, 0.05, inner[:10])  # about a millisecond, on a machine that has nothing else to do

    def time_taken(self, body):
        begun = time.perf_counter()
        bodies.asked(body, "application/json")
        bodies.answered(body, False)
        bodies.answered(body, True)
        return time.perf_counter() - begun

    def test_forms(self):
        def form(*parts):
            return b"".join(b"--XX\r\n" + p + b"\r\n" for p in parts) + b"--XX--\r\n"

        file = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + b"\x00\xffRIFF" * 30_000
        model = b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper'
        quoted = b'Content-Disposition: form-data; name="prompt"\r\n\r\nname="model"\r\n\r\nno'
        typed = b'Content-Type: text/plain\r\ncontent-disposition: form-data; name=model\r\nX-Y: z\r\n\r\nwhisper'
        user = b'Content-Disposition: form-data; name="user"\r\n\r\nu'
        for parts in ((model, user, file), (file, model, user), (user, file, model), (quoted, user, model), (user, typed, file)):
            for kind in ("multipart/form-data; boundary=XX", 'Multipart/Form-Data; charset=utf-8; Boundary="XX"'):
                self.assertEqual(self.asked(form(*parts), kind), ("whisper", "u", True))
        for want, parts in (
            ("whisper", (model.replace(b"whisper", b"no"), model)),
            ("whisper", (model, model.replace(b'"model"', b'"model"; filename=x').replace(b"whisper", b"no"))),
            ("whisper", (file + b"\r\n--XX \r\n" + model.replace(b"whisper", b"no"), model)),
            ("whisper\r\n--XX ", (model + b"\r\n--XX ",)),
            (None, (model.replace(b"whisper", b"x" * 1001),)),
        ):
            self.assertEqual(self.asked(form(*parts), "multipart/form-data; boundary=XX")[0], want, parts)
        for kind in ("multipart/form-data", "multipart/form-data; boundary=YY", "text/plain"):
            self.assertEqual(self.asked(form(model, user), kind)[:2], (None, None))
        long = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + b"\x00" * bodies.READ
        self.assertEqual(self.asked(form(model, long, user), "multipart/form-data; boundary=XX"), ("whisper", "u", False))
        # Behind the form's end there is no field.
        self.assertEqual(self.asked(form(model) + form(long, typed.replace(b"whisper", b"no")), "multipart/form-data; boundary=XX"), ("whisper", None, True))

    def test_forms_take_no_longer(self):
        line = b"content-disposition:form-data;name=model\r\n"
        for unit in (
            b"--XX\r\n" + line,
            (b"x--XX\r\n" + line) * 3 + b"\r\n",
            b"x--XX\r\n" * 5 + line * 5 + b"\r\n",
            b"\r\n--XX",
            b"\r\n--XX ",
            b"\r\n--XX\r\n\r\n",
            b"\r\n-",
            b"\r\n--XX\r\n" + b"content-disposition:" + b"; " * 900,
        ):
            for size in (97_000, bodies.READ):
                body = kept((unit * (size // len(unit) + 1))[:size], head=bodies.READ)

                def taken():
                    begun = time.perf_counter()
                    bodies.asked(body, "multipart/form-data; boundary=XX")
                    return time.perf_counter() - begun

                self.assertLess(min(taken() for _ in range(5)), 0.03, unit[:60])


if __name__ == "__main__":
    unittest.main()
