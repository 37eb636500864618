"""/v1/embeddings."""

import base64

import reply

PREFIX = "embd"
CREATED = 1700000000


def whole(name, body):
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = []
    for i, text in enumerate(texts):
        vector = reply.vector(text)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(reply.packed(vector)).decode()
        data.append({"index": i, "object": "embedding", "embedding": vector})
    return {
        "id": name,
        "object": "list",
        "created": CREATED,
        "model": body["model"],
        "data": data,
        "usage": reply.usage(body, 0),
    }
