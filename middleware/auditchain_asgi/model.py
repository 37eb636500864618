"""Which models are served, and their checksums, which a thread computes while requests are served already."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import pathlib
import re
import threading
from typing import Callable, Optional

from . import checksum
from .sums import Sums

# How many models and adapters may be named, and how many adapters may be loaded later.
MAX_MODELS = 1000

_LORA = "lora/"
_GIVEN = re.compile("sha256:[0-9a-f]{64}")

_log = logging.getLogger(__name__)


class _Model:
    """A model or an adapter. Guarded by Models' lock."""

    def __init__(
        self, name: Optional[str], lora: bool, path: Optional[str], checksum: Optional[str] = None, error: Optional[str] = None
    ) -> None:
        self.name = name
        self.lora = lora
        self.path = path
        self.checksum = checksum
        self.error = error

    def describe(self) -> dict:
        text: dict = {} if self.name is None else {"name": self.name}
        text["checksum"] = self.checksum
        if self.error is not None:
            text["error"] = self.error
        if self.lora:
            text["lora"] = True
        return text


class Models:
    """The models that are served.

    spec names them, separated by commas, each as

        /models/llama                   a directory or a file, for every model id that has no name of its own here
        llama-3.1-8b=/models/llama      for this model id
        llama-3.1-8b=sha256:<64 hex>    computed elsewhere, by `auditchain model-checksum`
        lora/support=/adapters/support  the adapter that is served by the id "support"

    What begins with "/" or "." has no name, so that a path may have a "=". ValueError says what is wrong with a spec.
    """

    def __init__(self, spec: str, cache_dir: pathlib.Path, changed: Callable[[], None]) -> None:
        """changed() is called, from the thread, whenever a checksum has become known or cannot be."""
        self._cache_dir = cache_dir
        self._changed = changed
        self._lock = threading.Condition()
        self._bases: dict[Optional[str], _Model] = {}
        self._loras: dict[Optional[str], _Model] = {}
        for model in _parse(spec):
            into = self._loras if model.lora else self._bases
            if model.name in into:
                raise ValueError(f"models: two of them are for {'any id' if model.name is None else repr(model.name)}")
            into[model.name] = model
        self._todo = collections.deque(m for m in (*self._bases.values(), *self._loras.values()) if m.path is not None)

    def start(self) -> None:
        """Starts the thread. It ends with the process."""
        threading.Thread(target=self._run, name="auditchain-models", daemon=True).start()

    def checksum(self, model_id: Optional[str]) -> Optional[str]:
        """The checksum of the model with this id, of an adapter that of the base; None if it is not known."""
        with self._lock:
            base = self._bases.get(model_id) or self._bases.get(None)
            if base is None and model_id in self._loras and len(self._bases) == 1:
                base = next(iter(self._bases.values()))
            return base.checksum if base else None

    def lora(self, model_id: Optional[str]) -> Optional[tuple[str, Optional[str]]]:
        """Name and checksum of the adapter with this id; None if it is none."""
        with self._lock:
            model = self._loras.get(model_id)
            return (model.name, model.checksum) if model and model.name else None

    def load_lora(self, name: str, path: str) -> None:
        """An adapter was loaded, in place of one that had this name."""
        model = _Model(name, True, _absolute(path))
        with self._lock:
            if name not in self._loras and len(self._loras) >= MAX_MODELS:
                _log.warning("adapter %r is not known to records: there are %d already", name, MAX_MODELS)
                return
            self._loras[name] = model
            self._todo.append(model)
            self._lock.notify()

    def unload_lora(self, name: str) -> None:
        with self._lock:
            self._loras.pop(name, None)

    def invalidate(self) -> None:
        """The weights that are served are not those on the disk any more. Adapters are as they were."""
        with self._lock:
            for name in self._bases:
                self._bases[name] = _Model(name, False, None, error="the weights were changed while they were served")

    def describe(self) -> list[dict]:
        """What is known, for source events."""
        with self._lock:
            return [m.describe() for m in (*self._bases.values(), *self._loras.values())]

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._todo)
                model = self._todo.popleft()
                if not self._served(model):
                    continue
            self._compute(model)

    def _compute(self, model: _Model) -> None:
        assert model.path is not None
        found, error = None, None
        try:
            with Sums(self._cache_dir) as sums:
                found = checksum.checksum(model.path, sums)
        except Exception as e:  # whatever it is, it is about this model, and the next one is still to be computed
            error = str(e).encode("utf-8", "backslashreplace").decode() or type(e).__name__
            named_by = "AUDITCHAIN_MODEL or load_lora_adapter" if model.lora else "AUDITCHAIN_MODEL"
            name = "for any id" if model.name is None else repr(model.name)
            _log.error("auditchain: %s: the checksum of the model %s is not known, and its records lack it: %r", named_by, name, error)
        with self._lock:
            if not self._served(model):
                return
            model.checksum, model.error = found, error
        try:
            self._changed()
        except Exception:
            _log.exception("saying that a model's checksum has changed")

    def _served(self, model: _Model) -> bool:
        """Whether the model is still what is served by its name."""
        return (self._loras if model.lora else self._bases).get(model.name) is model


def _parse(spec: str) -> list[_Model]:
    if not spec:
        return []
    parts = spec.split(",")
    if len(parts) > MAX_MODELS:
        raise ValueError(f"models: {len(parts)} are named, at most {MAX_MODELS} may be")
    return [_parse_one(part.strip()) for part in parts]


def _parse_one(part: str) -> _Model:
    name, equals, source = part.partition("=")
    if not equals or part.startswith(("/", ".")):
        name, source = "", part
    elif not name or name == _LORA:
        raise ValueError(f"models: {part!r} has no name before the =")
    if not source:
        raise ValueError(f"models: {part!r} names no directory, file or checksum")
    if source.startswith("sha256:") and not _GIVEN.fullmatch(source):
        raise ValueError(f"models: {source!r} is not sha256: and 64 digits of 0-9a-f")
    if not name and source.startswith(_LORA):
        raise ValueError(f"models: the adapter {part!r} is written {_LORA}NAME=DIRECTORY")
    if not name.isprintable():
        raise ValueError(f"models: the name {name!r} is not plain text")
    lora = name.startswith(_LORA)
    name = name[len(_LORA):] if lora else name
    if _GIVEN.fullmatch(source):
        return _Model(name or None, lora, None, source)
    return _Model(name or None, lora, _absolute(source))


def _absolute(path: str) -> str:
    """The path from the root on, not cleaned: where there are links that may lead elsewhere."""
    return os.path.join(os.getcwd(), path)
