"""/v1/chat/completions. With `tools` the model calls the first one; with `include_reasoning` it thinks before it speaks."""

import reply
import sse

PREFIX = "chatcmpl"
CREATED = 1700000000


def call(body, choice):
    name = body["tools"][0]["function"]["name"]
    return {"id": f"call-{choice}", "type": "function", "function": {"name": name, "arguments": '{"q": "'}}


def doubted(piece):
    return piece + "?"


def whole(name, body):
    choices, tokens = [], 0
    for i in range(body.get("n", 1)):
        said = reply.pieces(body, i)
        tokens += len(said)
        text = "".join(said)
        message = {"role": "assistant", "content": text, "refusal": None, "tool_calls": [], "reasoning": None}
        if body.get("tools"):
            made = call(body, i)
            made["function"]["arguments"] += text + '"}'
            message.update(content=None, tool_calls=[made])
        elif body.get("include_reasoning"):
            message["reasoning"] = "".join(map(doubted, said))
        choices.append({"index": i, "message": message, "logprobs": None, "finish_reason": "length", "stop_reason": None})
    return {
        "id": name,
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": None,
        "usage": reply.usage(body, tokens),
        "prompt_logprobs": None,
    }


def parts(name, body):
    frame = {"id": name, "object": "chat.completion.chunk", "created": CREATED, "model": body["model"]}

    def chunk(choice, delta, finish=None):
        return {**frame, "choices": [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    def chunks():
        tokens, choices = 0, range(body.get("n", 1))
        for i in choices:
            yield chunk(i, {"role": "assistant", "content": ""}), tokens
        said = [reply.pieces(body, i) for i in choices]
        if body.get("include_reasoning"):
            for i in choices:
                for piece in said[i]:
                    yield chunk(i, {"reasoning": doubted(piece)}), tokens
        if body.get("tools"):
            for i in choices:
                yield chunk(i, {"tool_calls": [{"index": 0, **call(body, i)}]}), tokens
        for pieces in zip(*said):  # the choices take turns, as they do in an engine
            for i, piece in enumerate(pieces):
                tokens += 1
                if body.get("tools"):
                    yield chunk(i, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}), tokens
                else:
                    yield chunk(i, {"content": piece}), tokens
        if body.get("tools"):
            for i in choices:
                yield chunk(i, {"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]}), tokens
        for i in choices:
            yield chunk(i, {"content": ""}, "length"), tokens

    return sse.with_usage(body, chunks(), frame, reply.usage)
