"""The content of requests and responses, apart from how it was framed: docs/RECORDS.md, section 3."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional

from . import canonical, sse
from .capture import Capture

_INPUT = (
    "messages",
    "prompt",
    "input",
    "system",
    "instructions",
    "tools",
    "documents",
    "query",
    "queries",
    "items",
    "text_1",
    "text_2",
    "suffix",
)
_UNREADABLE = (ValueError, RecursionError, TypeError, AttributeError, KeyError)  # bodies in shapes that nobody foresaw


def of_input(body: Capture) -> Optional[bytes]:
    """The content of a request; None if it has none that could be told apart from the rest."""
    if not body.whole:
        return None
    try:
        members = canonical.parse(bytes(body.head).decode("utf-8"))
        content = {name: members[name] for name in _INPUT if name in members} if isinstance(members, dict) else {}
        return canonical.encode(content) if content else None
    except _UNREADABLE:
        return None


def of_output(body: Capture) -> Optional[bytes]:
    """The content of a response that came in one piece; None if it has none."""
    if not body.whole:
        return None
    try:
        return _written(_choices(canonical.parse(bytes(body.head).decode("utf-8"))))
    except _UNREADABLE:
        return None


class Streamed:
    """The content of a response that is streamed, the same as it would be in one piece. It is read while it passes,
    in a few microseconds for each event, so that the event loop is not held up by all of it at the end."""

    __slots__ = ("_room", "_events", "_deltas")

    def __init__(self, limit: int) -> None:
        self._room = limit  # bytes that may still come
        self._events = sse.Reader()
        self._deltas: Optional[_Deltas] = _Deltas()  # None once there is no content: the stream is too long, or unreadable

    def add(self, part: bytes) -> None:
        if self._deltas is None:
            return
        self._room -= len(part)
        if self._room < 0:
            self.drop()
            return
        try:
            self._read(self._events.add(bytes(part)))
        except _UNREADABLE:
            self.drop()

    def drop(self) -> None:
        """Frees what was collected. There is no content then."""
        self._deltas = None
        self._events = sse.Reader()

    def content(self) -> Optional[bytes]:
        """The content, once all parts were added; None if there is none."""
        if self._deltas is None:
            return None
        try:
            self._read(self._events.end())
            return _written(self._deltas.choices())
        except _UNREADABLE:
            self.drop()
            return None

    def _read(self, datas: List[bytes]) -> None:
        for data in datas:
            if data and data != b"[DONE]":
                self._deltas.add(json.loads(data.decode("utf-8")))


def _written(choices: List[dict]) -> Optional[bytes]:
    if not choices:
        return None
    if len(choices) == 1 and not set(choices[0]) - {"text"}:
        return choices[0].get("text", "").encode("utf-8")
    return canonical.encode(choices)


def _choices(response: Any) -> List[dict]:
    """The choices of a response that came in one piece."""
    if not isinstance(response, dict):
        return []
    if isinstance(response.get("choices"), list):
        return [_chat_choice(c) for c in sorted(response["choices"], key=lambda c: c.get("index", 0))]
    if isinstance(response.get("output"), list):
        return [_responses_choice(response["output"])]
    if isinstance(response.get("content"), list):
        return [_messages_choice(response["content"])]
    if isinstance(response.get("text"), str):
        return [_choice(response["text"], "", [])]
    return []


def _choice(text: str, reasoning: str, calls: List[dict]) -> dict:
    found = {"text": text, "reasoning": reasoning, "tool_calls": calls}
    return {name: value for name, value in found.items() if value}


def _call(id: Any, name: Any, arguments: str) -> dict:
    found = {"id": id, "name": name, "arguments": arguments}
    return {key: value for key, value in found.items() if value}


def _chat_choice(choice: dict) -> dict:
    """A choice of /v1/chat/completions or /v1/completions."""
    message = choice.get("message")
    if message is None:
        return _choice(choice.get("text") or "", "", [])
    calls = []
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        calls.append(_call(call.get("id"), function.get("name"), function.get("arguments") or ""))
    return _choice(message.get("content") or "", _reasoning(message), calls)


def _reasoning(message: dict) -> str:
    return message.get("reasoning_content") or message.get("reasoning") or ""


def _responses_choice(output: List[dict]) -> dict:
    """The output of /v1/responses: its items of one kind one after the other."""
    text, reasoning, calls = "", "", []
    for item in output:
        kind = item.get("type")
        if kind == "message":
            text += "".join(part.get("text") or part.get("refusal") or "" for part in item.get("content") or ())
        elif kind == "reasoning":
            reasoning += "".join(part.get("text") or "" for part in item.get("content") or item.get("summary") or ())
        elif kind == "function_call":
            calls.append(_call(item.get("call_id"), item.get("name"), item.get("arguments") or ""))
    return _choice(text, reasoning, calls)


def _messages_choice(blocks: List[dict]) -> dict:
    """The content of /v1/messages: its blocks of one kind one after the other."""
    text = "".join(b.get("text") or "" for b in blocks if b.get("type") == "text")
    reasoning = "".join(b.get("thinking") or "" for b in blocks if b.get("type") == "thinking")
    calls = []
    for block in blocks:
        if block.get("type") == "tool_use":
            arguments = canonical.encode(block.get("input") or {}).decode()
            calls.append(_call(block.get("id"), block.get("name"), arguments))
    return _choice(text, reasoning, calls)


class _Deltas:
    """Puts a stream's deltas together to what it would have been in one piece."""

    __slots__ = ("_chat", "_blocks", "_output", "_completed")

    def __init__(self) -> None:
        self._chat: Dict[int, dict] = {}
        self._blocks: Dict[int, dict] = {}
        self._output: Dict[int, dict] = {}
        self._completed: Optional[List[dict]] = None

    def add(self, event: Any) -> None:
        kind = event.get("type")
        if isinstance(event.get("choices"), list):
            for choice in event["choices"]:
                self._chat_delta(choice)
        elif not isinstance(kind, str):
            return
        elif kind.startswith("content_block_"):
            self._messages_delta(kind, event)
        elif kind.startswith("response."):
            self._responses_delta(kind, event)

    def choices(self) -> List[dict]:
        if self._chat:
            return [_chat_choice(self._chat_whole(self._chat[i])) for i in sorted(self._chat)]
        if self._blocks:
            return [_messages_choice([self._block_whole(self._blocks[i]) for i in sorted(self._blocks)])]
        if self._completed is not None:
            return [_responses_choice(self._completed)]
        if self._output:
            return [_responses_choice([self._item_whole(self._output[i]) for i in sorted(self._output)])]
        return []

    def _chat_delta(self, choice: dict) -> None:
        whole = self._chat.setdefault(choice.get("index", 0), {"text": [], "content": [], "reasoning": [], "calls": {}})
        if "delta" not in choice:
            whole["text"].append(choice["text"] or "")
            return
        delta = choice["delta"] or {}
        whole["content"].append(delta.get("content") or "")
        whole["reasoning"].append(_reasoning(delta))
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            begun = whole["calls"].setdefault(call.get("index", 0), {"id": None, "name": None, "arguments": []})
            begun["id"] = begun["id"] or call.get("id")
            begun["name"] = begun["name"] or function.get("name")
            begun["arguments"].append(function.get("arguments") or "")

    @staticmethod
    def _chat_whole(parts: dict) -> dict:
        if parts["text"]:
            return {"text": "".join(parts["text"])}
        calls = [parts["calls"][i] for i in sorted(parts["calls"])]
        functions = ({"name": c["name"], "arguments": "".join(c["arguments"])} for c in calls)
        return {
            "message": {
                "content": "".join(parts["content"]),
                "reasoning": "".join(parts["reasoning"]),
                "tool_calls": [{"id": c["id"], "function": f} for c, f in zip(calls, functions)],
            }
        }

    def _messages_delta(self, kind: str, event: dict) -> None:
        block = self._blocks.setdefault(event.get("index", 0), {"text": [], "thinking": [], "json": []})
        if kind == "content_block_start":
            block["start"] = event["content_block"]
        elif kind == "content_block_delta":
            delta = event["delta"]
            for name, into in (("text", "text"), ("thinking", "thinking"), ("partial_json", "json")):
                if delta.get(name):
                    block[into].append(delta[name])

    @staticmethod
    def _block_whole(parts: dict) -> dict:
        block = dict(parts.get("start") or {})
        for name in ("text", "thinking"):
            block[name] = (block.get(name) or "") + "".join(parts[name])
        if parts["json"]:
            block["input"] = canonical.parse("".join(parts["json"]))
        return block

    def _responses_delta(self, kind: str, event: dict) -> None:
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            output = event["response"].get("output")
            self._completed = output if isinstance(output, list) and output else self._completed
            return
        place = event.get("output_index", 0)
        if kind == "response.output_item.added":
            self._output[place] = {"item": {**event["item"]}, "text": [], "arguments": []}
            return
        if not isinstance(event.get("delta"), str):
            return
        parts = self._output.setdefault(place, {"item": {"type": "message"}, "text": [], "arguments": []})
        if kind == "response.function_call_arguments.delta":
            parts["arguments"].append(event["delta"])
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            parts["text"].append(event["delta"])
        elif kind in ("response.reasoning_text.delta", "response.reasoning.delta", "response.reasoning_summary_text.delta"):
            parts["item"]["type"] = "reasoning"
            parts["text"].append(event["delta"])

    @staticmethod
    def _item_whole(parts: dict) -> dict:
        content = [{"text": "".join(parts["text"])}] if parts["text"] else []
        return {**parts["item"], "content": content, "arguments": "".join(parts["arguments"])}
