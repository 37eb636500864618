"""The stub's application: vLLM's endpoints, its errors, and what becomes of a client that leaves.

A member `stub` of a request's body steers what happens to it:
  delay   seconds until the answer begins
  pace    seconds between the parts of a stream
  status  an error with this status instead of an answer
  raise   an exception instead of an answer
  after   of a stream, after how many tokens the error of `status`, or the exception, comes
"""

import asyncio
import ctypes
import importlib
import json
import os
import signal
import uuid

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

import chat
import completions
import counter
import embeddings
import responses
from auth import Authentication
from serve import SETTINGS

PR_SET_PDEATHSIG = 1
ERRORS = {400: "BadRequestError", 404: "NotFoundError", 422: "UnprocessableEntityError"}


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status

    def body(self):
        kind = ERRORS.get(self.status, "InternalServerError")
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.status}}


def create():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no worker outlives the first process
    settings = json.loads(os.environ[SETTINGS])
    app = FastAPI()
    models = {settings["served_model_name"]}
    for path, kind in {
        "/v1/chat/completions": chat,
        "/v1/completions": completions,
        "/v1/embeddings": embeddings,
        "/v1/responses": responses,
    }.items():
        app.post(path)(endpoint(kind, models))

    @app.get("/health")
    async def health():
        return Response()

    @app.get("/v1/models")
    async def list_models():
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "vllm"} for name in sorted(models)]}

    @app.get("/metrics")
    async def metrics():
        return PlainTextResponse(counter.page(settings["requests"]))

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request):
        name = (await request.json())["lora_name"]
        if name in models:
            return JSONResponse(Refused(400, f"The lora adapter '{name}' has already been loaded.").body(), 400)
        models.add(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request):
        name = (await request.json())["lora_name"]
        models.discard(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    @app.post("/update_weights")
    async def update_weights(request: Request):
        await request.body()
        return {"message": "Weights updated"}

    app.add_middleware(counter.Counter, path=settings["requests"])
    if settings["api_key"]:
        app.add_middleware(Authentication, keys=settings["api_key"])
    for path in settings["middleware"]:
        module, name = path.rsplit(".", 1)
        app.add_middleware(getattr(importlib.import_module(module), name))
    return app


def endpoint(kind, models):
    """Handles one kind of request; kind makes its answers."""

    async def handle(request: Request):
        try:
            body = json.loads(await request.body())
        except ValueError as error:
            return JSONResponse(Refused(400, f"JSON decode error: {error}").body(), 400)
        model = body.get("model")
        if model not in models:
            return JSONResponse(Refused(404, f"The model `{model}` does not exist.").body(), 404)
        steer = body.get("stub", {})
        name = f"{kind.PREFIX}-{request.headers.get('X-Request-Id') or uuid.uuid4().hex}"
        if not body.get("stream"):
            return await until_gone(request, answer(kind, name, body, steer))
        if "after" not in steer:
            await asyncio.sleep(steer.get("delay", 0))
            try:
                fail(steer)
            except Refused as refused:
                return JSONResponse(refused.body(), refused.status)
        return StreamingResponse(stream(kind, name, body, steer), media_type="text/event-stream")

    return handle


async def answer(kind, name, body, steer):
    await asyncio.sleep(steer.get("delay", 0))
    try:
        fail(steer)
    except Refused as refused:
        return JSONResponse(refused.body(), refused.status)
    return JSONResponse(kind.whole(name, body))


async def stream(kind, name, body, steer):
    sent = 0
    try:
        for part in kind.parts(name, body):
            if sent == steer.get("after"):
                fail(steer)
            yield part
            sent += 1
            await asyncio.sleep(steer.get("pace", 0))
    except Refused as refused:
        yield f"data: {json.dumps(refused.body())}\n\n"
        yield "data: [DONE]\n\n"


def fail(steer):
    if "raise" in steer:
        raise RuntimeError(steer["raise"])
    if "status" in steer:
        raise Refused(steer["status"], "asked for by the client")


async def until_gone(request, work):
    """Gives up when the client goes, as vLLM's with_cancellation does: then FastAPI answers nobody with 200 and null."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(left(request))
    done, pending = await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return working.result() if working in done else None


async def left(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass
