"""ASGI middleware that writes an audit record of each inference to JSON lines files, as docs/RECORDS.md says.

    vllm serve MODEL --middleware auditchain_asgi.AuditMiddleware

It is configured by environment variables, AUDITCHAIN_DIR and AUDITCHAIN_HMAC_KEY at least (settings.py).
"""

from .middleware import AuditMiddleware

__all__ = ["AuditMiddleware"]
