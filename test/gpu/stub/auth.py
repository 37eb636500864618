"""Asks for an API key below /v1, as vLLM's own authentication does: a pure ASGI layer inside of --middleware."""

from starlette.responses import JSONResponse


class Authentication:
    def __init__(self, app, keys):
        self.app = app
        self.accepted = {f"Bearer {key}".encode() for key in keys}

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization")
            if given not in self.accepted:
                return await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
        await self.app(scope, receive, send)
