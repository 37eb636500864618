"""Processor time that the middleware takes for each part of a stream: an application that sends many, with it and without.

With --profile it prints instead where the time goes.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import statistics
import tempfile
import time

PARTS = 2000
BLOCKS = 30

PROMPT = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "tokens " * 150}]}).encode()


def part(i):
    chunk = {
        "id": "chatcmpl-0f5a2f0e-6f0b-4c1c-a9ab-000000000000",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": f" word{i}"}, "logprobs": None, "finish_reason": None}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()


ends = []  # how long the last part of each stream took: nothing else is served meanwhile, ms

SENT = [part(i) for i in range(PARTS)] + [b"data: [DONE]\n\n"]


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await receive()
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for body in SENT:
        await send({"type": "http.response.body", "body": body, "more_body": True})
    before = time.perf_counter()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    ends.append((time.perf_counter() - before) * 1e3)


async def request(app):
    async def receive():
        return {"type": "http.request", "body": PROMPT, "more_body": False}

    async def send(message):
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "asgi": {"version": "3.0"},
    }
    await app(scope, receive, send)


async def measure(app):
    before = time.process_time()  # of all threads: what is left to them is paid too
    await request(app)
    return (time.process_time() - before) / PARTS * 1e6


async def served(app, work):
    """Does the work between the application's startup and shutdown, as a server does."""
    begun, ended = asyncio.Event(), asyncio.Event()
    messages = ["lifespan.startup", "lifespan.shutdown"]

    async def receive():
        if len(messages) == 1:
            await ended.wait()
        return {"type": messages.pop(0)}

    async def send(message):
        begun.set()

    life = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    await begun.wait()
    await work
    ended.set()
    await life


async def compare(mode, audited):
    with_it, without, again, longest = [], [], [], []
    for _ in range(BLOCKS):
        without.append(await measure(application))
        with_it.append(await measure(audited))
        longest.append(ends[-1])
        again.append(await measure(application))
    added = statistics.median(b - (a + c) / 2 for a, b, c in zip(without, with_it, again))
    noise = statistics.median(c - a for a, c in zip(without, again))
    row(f"processor time per part, {mode}, µs", statistics.median(without), statistics.median(with_it), added, noise)
    row(f"after the last of {PARTS}, {mode}, ms", 0, statistics.median(longest), statistics.median(longest), 0)


def row(name, without, with_it, added, noise):
    print(f"{name:<38} {without:>10.3f} {with_it:>10.3f} {added:>+12.3f} {noise:>+14.3f}")


async def profile(audited):
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(20):
        await request(audited)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("hash", help="AUDITCHAIN_HASH")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()

    from auditchain_asgi import AuditMiddleware

    with tempfile.TemporaryDirectory() as directory:
        os.environ.update(AUDITCHAIN_DIR=directory, AUDITCHAIN_HMAC_KEY="0123456789abcdef", AUDITCHAIN_HASH=args.hash)
        audited = AuditMiddleware(application)
        work = profile(audited) if args.profile else compare(args.hash, audited)
        asyncio.run(served(audited, work))


if __name__ == "__main__":
    main()
