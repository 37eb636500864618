"""ASGI middleware that writes an audit record of each inference to JSON lines files, as docs/RECORDS.md says.

    vllm serve MODEL --middleware auditchain_asgi.AuditMiddleware

It is configured by environment variables, AUDITCHAIN_DIR and AUDITCHAIN_HMAC_KEY at least (settings.py).

Life of a request: middleware.py sees by endpoints.py that it is to be recorded; source.py gives it a number, which state.py keeps where
a kill does not reach it; exchange.py watches the messages that pass, and has capture.py (content.py too, if asked for) take what is
needed of both bodies. When the last part has gone to the client, record.py makes the line, with what bodies.py reads off the bodies, and
source.py's thread has lines.py append it. Of a process that was killed amidst this, died.py tells, in the next process.

Beside that: model.py, checksum.py, sums.py and weights.py know what is served; http1.py, wire.py, lifespan.py, upstream.py, proxy.py and
__main__.py are the reverse proxy; shipped.py and fluentbit.py delete files that have arrived.
"""

from .middleware import AuditMiddleware

__all__ = ["AuditMiddleware"]
