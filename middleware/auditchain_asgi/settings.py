"""Settings, from AUDITCHAIN_* environment variables."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Mapping, Optional, Tuple

_PREFIX = "AUDITCHAIN_"
_KEY_BYTES_MIN = 16
_KEY_FILE_MAX = 64 << 10
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

ENDPOINTS = (
    "/v1/chat/completions,/v1/completions,/v1/responses,/v1/embeddings,/v1/score,/v1/rerank,/v1/messages,"
    "/v1/audio/transcriptions,/v1/audio/translations,/v2/embed,/v2/rerank,/pooling,/classify,/score,/rerank,"
    "/tokenize,/detokenize,/invocations,/generative_scoring,/inference/v1/generate,/generate"
)


class SettingsError(Exception):
    """One line that names the key and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Settings:
    dir: pathlib.Path
    key: bytes = dataclasses.field(repr=False)
    model: str
    model_id: Optional[str]
    hash: str  # body, content, hmac-body or hmac-content
    payload: bool
    payload_limit: int  # bytes of each of input and output
    timeout: Optional[float]  # seconds
    endpoints: Tuple[str, ...]
    deny: bool  # refuse requests while records cannot be written
    heartbeat: int  # seconds
    file_size: int  # bytes
    queue_limit: int  # bytes of lines not yet written

    @property
    def content(self) -> bool:
        return self.hash.endswith("content")

    @property
    def keyed(self) -> bool:
        return self.hash.startswith("hmac-")

    def describe(self) -> dict:
        """What shapes the records, for the source's start event."""
        return {
            "hash": self.hash,
            "payload": self.payload,
            "payload_limit": self.payload_limit,
            "timeout_s": self.timeout,
            "endpoints": list(self.endpoints),
            "on_failure": "deny" if self.deny else "allow",
            "file_size": self.file_size,
            "queue_limit": self.queue_limit,
        }


def read(environ: Mapping[str, str]) -> Settings:
    """Reads the settings; SettingsError names the first key that is wrong."""
    directory = _required(environ, "DIR")
    if not pathlib.Path(directory).is_absolute():
        raise SettingsError(f"{_PREFIX}DIR: {directory!r} is not an absolute path")
    endpoints = tuple(p.strip() for p in _get(environ, "ENDPOINTS", ENDPOINTS).split(",") if p.strip())
    for pattern in endpoints:
        if not pattern.startswith(("/", "*")):
            raise SettingsError(f"{_PREFIX}ENDPOINTS: {pattern!r} does not begin with / or *")
    return Settings(
        dir=pathlib.Path(directory),
        key=_key(_required(environ, "HMAC_KEY")),
        model=_get(environ, "MODEL", ""),
        model_id=_get(environ, "MODEL_ID", "") or None,
        hash=_one_of(environ, "HASH", ("body", "content", "hmac-body", "hmac-content")),
        payload=_one_of(environ, "PAYLOAD", ("off", "on")) == "on",
        payload_limit=_size(environ, "PAYLOAD_LIMIT", "1M", 1000, 5 * 1000**2),
        timeout=_seconds(environ, "TIMEOUT", "", 1, 86400),
        endpoints=endpoints,
        deny=_one_of(environ, "ON_FAILURE", ("allow", "deny")) == "deny",
        heartbeat=_seconds(environ, "HEARTBEAT", "60s", 1, 86400),
        file_size=_size(environ, "FILE_SIZE", "64M", 1000, 10 * 1000**3),
        queue_limit=_size(environ, "QUEUE_LIMIT", "64M", 1000, 10 * 1000**3),
    )


# What Fluent Bit's configurations on both hosts take from the environment under the same prefix.
_FLUENT_BIT = frozenset("AGGREGATOR BUCKET CHAIN ENDPOINT REGION RETENTION".split())

KNOWN = frozenset(
    "DIR HMAC_KEY MODEL MODEL_ID HASH PAYLOAD PAYLOAD_LIMIT TIMEOUT ENDPOINTS ON_FAILURE HEARTBEAT FILE_SIZE QUEUE_LIMIT".split()
)


def unknown(environ: Mapping[str, str]) -> list:
    """The names of variables that look like settings and are none."""
    return sorted(n for n in environ if n.startswith(_PREFIX) and n[len(_PREFIX) :] not in KNOWN | _FLUENT_BIT)


def _get(environ: Mapping[str, str], name: str, default: str) -> str:
    return environ.get(_PREFIX + name, "").strip() or default


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(_PREFIX + name, "")
    if not value.strip():
        raise SettingsError(f"{_PREFIX}{name}: missing")
    return value


def _one_of(environ: Mapping[str, str], name: str, values: Tuple[str, ...]) -> str:
    value = _get(environ, name, values[0])
    if value not in values:
        raise SettingsError(f"{_PREFIX}{name}: {value!r} is none of {', '.join(values)}")
    return value


def _size(environ: Mapping[str, str], name: str, default: str, least: int, most: int) -> int:
    value = _get(environ, name, default)
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", value, re.ASCII)
    if not match:
        raise SettingsError(f"{_PREFIX}{name}: {value!r} is no size like 500K, 64M or 10G")
    size = int(match[1]) * _UNITS[match[2]]
    if not least <= size <= most:
        raise SettingsError(f"{_PREFIX}{name}: {value!r} is not between {least} and {most} bytes")
    return size


def _seconds(environ: Mapping[str, str], name: str, default: str, least: int, most: int) -> Optional[int]:
    value = _get(environ, name, default)
    if not value:
        return None
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", value, re.ASCII)
    if not match:
        raise SettingsError(f"{_PREFIX}{name}: {value!r} is no time like 60s, 10m or 1h")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not least <= seconds <= most:
        raise SettingsError(f"{_PREFIX}{name}: {value!r} is not between {least} and {most} seconds")
    return seconds


def _key(value: str) -> bytes:
    key = value.encode("utf-8", "surrogateescape")
    if value[0] == "/" or value[0].isspace():  # a path that is known would be no secret
        raise SettingsError(f"{_PREFIX}HMAC_KEY: begins with / or white space; a file that holds the key is written file:/path")
    if value.startswith("file:"):
        try:
            with open(value[len("file:") :], "rb") as file:
                key = file.read(_KEY_FILE_MAX + 1)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{_PREFIX}HMAC_KEY: {error}") from None
        if len(key) > _KEY_FILE_MAX:
            raise SettingsError(f"{_PREFIX}HMAC_KEY: the file is longer than {_KEY_FILE_MAX} bytes")
        if key.endswith(b"\n"):
            key = key[:-1]
    if len(key) < _KEY_BYTES_MIN:
        raise SettingsError(f"{_PREFIX}HMAC_KEY: has {len(key)} bytes, needs {_KEY_BYTES_MIN} or more")
    return key
