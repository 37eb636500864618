"""/v1/completions."""

import reply
import sse

PREFIX = "cmpl"
CREATED = 1700000000


def whole(name, body):
    choices, tokens = [], 0
    for i in range(body.get("n", 1)):
        said = reply.pieces(body, i)
        tokens += len(said)
        choices.append({"index": i, "text": "".join(said), "logprobs": None, "finish_reason": "length", "stop_reason": None})
    return {
        "id": name,
        "object": "text_completion",
        "created": CREATED,
        "model": body["model"],
        "choices": choices,
        "usage": reply.usage(body, tokens),
    }


def parts(name, body):
    frame = {"id": name, "object": "text_completion", "created": CREATED, "model": body["model"]}

    def chunks():
        said = [reply.pieces(body, i) for i in range(body.get("n", 1))]
        tokens = 0
        for n, pieces in enumerate(zip(*said)):
            for i, piece in enumerate(pieces):
                tokens += 1
                finish = "length" if n == len(said[i]) - 1 else None
                yield {**frame, "choices": [{"index": i, "text": piece, "logprobs": None, "finish_reason": finish}]}, tokens

    return sse.with_usage(body, chunks(), frame, reply.usage)
