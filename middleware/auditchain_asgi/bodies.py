"""What a record takes from the bodies of a request and its response."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional, Tuple

from . import multipart, scan, sse
from .capture import TAIL, Capture

READ = 1 << 20  # bytes of a request in which members are looked for
_WHOLE = 64 << 10  # bytes of JSON that are read whole: about a millisecond
_ASKED = frozenset(("model", "user", "safety_identifier", "metadata", "lora_name", "lora_path"))
_NESTED = ("response", "message")  # events of /v1/responses and /v1/messages hold the response in these
_EVENTS = 8  # events looked into at each end of a stream


class Asked(NamedTuple):
    """What a request says of itself."""

    members: dict  # some of the body's
    model: Optional[str]
    user: Optional[str]
    sure: bool  # whether there is nothing else in the body that could say so


class Answered(NamedTuple):
    """What a response says of itself."""

    id: Optional[str]
    model: Optional[str]
    input_tokens: Optional[int]
    output_tokens: Optional[int]
    error: Optional[str]
    failed: bool  # an error was sent inside a stream


_NOTHING = Answered(None, None, None, None, None, False)


def asked(body: Capture, content_type: str) -> Asked:
    separator = multipart.boundary(content_type)
    if separator is not None:
        return _form(body, separator)
    members, sure = _request(body)
    metadata = members.get("metadata")
    names = (members.get("user"), members.get("safety_identifier"), metadata.get("user_id") if isinstance(metadata, dict) else None)
    return Asked(members, _text(members.get("model")), next(filter(None, map(_text, names)), None), sure)


def _form(body: Capture, separator: bytes) -> Asked:
    """Of one that is too long the fields at its beginning and its end: between them is a file, as a rule."""
    found, ended = multipart.fields(bytes(body.head[:READ]), separator, _ASKED)
    if not ended and body.size > READ:
        found.update(multipart.fields(body.last(TAIL), separator, _ASKED)[0])
    return Asked(found, found.get("model"), found.get("user"), ended)


def _request(body: Capture) -> Tuple[dict, bool]:
    """Members of a request, and whether they are sure to be its own: of those that repeat a name a parser takes the last."""
    if body.whole and body.size <= _WHOLE:
        try:
            members = json.loads(body.head)
        except (ValueError, RecursionError):  # a reader with other limits may take it
            return scan.members(bytes(body.head), _ASKED)
        return (members if isinstance(members, dict) else {}), True
    if body.whole and body.size <= READ:
        members, sure = scan.members(bytes(body.head), _ASKED)
        if sure:
            return members, True
    # Nothing that stands before what was not read is taken: it may be repeated there.
    return scan.trailing(body.last(TAIL).decode("utf-8", "replace")), False


def answered(body: Capture, stream: bool) -> Answered:
    return _streamed(body) if stream else _of(_members(body))._replace(failed=False)


def _members(body: Capture) -> dict:
    """A response's members; of one too long to be read in time, those at its beginning and its end."""
    if body.whole and body.size <= _WHOLE:
        return sse.members(bytes(body.head))
    members = scan.leading(bytes(body.head[:_WHOLE]).decode("utf-8", "replace"))
    members.update(scan.trailing(body.last(TAIL).decode("utf-8", "replace")))
    return members


def _of(members: dict) -> Answered:
    inner = next((members[n] for n in _NESTED if isinstance(members.get(n), dict)), members)
    given, taken = _usage(inner)
    if inner is not members and given is None and taken is None:
        given, taken = _usage(members)
    error = members.get("error") or inner.get("error")
    return Answered(_text(inner.get("id")), _text(inner.get("model")), given, taken, _error(error, members), bool(error))


def _usage(members: dict) -> Tuple[Optional[int], Optional[int]]:
    """Input and output tokens."""
    usage = members.get("usage")
    if not isinstance(usage, dict):
        usage = members.get("meta_info")  # SGLang's own /generate
    if not isinstance(usage, dict):
        meta = members.get("meta")  # Cohere's
        usage = meta.get("billed_units") if isinstance(meta, dict) else None
    if not isinstance(usage, dict):
        return None, None
    given = _count(usage, "prompt_tokens", "input_tokens")
    taken = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    if given is None and taken is None:
        given = total
    if taken is None and given is not None:  # embeddings and scores put out no tokens
        taken = max((total or given) - given, 0)
    return given, taken


def _count(usage: dict, *names: str) -> Optional[int]:
    for name in names:
        value = usage.get(name)
        if type(value) is int and 0 <= value < 1 << 53:
            return value
    return None


def _error(error: Any, members: dict) -> Optional[str]:
    """The type or class of an error."""
    if isinstance(error, dict):
        return next((str(v) for v in (error.get("type"), error.get("code")) if v and isinstance(v, (str, int))), "error")
    if error:
        return "error"
    if members.get("object") == "error":  # older vLLM
        return _text(members.get("type")) or "error"
    return None


def _streamed(body: Capture) -> Answered:
    """Of a stream: who answers is said at its beginning; usage, and that it failed, at its end."""
    first = _first(body)
    last, failure = _last(body)
    given = last.input_tokens if last.input_tokens is not None else first.input_tokens
    taken = last.output_tokens if last.output_tokens is not None else first.output_tokens
    return Answered(first.id or last.id, first.model or last.model, given, taken, failure, failure is not None)


def _first(body: Capture) -> Answered:
    head = bytes(body.head[:_WHOLE])
    for data in sse.datas(head)[:_EVENTS]:
        members = sse.members(data) or scan.leading(data.decode("utf-8", "replace"), _NESTED)
        said = _of(members)
        if said.model or said.id:
            return said
    return _NOTHING


def _last(body: Capture) -> Tuple[Answered, Optional[str]]:
    """The last event that has usage, and the error that the stream ended with."""
    end = body.last(TAIL)
    events = sse.datas(end)
    if body.size > len(end) and not end.lstrip().startswith(b"data:"):
        # The first one may have lost its beginning, and with it the line's name.
        events.insert(0, end.split(b"\n", 1)[0].strip())
    told = [data for data in events if b'"usage"' in data or b'"error"' in data or b'"meta_info"' in data]
    usage: Optional[Answered] = None
    failure: Optional[str] = None
    for data in reversed(told[-_EVENTS:]):
        said = _of(sse.members(data) or _cut_event(data))
        if said.failed and failure is None:
            failure = said.error or "error"
        if usage is None and (said.input_tokens is not None or said.output_tokens is not None):
            usage = said
    return usage or _NOTHING, failure


def _cut_event(data: bytes) -> dict:
    """The end of an event too long to be kept: /v1/responses repeats all of its output in the last one."""
    text = data.decode("utf-8", "replace")
    return {**scan.trailing(text, 2), **scan.trailing(text)}


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None
