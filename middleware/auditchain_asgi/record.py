"""The record of a request that has ended: docs/RECORDS.md, section 1."""

from __future__ import annotations

import base64
from typing import Optional

from . import bodies, content, endpoints, writing
from .capture import Capture
from .digests import Digests
from .model import Models
from .settings import Settings
from .weights import Weights

_LINE_MAX = 15 * 1000**2  # Fluent Bit's tail, as it is to be configured, reads lines up to 16M


class Request:
    """What is known of a request. Times are of time.perf_counter."""

    __slots__ = (
        "source_id",
        "seq",
        "request_id",
        "client_request_id",
        "arrived_us",
        "arrived",
        "path",
        "method",
        "operation",
        "content_type",
        "credential",
        "input",
        "output",
        "http_status",
        "stream",
        "streamed",
        "unseen",
        "first_part",
        "aborted",
        "ended",
        "error",
    )

    source_id: str
    seq: int
    request_id: str
    client_request_id: Optional[str]
    arrived_us: int
    arrived: float
    path: str
    method: str
    operation: str
    content_type: str
    credential: bytes
    input: Capture
    output: Capture
    http_status: Optional[int]
    stream: bool
    streamed: Optional[content.Streamed]  # where the response is a stream and its content is asked for
    unseen: bool  # the server sent a file, of which nothing is known
    first_part: Optional[float]
    aborted: Optional[float]  # when the client was seen to be gone before the last part
    ended: float
    error: Optional[str]  # class of the exception that came out of the application


class Recorder:
    """Writes records. It has no state but what is served."""

    def __init__(self, settings: Settings, digests: Digests, models: Models, weights: Weights) -> None:
        self._settings = settings
        self._digests = digests
        self._models = models
        self._weights = weights

    def streamed(self) -> Optional[content.Streamed]:
        """What takes a stream's parts to read their content; None if that is not asked for."""
        return content.Streamed(self._settings.payload_limit) if self._settings.content else None

    def line(self, request: Request) -> bytes:
        line = self._line(request, self._settings.payload_limit)
        limit = self._settings.payload_limit
        while len(line) > _LINE_MAX:  # a payload of which nearly each byte has to be escaped
            limit //= 2
            line = self._line(request, limit)
        return line

    def bare_line(self, request: Request) -> bytes:
        """A record without anything that has to be read from the bodies."""
        return writing.line({**self._known(request), **self._rest(request)})

    def _line(self, request: Request, limit: int) -> bytes:
        settings = self._settings
        asked = bodies.asked(request.input, request.content_type)
        answered = bodies.answered(request.output, request.stream)
        prompt = response = None
        if settings.content and request.input.size <= limit:
            prompt = content.of_input(request.input)
        if settings.content and request.output.size <= limit and not request.unseen:
            response = self._answer(request)
        record = self._known(request)
        record["model_id"] = model = writing.text(answered.model or asked.model or self._adapter(request, asked)) or settings.model_id
        self._weights.look()
        record["model_checksum"] = self._models.checksum(model)
        if prompt is not None:
            record["input_hash"] = self._digests.of(prompt)
        if response is not None:
            record["output_hash"] = self._digests.of(response)
        key = self._digests.pseudonym("key", request.credential) if request.credential else None
        record["user_id"] = self._user(asked, key)
        record["status"] = status = self._status(request, answered.failed)
        refused = status[0] == "4" and answered.input_tokens is None and answered.output_tokens is None
        record["input_tokens"] = 0 if refused else answered.input_tokens
        record["output_tokens"] = 0 if refused else answered.output_tokens
        record.update(self._rest(request))
        record["hash_of"] = {"input": "body" if prompt is None else "content"}
        if not request.unseen:
            record["hash_of"]["output"] = "body" if response is None else "content"
        if answered.id:
            record["response_id"] = writing.text(answered.id)
        lora = self._models.lora(model)
        if lora:
            record["lora"] = {"id": lora[0], "checksum": lora[1]}
        if key is not None:
            record["api_key"] = key
        error = request.error or answered.error
        if error:
            record["error"] = writing.text(error)
        cut = [name for name, body in (("input", request.input), ("output", request.output)) if body.size > limit]
        if cut:
            record["cut"] = cut
        if settings.payload:
            record["prompt"] = _payload(request.input, prompt, limit)
            if not request.unseen:
                record["response"] = _payload(request.output, response, limit)
        return writing.line(record)

    @staticmethod
    def _answer(request: Request) -> Optional[bytes]:
        """The content of the response."""
        if not request.stream:
            return content.of_output(request.output)
        return request.streamed.content() if request.streamed is not None else None

    def _known(self, request: Request) -> dict:
        """The members that are always there, with those values that are known without the bodies."""
        return {
            "request_id": request.request_id,
            "timestamp": writing.timestamp(request.arrived_us),
            "model_id": self._settings.model_id,
            "model_checksum": None,
            "input_hash": self._digests.written(request.input.running),
            "output_hash": None if request.unseen else self._digests.written(request.output.running),
            "user_id": None,
            "input_tokens": None,
            "output_tokens": None,
            "latency_ms": _milliseconds(request.ended - request.arrived),
            "status": self._status(request, False),
            "source": writing.source(request.source_id, request.seq),
        }

    def _rest(self, request: Request) -> dict:
        rest = {
            "endpoint": request.path.encode("utf-8", "replace").decode(),
            "method": request.method,
            "operation": request.operation,
            "stream": request.stream,
            "input_bytes": request.input.size,
        }
        if not request.unseen:
            rest["output_bytes"] = request.output.size
        if request.http_status is not None:
            rest["http_status"] = request.http_status
        if request.first_part is not None:
            rest["ttft_ms"] = _milliseconds(request.first_part - request.arrived)
        if request.client_request_id:
            rest["client_request_id"] = writing.text(request.client_request_id)
        return rest

    def _status(self, request: Request, failed: bool) -> str:
        timeout = self._settings.timeout
        deadline = request.arrived + timeout if timeout is not None else float("inf")
        if request.aborted is not None and request.aborted < deadline:
            return "client_abort"
        if request.ended >= deadline:
            return "timeout"
        if request.error or failed or request.http_status is None:
            return "500"
        return str(request.http_status)

    def _user(self, asked: bodies.Asked, key: Optional[str]) -> Optional[str]:
        if asked.user:
            return self._digests.pseudonym("user", asked.user.encode("utf-8", "surrogatepass"))
        if key is not None:
            return key
        return "anonymous" if asked.sure else None

    @staticmethod
    def _adapter(request: Request, asked: bodies.Asked) -> Optional[str]:
        """The adapter that a call loads or unloads."""
        return asked.members.get("lora_name") if request.operation == endpoints.MODEL_CHANGE else None


def _payload(body: Capture, content: Optional[bytes], limit: int) -> object:
    """The bytes that were hashed, up to the limit."""
    data = bytes(body.head[:limit]) if content is None else content
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if body.size > limit and error.end == len(data) and error.reason == "unexpected end of data":
            return data[: error.start].decode("utf-8")  # the limit went through a character
        return {"base64": base64.b64encode(data).decode("ascii")}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
