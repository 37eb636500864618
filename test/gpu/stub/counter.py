"""Counts requests as prometheus-fastapi-instrumentator does in vLLM: the innermost layer, so without what authentication refuses."""

import collections
import os


class Counter:
    """Counts into a file that all workers append to; as with vLLM's PROMETHEUS_MULTIPROC_DIR, what was counted outlives a worker."""

    def __init__(self, app, path):
        self.app = app
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] in ("/metrics", "/health"):
            return await self.app(scope, receive, send)
        status = 500

        async def noting(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            os.write(self.file, f"{scope['path']} {scope['method']} {status // 100}xx\n".encode())


def page(path):
    """The counts in Prometheus's text format."""
    with open(path, encoding="utf-8") as file:
        counts = collections.Counter(file)
    lines = [
        "# HELP http_requests_total Total number of requests by method, status and handler.",
        "# TYPE http_requests_total counter",
    ]
    for line, count in sorted(counts.items()):
        handler, method, status = line.split()
        lines.append(f'http_requests_total{{handler="{handler}",method="{method}",status="{status}"}} {float(count)}')
    return "\n".join(lines) + "\n"
