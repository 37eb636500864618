"""A source: the numbers of a process's requests, and the thread that writes its lines."""

from __future__ import annotations

import atexit
import collections
import itertools
import logging
import os
import pathlib
import re
import socket
import threading
import time
import uuid
from typing import Callable, Deque, Dict, List, Optional, Set, Tuple

from . import died, ids, lines, writing
from .state import State

_BATCH = 1 << 20  # bytes that are written and synced at once; a longer line goes alone
_PAUSE_S = 0.01  # after a write: each takes the interpreter from the event loop several times, so busy ones share it
_BACKOFF_S = (0.1, 5.0)  # between attempts to write: the first, and the longest
_STUCK_S = 5.0  # a write that takes so long is taken for failed
_STOP_S = 5.0  # that the end of the process waits for the disk
_LOG_S = 10.0  # between two lines of the log about the same failure
_OPEN_MAX = 1000  # open numbers in an event
_HOST_MAX = 200  # so that a source id has at most 256 bytes, its events' included

_log = logging.getLogger(__name__)


class _GaveUp(BaseException):
    """The process ends and the disk does not take the rest. Not an Exception, for those are taken for defects."""


class Source:
    """One process's numbers, state and files. Safe for use by several threads."""

    def __init__(
        self,
        directory: pathlib.Path,
        file_size: int,
        queue_limit: int,
        heartbeat: float,
        started: Callable[[], dict],
        models: Callable[[], list],
        deny: bool = False,
    ) -> None:
        """started gives what the start event says besides, models what is known of the models.

        Of the lines that wait for the disk those beyond queue_limit bytes are lost; with deny none is, and the queue
        grows beyond it by the lines of requests that run: its user asks failing, which is true from half of it on, and
        then begins no request.

        OSError if the directory cannot be written to."""
        name = str(uuid.uuid4())
        self.id = f"{_host()}/{name}"
        self.gone = False  # it takes no more requests
        self._queue_limit = queue_limit
        self._deny = deny
        self._heartbeat = heartbeat
        self._started = started
        self._models = models

        self._state = State.create(directory, name, self.id)
        self._files = lines.Files(directory, name, file_size, self._failed)
        self._finder = died.Finder(directory, name, self.id)

        # Guarded by the lock, on which the thread waits.
        self._lock = threading.Condition(threading.Lock())
        self._ids = ids.Pool()
        self._next = 0
        self._open: Dict[int, Optional[int]] = {}  # number and slot of each request whose line is not on the disk, ascending
        self._running = 0  # requests that have not ended
        self._queue: Deque[Tuple[int, bytes]] = collections.deque()
        self._queued = 0  # bytes that are not on the disk
        self._models_changed = False
        self._waiting = False
        self._stopping: Optional[float] = None  # since when
        self._loss_logged = -_LOG_S

        # The thread's own; others only look.
        self._begun = False
        self._events = 0
        self._backoff = _BACKOFF_S[0]
        self._failing_since: Optional[float] = None
        self._failure_logged = 0.0
        self._busy_since: Optional[float] = None

        self._thread = threading.Thread(target=self._run, name="auditchain-writer", daemon=True)
        _living.add(self)
        self._thread.start()

    def begin(self, arrived_us: int, model_change: bool, path: bytes) -> Optional[Tuple[int, str]]:
        """Number and id of a request that has arrived; None if the source is gone."""
        with self._lock:
            if self.gone:
                return None
            seq = self._next
            request_id = self._ids.take()
            self._open[seq] = self._state.open(seq, arrived_us, request_id, model_change, path)
            self._next = seq + 1
            self._running += 1
            self._state["served"] = seq + 1
            self._state["open"] = len(self._open)
        return seq, writing.uuid_text(request_id)

    def put(self, seq: int, line: bytes) -> None:
        """Takes the line of a request that has ended. It returns at once."""
        with self._lock:
            self._running -= 1
            if self.gone:
                return
            if self._queued and self._queued + len(line) > self._queue_limit and not self._deny:
                self._lose(seq)
                return
            self._queue.append((seq, line))
            self._queued += len(line)
            if self._waiting:
                self._lock.notify()

    def models_changed(self) -> None:
        with self._lock:
            self._models_changed = True
            self._lock.notify()

    @property
    def failing(self) -> bool:
        """Whether lines cannot be written at present, or not as fast as they come."""
        busy = self._busy_since
        stuck = busy is not None and time.monotonic() - busy > _STUCK_S
        return stuck or self._failing_since is not None or self._queued > self._queue_limit // 2

    @property
    def idle(self) -> bool:
        """Whether every request has ended."""
        return not self._running

    def stop(self) -> None:
        """Writes what is left. If every request has ended then, so has the process, in order, and leaves nothing but
        its lines; else its state stays, and whoever finds it says that it died."""
        with self._lock:
            if self._stopping is None:
                self._stopping = time.monotonic()
            self._lock.notify()
        self._thread.join(_STOP_S + 1)
        self.gone = True
        _living.discard(self)

    def abandon(self) -> None:
        """In a forked copy of the process: leaves everything to the parent."""
        self._lock = threading.Condition(threading.Lock())  # a thread that is no more may have held it
        self.gone = True
        self._state.close()

    def _lose(self, seq: int) -> None:
        self._state["lost"] += 1
        self._close(seq)
        now = time.monotonic()
        if now - self._loss_logged >= _LOG_S:
            self._loss_logged = now
            _log.error("auditchain: %d bytes wait for the disk: %d records lost so far", self._queued, self._state["lost"])

    def _close(self, seq: int) -> None:
        self._state.close_slot(self._open.pop(seq))
        self._state["open"] = len(self._open)

    # What follows runs in the thread.

    def _run(self) -> None:
        while True:
            try:
                self._work()
                return
            except _GaveUp:
                _log.error("auditchain: the process ends, and %d records are not on the disk", len(self._open))
                return
            except Exception:  # a defect: whatever it is, the next lines are to be written
                self._state["failures"] += 1
                _log.exception("auditchain: writing records")
                time.sleep(_BACKOFF_S[1])

    def _work(self) -> None:
        if not self._begun:
            self._event("start", heartbeat_s=self._heartbeat, model=self._models(), **self._started())
            self._begun = True
            self._finder.look(self._say)
        due = time.monotonic() + self._heartbeat
        while True:
            batch, models_changed, stopping = self._wait(due)
            if batch:
                self._write(batch)
                time.sleep(_PAUSE_S)
            if models_changed:
                self._event("model_checksum", model=self._models())
            if stopping:
                self._end()
                return
            if time.monotonic() >= due or self._failing_since is not None:  # the latter to see whether it still fails
                self._event("heartbeat", heartbeat_s=self._heartbeat, model=self._models())
                self._keep_state()
                self._finder.look(self._say)
                due = time.monotonic() + (self._heartbeat if self._failing_since is None else 0)

    def _wait(self, due: float) -> Tuple[List[Tuple[int, bytes]], bool, bool]:
        """Waits for something to do: lines to be written, a change of models, the end."""
        with self._lock:
            while not self._queue and not self._models_changed and self._stopping is None:
                left = due - time.monotonic()
                if left <= 0:
                    break
                self._waiting = True
                self._lock.wait(left)
                self._waiting = False
            batch: List[Tuple[int, bytes]] = []
            room = _BATCH
            while self._queue and (not batch or len(self._queue[0][1]) <= room):
                batch.append(self._queue.popleft())
                room -= len(batch[-1][1])
            changed, self._models_changed = self._models_changed, False
            stopping = self._stopping is not None and not batch
            if stopping:
                self.gone = True
            return batch, changed, stopping

    def _write(self, batch: List[Tuple[int, bytes]]) -> None:
        data = b"".join([line for _, line in batch])
        self._busy_since = time.monotonic()
        self._files.append(data)
        # The lines are with the kernel. A kill from here on leaves slots of requests that were recorded: whoever finds
        # them looks into the file.
        with self._lock:
            for seq, _ in batch:
                self._close(seq)
            self._state["recorded"] += len(batch)
            self._queued -= len(data)
        self._sync()

    def _event(self, name: str, **members: object) -> None:
        with self._lock:
            counts = {
                "served": self._next,
                "recorded": self._state["recorded"],
                "lost": self._state["lost"],
                "open": list(itertools.islice(self._open, _OPEN_MAX)),
            }
        self._busy_since = time.monotonic()
        self._files.append(
            writing.line(
                {
                    "timestamp": writing.timestamp(time.time_ns() // 1000),
                    "source": writing.source(self.id + "/events", self._events),
                    "source_event": name,
                    "of": self.id,
                    **counts,
                    **members,
                }
            )
        )
        self._events += 1
        self._state["events"] = self._events
        self._sync()

    def _say(self, data: bytes) -> None:
        """Writes lines about another process; OSError if they are not durable."""
        self._files.append(data)
        if not self._sync():
            raise OSError("could not be made durable")

    def _sync(self) -> bool:
        done = self._files.sync()
        self._busy_since = None
        if done and self._failing_since is not None:
            _log.warning("auditchain: records are written again after %.1f s", time.monotonic() - self._failing_since)
            self._failing_since = None
            self._backoff = _BACKOFF_S[0]
        return done

    def _failed(self, error: OSError) -> None:
        """Says that the disk did not take something, and waits before the next attempt."""
        now = time.monotonic()
        self._state["failures"] += 1
        if self._failing_since is None or now - self._failure_logged >= _LOG_S:
            self._failure_logged = now
            _log.error("auditchain: records cannot be written: %s; %d wait", error, len(self._open))
        if self._failing_since is None:
            self._failing_since = now
        with self._lock:
            if self._stopping is not None and now - self._stopping > _STOP_S:
                raise _GaveUp
            self._lock.wait(self._backoff)
        self._backoff = min(self._backoff * 2, _BACKOFF_S[1])

    def _keep_state(self) -> None:
        """Makes the state durable, and the file anew if somebody has deleted it."""
        try:
            self._state.sync()
            if not self._state.deleted:
                return
            new = self._state.renewed()
        except OSError as error:
            _log.error("auditchain: it may go unnoticed if this process is killed: %s: %s", self._state.path, error)
            return
        with self._lock:
            old, self._state = self._state, new
            old.copy_to(new)
        old.close()
        _log.error("auditchain: %s was deleted, and is made anew", new.path)

    def _end(self) -> None:
        if self._open:
            _log.warning("auditchain: the process ends with %d requests open", len(self._open))
            self._keep_state()
            return
        self._event("stop")
        self._state["stopped"] = 1  # whoever finds it has nothing to say
        try:
            self._state.remove()
        except OSError as error:
            _log.warning("auditchain: left behind: %s", error)
        self._state.close()
        self._files.close()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname())[:_HOST_MAX] or "localhost"


_living: Set[Source] = set()
_starting = threading.Lock()


def starting() -> threading.Lock:
    """What is held while a source is started, so that a process does not start two for one application."""
    return _starting


def _stop_all() -> None:
    for source in list(_living):
        source.stop()


def _abandon_all() -> None:
    global _starting
    _starting = threading.Lock()
    for source in _living:
        source.abandon()
    _living.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_abandon_all)
