"""What is written about a process that was killed, by the next that comes by."""

from __future__ import annotations

import logging
import pathlib
import re
import time
from typing import Callable, Dict, Iterator, List, Set, Tuple

from . import endpoints, lines, state, writing

_PIECE = 256 << 10  # bytes that are searched at a time, so that other threads get their turn

_log = logging.getLogger(__name__)


class Finder:
    """Looks for dead processes' state files in a directory."""

    def __init__(self, directory: pathlib.Path, name: str, source_id: str) -> None:
        """name is that of our own state file, which is never looked at: over NFS that would give up its lock."""
        self._directory = directory
        self._own = directory / (name + state.SUFFIX)
        self._source_id = source_id
        self._complained: Set[pathlib.Path] = set()

    def look(self, write: Callable[[bytes], None]) -> None:
        """Writes what is to be said about each dead process. write returns when its lines are durable; only then the
        state file goes. A crash in between leaves it, and the next that comes by writes the same bytes again."""
        state.sweep(self._directory)
        for path in sorted(self._directory.glob("*" + state.SUFFIX)):
            if path == self._own:
                continue
            try:
                self._look_at(path, write)
            except Exception as error:  # whatever is the matter with a dead one, the living have to go on
                if path not in self._complained:
                    self._complained.add(path)
                    _log.error("auditchain: nothing can be said of the dead process of %s: %s", path, error)

    def _look_at(self, path: pathlib.Path, write: Callable[[bytes], None]) -> None:
        dead = state.State.take(path)
        if dead is None:
            return
        try:
            if not dead["stopped"]:
                count = len(dead.open_requests()) + dead["unslotted"]
                _log.warning("auditchain: %s was killed with %d requests open", dead.source_id, count)
                write(b"".join(self._say(dead)))
            dead.remove()
        finally:
            dead.close()

    def _say(self, dead: state.State) -> List[bytes]:
        if not dead.finder:
            # Who comes after us, should we be killed too, must not say anything else under the same numbers.
            dead["found_us"] = time.time_ns() // 1000
            dead.finder = self._source_id
            dead.sync()
        asked = {r.seq: r for r in dead.open_requests()}
        events = dead["events"]
        served = max([dead["served"], *(seq + 1 for seq in asked)])
        written = _written(self._directory, dead, served, asked)
        served = max([served, written.served, *(seq + 1 for seq in written.records)])
        said = [_server_died(dead.source_id, asked[seq]) for seq in asked if seq not in written.records]
        # The process was killed between writing an event and counting it; or the machine crashed.
        events = max([events, *(seq + 1 for seq in written.events)])
        unknown = dead["unslotted"]  # nothing can be said of them
        # A crash of the machine has set the state back: neither can it of what came since, unless it is written.
        since = {seq for seq in (*asked, *written.records) if seq >= dead["served"]}
        unknown += max(served - dead["served"], 0) - len(since)
        said.append(
            writing.line(
                {
                    "timestamp": writing.timestamp(dead["found_us"]),
                    "source": writing.source(dead.source_id + "/events", events),
                    "source_event": "died",
                    "of": dead.source_id,
                    "served": served,
                    "recorded": served - dead["lost"] - unknown,
                    "lost": dead["lost"],
                    "open": [],
                    "reported_by": dead.finder,
                }
            )
        )
        return said


def _server_died(source_id: str, request: state.Open) -> bytes:
    return writing.line(
        {
            "request_id": writing.uuid_text(request.request_id),
            "timestamp": writing.timestamp(request.arrived_us),
            "model_id": None,
            "model_checksum": None,
            "input_hash": None,
            "output_hash": None,
            "user_id": None,
            "input_tokens": None,
            "output_tokens": None,
            "latency_ms": None,
            "status": "server_died",
            "source": writing.source(source_id, request.seq),
            "endpoint": writing.text(request.path),
            "operation": endpoints.MODEL_CHANGE if request.model_change else endpoints.INFERENCE,
        }
    )


class _Written:
    """Numbers that are in whole lines."""

    def __init__(self) -> None:
        self.records: Set[int] = set()
        self.events: Set[int] = set()
        self.served = 0  # as the events say


def _written(directory: pathlib.Path, dead: state.State, served: int, asked: Dict[int, state.Open]) -> _Written:
    """Of the numbers that the state does not know to be written those that are. They can only be in the last two
    files, or, after a crash of the machine, which sets the state back, in those that were written since a request came."""
    found = _Written()
    records = writing.source_mark(dead.source_id)
    events = writing.source_mark(dead.source_id + "/events")
    paths = sorted(directory.glob(f"{dead.path.stem}-*{lines.SUFFIX}"))
    oldest = min((r.arrived_us for r in asked.values()), default=dead["found_us"]) / 1e6
    for path in [p for p in paths[:-2] if p.stat().st_mtime >= oldest] + paths[-2:]:
        for seq, _ in _numbers(path, records):
            if seq >= served or seq in asked:
                found.records.add(seq)
        for seq, behind in _numbers(path, events):
            if seq >= dead["events"]:
                found.events.add(seq)
                said = _served(behind)
                found.served = max(found.served, int(said[1]) if said else 0)
    return found


_BEHIND = 1024  # bytes behind a number that are looked into
_served = re.compile(rb'\},"source_event":"[a-z_]+","of":"[^"]*","served":([0-9]{1,15}),').match


def _numbers(path: pathlib.Path, mark: bytes) -> Iterator[Tuple[int, bytes]]:
    """The numbers that follow the mark in whole lines, each with what stands behind it."""
    with open(path, "rb", buffering=0) as file:
        rest = b""
        while True:
            piece = file.read(_PIECE)
            if not piece:
                return
            # Only what ends with a newline is a line. Of a long one its end, where the mark may stand, is enough.
            end = piece.rfind(b"\n") + 1
            if not end:
                rest += piece
                continue
            whole, rest = rest + piece[:end], piece[end:]
            at = whole.find(mark)
            while at >= 0:
                begin = at + len(mark)
                end = whole.index(b"}", begin)
                yield int(whole[begin:end]), whole[end : end + _BEHIND]
                at = whole.find(mark, begin)
