"""/v1/responses: one message of text. Its streams are typed events, and end without [DONE]."""

import json

import reply

PREFIX = "resp"
CREATED = 1700000000


def envelope(name, body, status, output, usage=None):
    return {
        "id": name,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": body["model"],
        "output": output,
        "usage": usage,
    }


def message(name, text):
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": None}],
    }


def finished(name, body):
    said = reply.pieces(body)
    counted = reply.usage(body, len(said))
    usage = {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["total_tokens"],
    }
    return envelope(name, body, "completed", [message(name, "".join(said))], usage)


whole = finished


def parts(name, body):
    number = 0

    def event(kind, **members):
        nonlocal number
        value = {"type": kind, "sequence_number": number, **members}
        number += 1
        return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"

    place = {"item_id": f"msg_{name}", "output_index": 0, "content_index": 0}
    yield event("response.created", response=envelope(name, body, "in_progress", []))
    for piece in reply.pieces(body):
        yield event("response.output_text.delta", **place, delta=piece, logprobs=[])
    whole_text = "".join(reply.pieces(body))
    yield event("response.output_text.done", **place, text=whole_text, logprobs=[])
    yield event("response.output_item.done", output_index=0, item=message(name, whole_text))
    yield event("response.completed", response=finished(name, body))
