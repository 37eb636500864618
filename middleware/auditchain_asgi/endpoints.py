"""Which requests are recorded."""

from __future__ import annotations

import re
from typing import Iterable, Optional

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
_CHANGES = LOAD_LORA | UNLOAD_LORA | UPDATE_WEIGHTS


class Endpoints:
    """Patterns of paths in which * stands for any characters."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact = frozenset(p for p in patterns if "*" not in p)
        globs = [".*".join(map(re.escape, p.split("*"))) for p in patterns if "*" in p]
        self._globs = re.compile("|".join(globs), re.DOTALL) if globs else None

    def operation(self, path: str) -> Optional[str]:
        """What a POST to the path does; None if it is not recorded."""
        if path in _CHANGES:
            return MODEL_CHANGE
        if path in self._exact or self._globs and self._globs.fullmatch(path):
            return INFERENCE
        return None


def route(scope: dict) -> str:
    """The path below the prefix at which the server was told that the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path
