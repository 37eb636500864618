"""Some members of a JSON object that is too long to be read whole in time, or of which only the beginning and the end
are at hand. Reading all of it would hold up the event loop."""

from __future__ import annotations

import json
import re
from typing import Collection, Tuple

_MARKS = 20_000  # strings and brackets looked at in a whole: some milliseconds
_TOKENS = 4000  # quotes and brackets looked at in an end
_VALUE = 64 << 10  # bytes of one member's value
_KEY = 200  # bytes of a key, more than any that is looked for has with all of its characters escaped
_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*").match
_token = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_string_rest = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_escapes = re.compile(r"\\+.?", re.DOTALL)
_object = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r]*\{").match
_mark = re.compile(rb'"[^"]*"?|[\[\]{}]')
_colon = re.compile(rb"[ \t\n\r]*:").match


def members(body: bytes, wanted: Collection[str]) -> Tuple[dict, bool]:
    """Those members of the object that the body is whose names are wanted, the last one of each name as with any
    parser, and whether no other could be in it: not so if it has too many strings and brackets, or a value too long."""
    opening = _object(body)
    if opening is None:
        return {}, json.detect_encoding(body).startswith("utf-8")
    # Without escaped quotes, and at the same places, a string ends at the next quote.
    plain = body.replace(b"\\\\", b"__").replace(b'\\"', b"__") if b"\\" in body else body
    found: dict = {}
    sure = True
    depth, at = 1, opening.end()
    key, value_at = b"", 0

    def take(end: int) -> None:
        nonlocal sure
        name = _name(key)
        if name not in wanted:
            return
        if end - value_at > _VALUE:
            found.pop(name, None)
            sure = False
            return
        try:
            found[name] = json.loads(body[value_at:end])
        except ValueError:  # no JSON, or a number longer than Python reads
            found[name] = None
        except RecursionError:
            found.pop(name, None)
            sure = False

    for seen, token in enumerate(_mark.finditer(plain, at)):
        if seen == _MARKS:
            return found, False
        begin = token.start()
        mark = plain[begin]
        if depth == 1:
            comma = plain.find(b",", at, begin) if key else -1
            if comma >= 0:
                take(comma)
                key = b""
            if mark == 0x7D:
                if key:
                    take(begin)
                return found, sure
            if mark == 0x22 and not key:
                colon = _colon(plain, token.end())
                if colon is None:  # no JSON
                    return found, sure
                key, value_at = body[begin : token.end()], colon.end()
        if mark == 0x5B or mark == 0x7B:
            depth += 1
        elif mark != 0x22:
            depth -= 1
        at = token.end()
    return found, sure


def _name(key: bytes) -> str:
    if len(key) > _KEY:
        return ""
    try:
        return json.loads(key)
    except ValueError:  # no JSON
        return ""


def leading(text: str, into: Tuple[str, ...] = ()) -> dict:
    """The members of the object that text begins with, as far as they are whole. A last one that is not, but is an
    object and named in into, is read likewise."""
    members: dict = {}
    at = _space(text).end()
    separator = "{"
    while text.startswith(separator, at):
        at = _space(text, at + 1).end()
        key = None
        try:
            key, at = _decode(text, at)
            at = _space(text, at).end()
            if not isinstance(key, str) or not text.startswith(":", at):
                break
            at = _space(text, at + 1).end()
            value, end = _decode(text, at)
        except (ValueError, RecursionError):
            if key in into and text.startswith("{", at):
                members[key] = leading(text[at:])
            break
        at = _space(text, end).end()
        if not text.startswith((",", "}"), at):  # a number may have been cut
            break
        members[key] = value
        separator = ","
    return members


def trailing(text: str, depth: int = 1) -> dict:
    """The members at depth, counted from the outermost object, with which the object ends whose end text is. They
    are those of the object itself, never of one inside it, provided that the whole is JSON."""
    text = text.rstrip(" \t\n\r")
    if not text.endswith("}"):
        return {}
    while text.count('"') + text.count("[") + text.count("]") + text.count("{") + text.count("}") > _TOKENS:
        text = text[len(text) // 2 :]
    text = text[_outside_strings(text) :]
    level, begin, gap_end = 0, -1, len(text)
    for token in reversed(list(_token.finditer(text))):
        if level == depth:
            comma = text.find(",", token.end(), gap_end)
            begin = comma if comma >= 0 else begin
        gap_end = token.start()
        mark = text[gap_end]
        if mark in "}]":
            level += 1
        elif mark in "{[":
            if level == depth:
                begin = gap_end
                break
            level -= 1
    else:
        if level == depth:  # text begins in a value, or behind it
            comma = text.find(",", 0, gap_end)
            begin = comma if comma >= 0 else begin
    if begin < 0:
        return {}
    try:
        found, _ = _decode("{" + text[begin + 1 :])
    except (ValueError, RecursionError):
        return {}
    return found


def _outside_strings(text: str) -> int:
    """A place near the beginning of text that is outside of any string, given that the end is: whether the beginning
    is inside of one is told by whether the number of quotes is odd."""
    cut_escape = _escapes.match(text)
    at = cut_escape.end() if cut_escape else 0
    quotes = text[at:].replace("\\\\", "").replace('\\"', "").count('"')
    if quotes % 2:
        return _string_rest.match(text, at).end()
    return at
