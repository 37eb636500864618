"""The ASGI lifespan of an application: it is told when the server starts and ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Optional

_log = logging.getLogger(__name__)

# How long an application may take to start or to end, in seconds.
TIMEOUT = 60.0


class Lifespan:
    def __init__(self, app: Any) -> None:
        self._app = app
        self._to_app: asyncio.Queue[dict] = asyncio.Queue()
        self._answers: asyncio.Queue[dict] = asyncio.Queue()
        self._task: Optional[asyncio.Task[None]] = None

    async def startup(self) -> None:
        """RuntimeError if the application cannot start. One that knows no lifespan starts without it."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        answer = await self._ask("lifespan.startup")
        if answer is not None and answer["type"] == "lifespan.startup.failed":
            raise RuntimeError(f"the application does not start: {answer.get('message', '')}")

    async def shutdown(self) -> None:
        if self._task is None or self._task.done():
            return
        answer = await self._ask("lifespan.shutdown")
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            _log.error("the application did not end well: %s", answer.get("message", ""))
        self._task.cancel()

    async def _ask(self, question: str) -> Optional[dict]:
        """The application's answer; None if it gives none."""
        assert self._task is not None
        self._to_app.put_nowait({"type": question})
        answer = asyncio.ensure_future(self._answers.get())
        done, _ = await asyncio.wait({answer, self._task}, timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        answer.cancel()
        if self._task not in done:
            raise RuntimeError(f"the application did not answer {question} within {TIMEOUT:g} s")
        return None

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.3"}, "state": {}}
        try:
            await self._app(scope, self._to_app.get, self._answers.put)
        except Exception as e:
            _log.debug("the application has no lifespan: %r", e)
