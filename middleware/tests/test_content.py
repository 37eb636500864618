import hashlib
import json
import random
import unittest

from asgi import sse
from auditchain_asgi import content
from auditchain_asgi.capture import Capture

chance = random.Random(11)


def kept(body: bytes, head: int = 1 << 20) -> Capture:
    capture = Capture(hashlib.sha256(), head)
    capture.add(body)
    return capture


def streamed(parts, limit: int = 1 << 20):
    """The content of a stream that comes in these parts."""
    stream = content.Streamed(limit)
    for part in parts:
        stream.add(part)
    return stream.content()


def chat(*choices) -> bytes:
    return json.dumps({"id": "x", "model": "m", "choices": choices}).encode()


def split(stream: bytes) -> list:
    """It in parts, cut at random."""
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(12)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)])]


def deltas(*choices) -> bytes:
    return sse(*({"id": "x", "choices": [c]} for c in choices), {"id": "x", "choices": [], "usage": {}}, b"[DONE]")


class Input(unittest.TestCase):
    def test_content(self):
        for want, body in (
            (b'{"messages":[{"content":"\xc3\xa9","role":"user"}]}', '{"model":"m","messages":[{"role":"user","content":"\\u00e9"}],"temperature":0.70}'),
            (b'{"messages":[],"tools":[{"a":0.7}]}', '{"tools": [{"a": 7e-1}], "messages": []}'),
            (b'{"prompt":[1,2,3]}', '{"prompt":[1,2,3],"max_tokens":5}'),
            (b'{"input":null}', '{"input":null}'),
            (None, '{"model":"m"}'),
            (None, '{"prompt":"a","prompt":"b"}'),
            (None, '{"prompt":"\\ud800"}'),
            (None, '{"prompt":NaN}'),
            (None, '["prompt"]'),
            (None, "prompt"),
            (None, ""),
            (None, "[" * 100_000),
        ):
            self.assertEqual(content.of_input(kept(body.encode())), want, body[:100])
        self.assertIsNone(content.of_input(kept(b'{"prompt":"\xff"}')))
        self.assertIsNone(content.of_input(kept(b'{"prompt":"aaaa"}', head=10)))


class Output(unittest.TestCase):
    """Content is the same, streamed or not."""

    def check(self, want, body, stream):
        self.assertEqual(content.of_output(kept(body)), want)
        for end in (b"\n", b"\r\n", b"\r"):
            parts = stream.replace(b"\n", end)
            self.assertEqual(streamed([parts]), want)
            self.assertEqual(streamed(parts[at : at + 1] for at in range(len(parts))), want)
            for _ in range(20):
                self.assertEqual(streamed(split(parts)), want)

    def test_chat(self):
        self.check(
            "Hé".encode(),
            chat({"index": 0, "message": {"role": "assistant", "content": "Hé", "tool_calls": []}}),
            deltas(*({"index": 0, "delta": {"role": "assistant", "content": c}} for c in ("", "H", "é"))),
        )

    def test_choices(self):
        self.check(
            b'[{"text":"ab"},{"reasoning":"r","text":"c"},{}]',
            chat(
                {"index": 1, "message": {"content": "c", "reasoning_content": "r"}},
                {"index": 0, "message": {"content": "ab"}},
                {"index": 2, "message": {"content": None}},
            ),
            deltas(
                {"index": 1, "delta": {"reasoning_content": "r"}},
                {"index": 0, "delta": {"content": "a"}},
                {"index": 2, "delta": {"role": "assistant"}},
                {"index": 1, "delta": {"content": "c"}},
                {"index": 0, "delta": {"content": "b"}},
            ),
        )

    def test_tools(self):
        def call(index, **function):
            return {"index": 0, "delta": {"tool_calls": [{"index": index, "id": function.pop("id", None), "function": function}]}}

        self.check(
            b'[{"tool_calls":[{"arguments":"{\\"x\\": 1}","id":"c1","name":"f"},{"id":"c2","name":"g"}]}]',
            chat(
                {
                    "index": 0,
                    "message": {
                        "content": None,
                        "tool_calls": [
                            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
                        ],
                    },
                }
            ),
            deltas(
                call(0, id="c1", name="f", arguments=""),
                call(0, arguments='{"x"'),
                call(1, id="c2", name="g"),
                call(0, arguments=": 1}"),
            ),
        )

    def test_completions(self):
        self.check(
            b"abc",
            chat({"index": 0, "text": "abc"}),
            deltas({"index": 0, "text": "ab"}, {"index": 0, "text": "c"}, {"index": 0, "text": "", "finish_reason": "stop"}),
        )
        self.check(
            b'[{"text":"a"},{"text":"b"}]',
            chat({"index": 0, "text": "a"}, {"index": 1, "text": "b"}),
            deltas({"index": 1, "text": "b"}, {"index": 0, "text": "a"}),
        )

    def test_responses(self):
        output = [
            {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "think"}]},
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "message", "id": "ms", "content": [{"type": "output_text", "text": "Hello"}]},
        ]
        whole = {"id": "r", "object": "response", "output": output, "model": "m"}
        want = b'[{"reasoning":"think","text":"Hello","tool_calls":[{"arguments":"{}","id":"c1","name":"f"}]}]'
        events = [
            {"type": "response.created", "response": {**whole, "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs"}},
            {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "thi"},
            {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "nk"},
            {"type": "response.output_item.added", "output_index": 1, "item": {"type": "function_call", "call_id": "c1", "name": "f"}},
            {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
            {"type": "response.output_item.added", "output_index": 2, "item": {"type": "message", "content": []}},
            {"type": "response.output_text.delta", "output_index": 2, "content_index": 0, "delta": "Hel"},
            {"type": "response.output_text.delta", "output_index": 2, "content_index": 0, "delta": "lo"},
        ]
        body = json.dumps(whole).encode()
        self.check(want, body, sse(*events, {"type": "response.completed", "response": whole}))
        self.check(want, body, sse(*events))  # the client left before the end

    def test_messages(self):
        blocks = [
            {"type": "thinking", "thinking": "think", "signature": "s"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1.0, "a": "é"}},
        ]
        self.check(
            '[{"reasoning":"think","text":"Hello","tool_calls":[{"arguments":"{\\"a\\":\\"é\\",\\"b\\":1}","id":"t1","name":"f"}]}]'.encode(),
            json.dumps({"type": "message", "id": "m", "content": blocks}).encode(),
            sse(
                {"type": "message_start", "message": {"id": "m", "content": []}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "think"}},
                {"type": "content_block_stop", "index": 0},
                {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hel"}},
                {"type": "ping"},
                {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "lo"}},
                {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}}},
                {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"b":1.0'}},
                {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ',"a":"é"}'}},
                {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 12}},
                {"type": "message_stop"},
            ),
        )

    def test_cut_anywhere(self):
        stream = deltas(*({"index": 0, "delta": {"content": c}} for c in "Héllo"))
        for end in (b"\n", b"\r\n", b"\r"):
            parts = stream.replace(b"\n", end)
            for at in range(len(parts) + 1):
                self.assertEqual(streamed([parts[:at], parts[at:]]), "Héllo".encode())

    def test_end_missing(self):
        """The last event counts without the blank line behind it, if it is whole."""
        stream = deltas({"index": 0, "delta": {"content": "H"}})
        end = stream.index(b"\n\n")
        self.assertEqual(streamed([stream[:end]]), b"H")
        self.assertEqual(streamed([stream[: end + 1]]), b"H")
        self.assertIsNone(streamed([stream[: end - 1]]))

    def test_bounded(self):
        """Of a stream that is too long nothing is kept."""
        stream = deltas(*({"index": 0, "delta": {"content": "H"}} for _ in range(10)))
        self.assertEqual(streamed([stream], len(stream)), b"H" * 10)
        self.assertIsNone(streamed([stream], len(stream) - 1))
        for parts in ([stream] * 3, [b"data: "] + [b"x"] * len(stream), [b"data: x\n\n"] * len(stream)):
            long = content.Streamed(len(stream))
            for part in parts:
                long.add(part)
            self.assertIsNone(long._deltas)
            self.assertEqual(len(long._events._rest), 0)
            self.assertIsNone(long.content())

    def test_asked_again(self):
        for want, stream in ((b"H", deltas({"index": 0, "delta": {"content": "H"}})[:-2]), (None, b"data: {cut")):
            reading = content.Streamed(1000)
            reading.add(stream)
            self.assertEqual([reading.content(), reading.content()], [want, want])

    def test_transcription(self):
        self.assertEqual(content.of_output(kept(b'{"text":"Hello","usage":{}}')), b"Hello")

    def test_none(self):
        for body in (
            b"",
            b"[]",
            b"null",
            b"{}",
            b'{"data":[{"embedding":[1]}]}',
            b'{"choices":[]}',
            b'{"choices":[1]}',
            b'{"choices":{}}',
            b'{"choices":[{"message":"x"}]}',
            b'{"choices":[{"message":{"content":[1]}}]}',
            b'{"choices":[{"index":"a","text":"x"},{"index":1,"text":"x"}]}',
            b'{"output":[1]}',
            b'{"content":["x"]}',
            b'{"choices":[{"text":"\\udc00"}]}',
            b'{"error":{"message":"m"}}',
            b"\xff",
        ):
            self.assertIsNone(content.of_output(kept(body)), body)
            self.assertIsNone(streamed([b"data: " + body + b"\n\n"]), body)
        self.assertIsNone(content.of_output(kept(b'{"choices":[{"text":"a"}],"choices":[{"text":"b"}]}')))
        self.assertIsNone(content.of_output(kept(b'{"text":"Hello"}', head=10)))
        self.assertIsNone(streamed([b"data: {cut"]))


if __name__ == "__main__":
    unittest.main()
