"""The counters of all processes that share a directory, for Prometheus: whichever of them is asked."""

from __future__ import annotations

import pathlib

from . import state

PATH = "/auditchain/metrics"
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "served": ("counter", "Requests that took a number."),
    "recorded": ("counter", "Records written to the files."),
    "lost": ("counter", "Records that could not be written and never will."),
    "failures": ("counter", "Writes that failed, each attempt."),
    "open": ("gauge", "Requests without a record so far."),
}


def exposition(directory: pathlib.Path) -> bytes:
    sources = state.counters(directory)
    text = []
    for name, (kind, meaning) in _HELP.items():
        metric = f"auditchain_{name}" + ("_total" if kind == "counter" else "")
        text.append(f"# HELP {metric} {meaning}\n# TYPE {metric} {kind}\n")
        for source_id, counters in sources.items():  # of letters, digits and a few signs, none of which has to be escaped
            text.append(f'{metric}{{source="{source_id}"}} {counters[name]}\n')
    return "".join(text).encode()
