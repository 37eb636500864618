"""Hashes of bodies and of users."""

from __future__ import annotations

import hashlib
import hmac


class Digests:
    def __init__(self, key: bytes, keyed: bool) -> None:
        self._mac = hmac.new(key, digestmod="sha256")
        self._keyed = keyed
        self._prefix = "hmac-sha256:" if keyed else "sha256:"

    def new(self):
        """A running hash of a body."""
        return self._mac.copy() if self._keyed else hashlib.sha256()

    def written(self, running) -> str:
        return self._prefix + running.hexdigest()

    def of(self, data: bytes) -> str:
        running = self.new()
        running.update(data)
        return self.written(running)

    def pseudonym(self, kind: str, name: bytes) -> str:
        """Who asked, always keyed, for names and keys are few enough to be guessed from a plain hash."""
        mac = self._mac.copy()
        mac.update(name)
        return f"{kind}:hmac-sha256:{mac.hexdigest()}"
