"""python -m auditchain_asgi: a reverse proxy that records what passes through it, for model servers that take no ASGI middleware."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from . import AuditMiddleware
from .http1 import Server, serve
from .proxy import Proxy
from .upstream import Upstream


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m auditchain_asgi",
        description="A reverse proxy that records the inferences that pass through it, for model servers that take no ASGI middleware. "
        "What is recorded is set by AUDITCHAIN_* in the environment. WebSocket is refused. "
        "Let clients reach the model server through it alone: what does not pass it is not recorded.",
    )
    parser.add_argument("--upstream", required=True, metavar="URL", help="the model server: http://127.0.0.1:8000, or https://...")
    parser.add_argument("--listen", default="127.0.0.1:8001", metavar="HOST:PORT", help="where clients connect (default: %(default)s)")
    parser.add_argument("--grace", type=float, default=30, metavar="SECONDS", help="how long requests may still run after SIGTERM (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        host, port = _address(arguments.listen)
        app = AuditMiddleware(Proxy(Upstream(arguments.upstream)))
        asyncio.run(serve(app, host, port, arguments.grace, _started))
    except (ValueError, OSError, RuntimeError) as e:
        print(f"auditchain_asgi: {e}", file=sys.stderr)
        return 2
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"--listen {text!r} is not like 127.0.0.1:8001")
    return host.strip("[]"), int(port)


def _started(server: Server) -> None:
    host, port = server.address
    logging.getLogger(__name__).info("listening on %s", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


if __name__ == "__main__":
    sys.exit(main())
