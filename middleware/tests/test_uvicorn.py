"""The middleware in a FastAPI application served by uvicorn, as model servers do."""

import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import unittest
import urllib.request

from asgi import Case, events, records, until

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
HAVE = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))

APP = '''
import asyncio, json
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from auditchain_asgi import AuditMiddleware

app = FastAPI()

@app.get("/health")
async def health():
    return {}

@app.post("/v1/chat/completions")
async def chat(request: Request):
    ask = await request.json()
    if ask.get("fail"):
        raise RuntimeError("secret")
    if ask.get("refuse"):
        return JSONResponse({"error": {"type": "BadRequestError", "message": "secret"}}, 400)
    if ask.get("stream"):
        async def stream():
            for n in range(ask["stream"]):
                yield "data: " + json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "x"}}]}) + "\\n\\n"
                await asyncio.sleep(ask.get("pause", 0))
            yield 'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}\\n\\ndata: [DONE]\\n\\n'
        return StreamingResponse(stream(), media_type="text/event-stream")
    for _ in range(ask.get("wait", 0)):
        if await request.is_disconnected():
            return None
        await asyncio.sleep(0.01)
    return {"id": request.headers["x-request-id"], "model": "m", "usage": {"prompt_tokens": 7, "completion_tokens": 12}}

app.add_middleware(AuditMiddleware)
'''


@unittest.skipUnless(HAVE, "fastapi and uvicorn are not installed")
class Served(Case):
    def serve(self, *arguments, **given):
        code = self.directory()
        (code / "served.py").write_text(APP)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.settings(**given)
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "served:app", "--port", str(self.port), "--log-level", "critical", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(PACKAGE), str(code)))},
            stderr=subprocess.PIPE,
        )
        self.addCleanup(server.stderr.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        return server

    def ready(self):
        def asked():
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200
            except OSError:
                return False

        until(asked, "the server")

    def connect(self, **ask):
        """Sends a request."""
        body = json.dumps({"model": "q", **ask}).encode()
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return sock

    def ask(self, **ask) -> bytes:
        with self.connect(**ask) as sock:
            answer = b""
            while True:
                piece = sock.recv(65536)
                if not piece:
                    return answer
                answer += piece

    def stop(self, server):
        server.send_signal(signal.SIGTERM)
        server.wait(20)

    def test_outcomes(self):
        server = self.serve()
        self.ready()
        answer = json.loads(self.ask().split(b"\r\n\r\n", 1)[1])
        self.ask(stream=3)
        self.ask(refuse=True)
        self.ask(fail=True)
        with self.connect(stream=1000, pause=0.01) as sock:
            sock.recv(1000)
        with self.connect(wait=1000):
            until(lambda: events(self.dir) and self.served() == 6)
        until(lambda: len(records(self.dir)) == 6)
        self.stop(server)
        found = sorted(records(self.dir), key=lambda r: r["source"]["seq"])
        self.assertEqual([r["status"] for r in found], ["200", "200", "400", "500", "client_abort", "client_abort"])
        self.assertEqual(answer["id"], found[0]["request_id"])
        self.assertEqual([r["output_tokens"] for r in found], [12, 3, 0, None, None, None])
        self.assertEqual([r.get("error") for r in found], [None, None, "BadRequestError", "RuntimeError", None, None])
        self.assertEqual([r["stream"] for r in found], [False, True, False, False, True, False])
        self.assertEqual([e["source_event"] for e in events(self.dir)], ["start", "stop"])
        self.assertEqual(list(self.dir.glob("*.state")), [])

    def served(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/auditchain/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("auditchain_served_total{"))

    def test_wrong_setting(self):
        server = self.serve(HMAC_KEY="short")
        self.assertNotEqual(server.wait(20), 0)
        self.assertIn(b"auditchain: AUDITCHAIN_HMAC_KEY: has 5 bytes", server.stderr.read())

    def test_worker_is_killed(self):
        server = self.serve("--workers", "2", HEARTBEAT="1s")
        self.ready()
        with self.connect(stream=1000, pause=0.05) as sock:
            sock.recv(1000)
            until(lambda: self.served() == 1)
            busy = until(lambda: [e for e in events(self.dir, "heartbeat") if e["open"]])[0]["of"]
            (pid,) = {e["pid"] for e in events(self.dir, "start") if e["of"] == busy}
            os.kill(pid, signal.SIGKILL)
            (died,) = until(lambda: events(self.dir, "died"))
        (record,) = records(self.dir)
        self.assertEqual((record["status"], record["source"]), ("server_died", {"id": busy, "seq": 0}))
        self.assertEqual((died["of"], died["served"], died["recorded"]), (busy, 1, 1))
        self.stop(server)

    def test_many(self):
        """Many requests at a time are recorded, each once."""
        server = self.serve()
        self.ready()
        threads = [threading.Thread(target=lambda: [self.ask() for _ in range(20)]) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.stop(server)
        self.assertEqual(sorted(r["source"]["seq"] for r in records(self.dir)), list(range(200)))


if __name__ == "__main__":
    unittest.main()
