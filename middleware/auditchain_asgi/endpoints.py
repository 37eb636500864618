"""Which requests are recorded."""

from __future__ import annotations

import re
from typing import Iterable, List, NamedTuple, Optional

INFERENCE = "inference"
MODEL_CHANGE = "model_change"

LOAD_LORA = frozenset(("/v1/load_lora_adapter", "/load_lora_adapter"))
UNLOAD_LORA = frozenset(("/v1/unload_lora_adapter", "/unload_lora_adapter"))
UPDATE_WEIGHTS = frozenset(
    (
        "/update_weights",
        "/update_weights_from_disk",
        "/update_weights_from_tensor",
        "/update_weights_from_distributed",
    )
)
_BLANK = "/ \t\n\v\f\r\0"
_behind = re.compile("[;#?]")
_CHANGES = LOAD_LORA | UNLOAD_LORA | UPDATE_WEIGHTS


class Match(NamedTuple):
    operation: str
    path: str  # the loose form by which it was found


class Endpoints:
    """Patterns of paths in which * stands for any characters.

    Compared are loose forms: other servers take other paths for the same, and a record of one that this server does
    not know does no harm.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact = frozenset(_loose(p) for p in patterns if "*" not in p)
        globs = [".*".join(map(re.escape, p.lower().split("*"))) for p in patterns if "*" in p]
        self._globs = re.compile("|".join(globs), re.DOTALL) if globs else None

    def match(self, scope: dict) -> Optional[Match]:
        """What a POST request does; None if it is not recorded."""
        for path in paths(scope):
            loose = _loose(path)
            if loose in _CHANGES:
                return Match(MODEL_CHANGE, loose)
            if loose in self._exact or self._globs and (self._globs.fullmatch(loose) or self._globs.fullmatch(path.lower())):
                return Match(INFERENCE, loose)
        return None


def paths(scope: dict) -> List[str]:
    """The paths for which the application may take a request: servers and frameworks, by their age, do not agree on
    whether the prefix at which the application is mounted (root_path) is a part of the path."""
    path, root = scope["path"], (scope.get("root_path") or "").rstrip("/")
    if not root:
        return [path]
    found = [path, root + path]
    if path.startswith(root + "/"):
        found.append(path[len(root) :])
    return found


def _loose(path: str) -> str:
    return _behind.split(path, 1)[0].rstrip(_BLANK).lower()
