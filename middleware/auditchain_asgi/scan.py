"""Members of a JSON object of which only the beginning and the end are at hand.

Bodies can be megabytes long, and reading them whole would hold up the event loop. What is looked for (model, user,
usage) nearly always stands before or behind the one long member.
"""

from __future__ import annotations

import json
import re
from typing import Tuple

_TOKENS = 4000  # quotes and brackets looked at in an end
_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*").match
_token = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_string_rest = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_escapes = re.compile(r"\\+.?", re.DOTALL)


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
            if comma >= 0:
                begin = comma
        gap_end = token.start()
        mark = text[gap_end]
        if mark in "}]":
            level += 1
        elif mark in "{[":
            if level == depth:
                begin = gap_end
                break
            level -= 1
    if begin < 0:
        return {}
    try:
        members, _ = _decode("{" + text[begin + 1 :])
    except (ValueError, RecursionError):
        return {}
    return members


def _outside_strings(text: str) -> int:
    """A place near the beginning of text that is outside of any string, given that the end is: whether the beginning
    is inside of one is told by whether the number of quotes is odd."""
    cut_escape = _escapes.match(text)
    at = cut_escape.end() if cut_escape else 0
    quotes = text[at:].replace("\\\\", "").replace('\\"', "").count('"')
    if quotes % 2:
        return _string_rest.match(text, at).end()
    return at
