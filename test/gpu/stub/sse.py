"""Server-sent events as vLLM writes them."""

import json

DONE = "data: [DONE]\n\n"


def event(value):
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def with_usage(body, chunks, final, usage):
    """The events of a stream of chunks, each with the tokens so far: usage in each, in one at the end, or not at all."""
    options = body.get("stream_options") or {}
    tokens = 0
    for chunk, tokens in chunks:
        if options.get("include_usage") and options.get("continuous_usage_stats"):
            chunk["usage"] = usage(body, tokens)
        yield event(chunk)
    if options.get("include_usage"):
        yield event({**final, "choices": [], "usage": usage(body, tokens)})
    yield DONE
