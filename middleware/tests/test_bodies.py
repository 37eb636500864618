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
            self.assertEqual(bodies.asked(kept(json.dumps(request).encode()), "application/json")[1:], want)

    def test_long(self):
        """A body too long to be read whole: what is nested, or quoted in a prompt, is not taken for its own."""
        tricky = '"model":"no","user":"no"}],"model":"no"}' * 10_000
        nested = [{"model": "no", "user": "no", "content": tricky, "metadata": {"user_id": "no"}}] * 2
        for request in (
            {"model": "m", "user": "u", "messages": nested},
            {"messages": nested, "model": "m", "user": "u"},
            {"model": "m", "messages": nested, "user": "u"},
            {"messages": nested, "model": "m", "tools": [{"parameters": {"model": {"type": "no"}}}] * 50, "user": "u"},
        ):
            body = json.dumps(request).encode()
            self.assertEqual(bodies.asked(kept(body), "application/json")[1:], ("m", "u"))

    def test_long_takes_no_longer(self):
        """However long a body is, and whatever it is made of."""
        for inner in (b"[" * 5_000_000, b'"' + b"x" * 10_000_000 + b'"', b'"\\' * 3_000_000, b'{"a":' * 2_000_000, b"1," * 5_000_000, b"\\" * 9_000_000):
            body = kept(b'{"messages":' + inner + b',"model":"m"}')
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
                self.assertEqual(bodies.asked(kept(form(*parts)), kind)[1:], ("whisper", "u"))
        for kind in ("multipart/form-data", "multipart/form-data; boundary=YY", "text/plain"):
            self.assertEqual(bodies.asked(kept(form(model, user)), kind)[1:], (None, None))
        slow = b'--XX\r\nContent-Disposition: form-data; name="file"\r\n' * 20_000
        begun = time.perf_counter()
        bodies.asked(kept(slow), "multipart/form-data; boundary=XX")
        self.assertLess(time.perf_counter() - begun, 1)


if __name__ == "__main__":
    unittest.main()
