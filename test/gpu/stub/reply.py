"""What the stub's model says: it repeats the words of the prompt, so that a client knows beforehand what it must get."""

import struct

DEFAULT_TOKENS = 8


def words(body):
    """The words of everything that a request asks with; each counts as a token."""
    found = []

    def walk(value):
        if isinstance(value, str):
            found.extend(value.split())
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            for name in ("content", "text"):
                walk(value.get(name))

    for name in ("instructions", "messages", "prompt", "input"):
        walk(body.get(name))
    return found


def pieces(body, choice=0):
    """The reply, token by token. Choice n begins with the prompt's n-th word."""
    prompt = words(body) or ["nothing"]
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens") or DEFAULT_TOKENS
    said = [prompt[(choice + i) % len(prompt)] for i in range(limit)]
    return [said[0]] + [" " + word for word in said[1:]]


def usage(body, completion_tokens):
    prompt_tokens = len(words(body))
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": None,
    }


def vector(text):
    return [float(len(text)), 0.5, -0.25]


def packed(vector):
    """A vector as `encoding_format` base64 has it, before base64."""
    return struct.pack(f"<{len(vector)}f", *vector)
