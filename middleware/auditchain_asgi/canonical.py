"""Canonical JSON, RFC 8785."""

from __future__ import annotations

import json
import math
from json.encoder import encode_basestring as _quote
from typing import Any, List

_EXACT = 1 << 53  # integers up to here are doubles
_MARKS = 100_000  # commas, colons and opening brackets read: some 20 ms
_PIECES = 40_000  # pieces written, some two for each value: as long; a list of nothing but integers is one piece


def parse(text: str) -> Any:
    """Reads I-JSON (RFC 7493). ValueError or RecursionError if it is none: what has no one meaning has no canonical form.
    ValueError also for more values than can be read without holding up the event loop."""
    if _too_many(text):
        raise ValueError("too many values")
    return _decoder.decode(text)


def encode(value: Any) -> bytes:
    """The canonical form of what parse returned. ValueError for numbers and strings that have none, and for more values
    than can be written without holding up the event loop."""
    out: List[str] = []
    _write(value, out)
    return "".join(out).encode("utf-8")  # refuses lone surrogates


def _too_many(text: str) -> bool:
    if sum(map(text.count, ",:[{")) <= _MARKS:
        return False
    # Most may stand in strings. Without escaped quotes every second one ends a string.
    plain = text.replace("\\\\", "").replace('\\"', "")
    if plain.count('"') > 2 * _MARKS:
        return True
    outside = "".join(plain.split('"')[::2])
    return sum(map(outside.count, ",:[{")) > _MARKS


def _unique(pairs: list) -> dict:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)


def _write(value: Any, out: List[str]) -> None:
    put = out.append
    if isinstance(value, str):
        put(_quote(value))
    elif isinstance(value, dict):
        _room(value, out)
        separator = "{"
        for key in sorted(value) if "".join(value).isascii() else sorted(value, key=_utf16):
            member = value[key]
            if isinstance(member, str):  # most are
                put(f"{separator}{_quote(key)}:{_quote(member)}")
            else:
                put(f"{separator}{_quote(key)}:")
                _write(member, out)
            separator = ","
        put("}" if value else "{}")
    elif value is None or value is True or value is False:
        put("null" if value is None else "true" if value else "false")
    elif isinstance(value, (int, float)):
        put(number(value))
    elif _small_integers(value):  # token ids, by the thousand
        put(repr(value).replace(" ", ""))
    else:
        _room(value, out)
        separator = "["
        for item in value:
            put(separator)
            _write(item, out)
            separator = ","
        put("]" if value else "[]")


def _room(container: Any, out: List[str]) -> None:
    if len(out) + 2 * len(container) > _PIECES:
        raise ValueError("too many values")


def _small_integers(values: list) -> bool:
    return set(map(type, values)) == {int} and -_EXACT <= min(values) and max(values) <= _EXACT


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be", "surrogatepass")


def number(value: float) -> str:
    """A number as ECMAScript writes it: the double's shortest digits, which are Python's too, in another layout."""
    if isinstance(value, int):
        if -_EXACT <= value <= _EXACT:
            return str(value)
        try:
            value = float(value)
        except OverflowError:
            raise ValueError("number out of range") from None
    if not math.isfinite(value):
        raise ValueError("number out of range")
    if value == 0:
        return "0"
    written = repr(value)
    if "e" not in written:  # most are
        return written[:-2] if written.endswith(".0") else written
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = written.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent)  # where the point stands, counted from the first digit
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.strip("0")
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits + "0" * (point - len(digits))
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"
