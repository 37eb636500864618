import asyncio
import json
import logging
import os
import pathlib
import subprocess
import sys
import threading
import unittest
from unittest import mock

from asgi import CHECKSUM, Case, Request, answering, events, lines, records, until
from auditchain_asgi import AuditMiddleware

PACKAGE = pathlib.Path(__file__).resolve().parent.parent


async def serving(scope, receive, send):
    """An application that takes part in the server's life."""
    if scope["type"] != "lifespan":
        await answering({"model": "m"})(scope, receive, send)
        return
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


class Server:
    """The lifespan protocol, as a server speaks it."""

    def __init__(self, app):
        self.to, self.back = asyncio.Queue(), asyncio.Queue()
        self.running = asyncio.ensure_future(app({"type": "lifespan"}, self.to.get, self.back.put))

    async def say(self, what):
        await self.to.put({"type": f"lifespan.{what}"})
        return await asyncio.wait_for(self.back.get(), 20)


class Life(Case):
    def test_lifespan(self):
        wrapped = self.wrap(serving)

        async def run():
            server = Server(wrapped)
            self.assertEqual(await server.say("startup"), {"type": "lifespan.startup.complete"})
            self.assertIsNotNone(wrapped._source)
            await Request().through(wrapped)
            self.assertEqual(await server.say("shutdown"), {"type": "lifespan.shutdown.complete"})
            self.assertEqual([e["source_event"] for e in events(self.dir)], ["start", "stop"])
            await server.running

        asyncio.run(run())
        start = events(self.dir, "start")[0]
        self.assertEqual((start["heartbeat_s"], start["pid"], start["model"]), (60, os.getpid(), [{"checksum": CHECKSUM}]))
        self.assertRegex(start["software"], r"^auditchain_asgi \d+\.\d+\.\d+$")
        self.assertNotIn("0123456789abcdef", json.dumps(start))
        self.assertEqual(len(records(self.dir)), 1)

    def test_again(self):
        """Served, stopped and served again, as tests do; and without any lifespan at all."""
        wrapped = self.wrap(serving)

        async def run():
            for _ in range(3):
                server = Server(wrapped)
                await server.say("startup")
                await Request().through(wrapped)
                await server.say("shutdown")
            await Request().through(wrapped)

        asyncio.run(run())
        wrapped._source.stop()
        self.assertEqual([len(events(self.dir, name)) for name in ("start", "stop")], [4, 4])
        self.assertEqual(len({r["source"]["id"] for r in records(self.dir)}), 4)

    def test_open_at_shutdown(self):
        """What is open then is recorded when it ends."""
        wrapped = self.wrap(serving)

        async def run():
            server = Server(wrapped)
            await server.say("startup")
            gate = asyncio.Event()
            request = Request()
            request.receive = gate.wait
            task = asyncio.ensure_future(request.through(wrapped))
            await asyncio.sleep(0)
            await server.say("shutdown")
            self.assertEqual(events(self.dir, "stop"), [])
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(run())
        self.assertEqual(self.record(wrapped)["error"], "CancelledError")
        self.assertEqual(len(events(self.dir, "stop")), 1)

    def test_twice(self):
        """The inner one leaves all to the outer one, and says so once."""
        inner = self.wrap(serving)
        outer = self.wrap(inner)

        async def run():
            server = Server(outer)
            await server.say("startup")
            for _ in range(2):
                await Request(headers=[(b"x-request-id", b"mine")]).through(outer)
            await server.say("shutdown")

        logging.getLogger("auditchain_asgi").setLevel(logging.NOTSET)
        with self.assertLogs("auditchain_asgi", "WARNING") as log:
            asyncio.run(run())
        self.assertEqual(len(log.output), 1, log.output)
        self.assertEqual(len(records(self.dir)), 2)
        self.assertEqual(len(events(self.dir, "start")), 1)

    def test_application_without_lifespan(self):
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await answering({})(scope, receive, send)

        wrapped = self.wrap(app)

        async def run():
            server = Server(wrapped)
            await server.to.put({"type": "lifespan.startup"})
            with self.assertRaises(AssertionError):
                await server.running
            await Request().through(wrapped)

        asyncio.run(run())
        self.record(wrapped)

    def test_application_fails_to_start(self):
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "its own"})

        wrapped = self.wrap(app)

        async def run():
            self.assertEqual((await Server(wrapped).say("startup"))["message"], "its own")

        asyncio.run(run())
        self.assertEqual(len(events(self.dir, "stop")), 1)

    def test_end_of_the_process(self):
        """Without lifespan the interpreter's end is the source's."""
        program = """
import asyncio, os, sys
from auditchain_asgi import AuditMiddleware
from asgi import Request, answering
asyncio.run(Request().through(AuditMiddleware(answering({}))))
"""
        self.settings()
        path = os.pathsep.join((str(PACKAGE), str(PACKAGE / "tests")))
        subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)
        self.assertEqual([e["source_event"] for e in events(self.dir)], ["start", "stop"])
        self.assertEqual(len(records(self.dir)), 1)
        self.assertEqual(list(self.dir.glob("*.state")), [])

    def test_websocket(self):
        seen = []

        async def app(scope, receive, send):
            seen.append((scope, receive, send))

        given = ({"type": "websocket", "path": "/v1/realtime"}, object(), object())
        asyncio.run(self.wrap(app)(*given))
        self.assertEqual(seen, [given])

    def test_event_loops_in_threads(self):
        wrapped = self.wrap(serving)

        async def many():
            for _ in range(50):
                await Request().through(wrapped)

        threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wrapped._source.stop()
        self.assertEqual([r["source"]["seq"] for r in sorted(records(self.dir), key=lambda r: r["source"]["seq"])], list(range(300)))
        self.assertEqual(len({r["request_id"] for r in records(self.dir)}), 300)

    def test_forked(self):
        """Wrapped, and served, before the fork: the child is a source of its own, with ids of its own."""
        wrapped = self.wrap(serving)
        asyncio.run(Request().through(wrapped))
        child = os.fork()
        if not child:
            try:
                asyncio.run(Request().through(wrapped))
                wrapped._source.stop()
                os._exit(0)
            except BaseException:
                os._exit(1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        asyncio.run(Request().through(wrapped))
        wrapped._source.stop()
        self.assertEqual(sorted(r["source"]["seq"] for r in records(self.dir)), [0, 0, 1])
        self.assertEqual(len({r["request_id"] for r in records(self.dir)}), 3)
        self.assertEqual(events(self.dir, "died"), [])


class Wrong(Case):
    def test_settings(self):
        for key, given in (
            ("AUDITCHAIN_DIR", {"DIR": None}),
            ("AUDITCHAIN_DIR", {"DIR": "/proc/self/nowhere"}),
            ("AUDITCHAIN_HMAC_KEY", {"HMAC_KEY": "short"}),
            ("AUDITCHAIN_HASH", {"HASH": "md5"}),
            ("AUDITCHAIN_MODEL", {"MODEL": "sha256:0"}),
        ):
            logging.getLogger("auditchain_asgi").setLevel(logging.NOTSET)
            called = []

            async def app(*given):
                called.append(given)

            async def run():
                with self.assertLogs("auditchain_asgi", "CRITICAL") as log:
                    wrapped = self.wrap(app, **given)
                    said = await Server(wrapped).say("startup")
                self.assertEqual(said["type"], "lifespan.startup.failed")
                self.assertIn(f"auditchain: {key}: ", said["message"])
                self.assertIn(key, log.output[0])
                self.assertNotIn("\n", said["message"])
                # Where the server does not ask, nothing is served instead.
                request = await Request().through(wrapped)
                self.assertEqual(request.sent[0]["status"], 503)
                self.assertEqual(json.loads(request.sent[1]["body"])["error"]["code"], 503)

            asyncio.run(run())
            self.assertEqual(called, [])

    def test_unknown(self):
        logging.getLogger("auditchain_asgi").setLevel(logging.NOTSET)
        with self.assertLogs("auditchain_asgi", "WARNING") as log:
            self.wrap(serving, HASHES="body")
        self.assertEqual(log.output, ["WARNING:auditchain_asgi.middleware:auditchain: AUDITCHAIN_HASHES is no setting"])


class Failing(Case):
    def test_deny_and_allow(self):
        for on_failure, statuses in (("deny", [503, 200]), ("allow", [200, 200])):
            self.dir = self.directory()
            wrapped = self.wrap(serving, ON_FAILURE=on_failure)
            asyncio.run(Request().through(wrapped))
            source = wrapped._source
            until(lambda: len(lines(self.dir)) == 2)
            failing, real = [True], os.write

            def write(fd, data):
                if failing:
                    raise OSError(28, "No space left on device")
                return real(fd, data)

            with mock.patch("auditchain_asgi.lines.os.write", write):
                asyncio.run(Request().through(wrapped))
                until(lambda: source.failing)
                refused = asyncio.run(Request().through(wrapped))
                other = asyncio.run(Request(path="/health").through(wrapped))
                failing.clear()
                until(lambda: not source.failing)
                served = asyncio.run(Request().through(wrapped))
            self.assertEqual([refused.sent[0]["status"], served.sent[0]["status"]], statuses)
            self.assertEqual(other.sent[0]["status"], 200)
            source.stop()
            self.assertEqual([r["source"]["seq"] for r in records(self.dir)], list(range(3 if on_failure == "deny" else 4)))
            if on_failure == "deny":
                error = json.loads(refused.sent[1]["body"])["error"]
                self.assertEqual((error["type"], error["code"]), ("service_unavailable", 503))


    def test_deny_while_the_disk_is_slow(self):
        """Requests are refused before records are lost, and those that run already are recorded."""

        async def waiting(scope, receive, send):
            await asyncio.sleep(0)  # so that all have begun before one ends
            await serving(scope, receive, send)

        wrapped = self.wrap(waiting, ON_FAILURE="deny", QUEUE_LIMIT="20K")
        asyncio.run(Request().through(wrapped))
        source, hang, real = wrapped._source, threading.Event(), os.write
        self.addCleanup(hang.set)

        def write(fd, data):
            hang.wait(20)
            return real(fd, data)

        async def hundred():
            return {r.sent[0]["status"] for r in await asyncio.gather(*(Request().through(wrapped) for _ in range(100)))}

        with mock.patch("auditchain_asgi.lines.os.write", write):
            self.assertEqual(asyncio.run(hundred()), {200})
            self.assertEqual(asyncio.run(hundred()), {503})
            hang.set()
            until(lambda: not source.failing)
        source.stop()
        self.assertEqual(len(records(self.dir)), 101)


class Metrics(Case):
    def test_counters(self):
        """Of all processes that share the directory; nothing else is served there."""
        wrapped = self.wrap(answering({}, status=404))
        other = self.source()
        other.begin(0, False, b"/")
        asyncio.run(Request().through(wrapped))

        def text():
            return asyncio.run(Request(path="/auditchain/metrics", method="GET").through(wrapped)).sent[1]["body"].decode()

        mine = f'{{source="{wrapped._source.id}"}}'
        until(lambda: f"auditchain_recorded_total{mine} 1\n" in text())
        values = dict(line.split() for line in text().splitlines() if not line.startswith("#"))
        want = {}
        for source, counters in ((wrapped._source, (1, 1, 0, 0, 0)), (other, (1, 0, 0, 0, 1))):
            for name, value in zip(("served_total", "recorded_total", "lost_total", "failures_total", "open"), counters):
                want[f'auditchain_{name}{{source="{source.id}"}}'] = str(value)
        self.assertEqual(values, want)
        post = asyncio.run(Request(path="/auditchain/metrics").through(wrapped))
        self.assertEqual(post.sent[0]["status"], 404)


class ModelChanges(Case):
    def call(self, wrapped, path, body=None, status=200):
        app = wrapped._app
        wrapped._app = answering({"success": True}, status=status)
        asyncio.run(Request(body or {}, path=path).through(wrapped))
        wrapped._app = app

    def test_adapters(self):
        adapter = self.directory()
        (adapter / "adapter.bin").write_bytes(b"x")
        ask = {"lora_name": "support", "lora_path": str(adapter)}
        wrapped = self.wrap(answering({"model": "support"}))
        self.call(wrapped, "/v1/load_lora_adapter", {**ask, "lora_name": "refused"}, status=400)
        self.call(wrapped, "/v1/load_lora_adapter", ask)
        until(lambda: [m for e in events(self.dir, "model_checksum") for m in e["model"] if m.get("lora") and m["checksum"]])
        asyncio.run(Request().through(wrapped))
        self.call(wrapped, "/v1/unload_lora_adapter", ask)
        asyncio.run(Request().through(wrapped))
        wrapped._source.stop()
        refused, load, served, unload, after = records(self.dir)
        self.assertEqual([r["operation"] for r in (load, served, unload)], ["model_change", "inference", "model_change"])
        self.assertEqual((refused["model_id"], load["model_id"], served["model_id"]), ("refused", "support", "support"))
        self.assertEqual(served["model_checksum"], CHECKSUM)
        self.assertEqual(served["lora"]["id"], "support")
        self.assertRegex(served["lora"]["checksum"], "^sha256:[0-9a-f]{64}$")
        self.assertNotIn("lora", after)

    def test_odd_adapters(self):
        wrapped = self.wrap(answering({}))
        for body in ({}, {"lora_name": 3, "lora_path": "/"}, {"lora_name": "a"}, b"[", {"lora_name": "", "lora_path": ""}):
            self.call(wrapped, "/v1/load_lora_adapter", body)
            self.call(wrapped, "/v1/unload_lora_adapter", body)
        wrapped._source.stop()
        self.assertEqual(len(records(self.dir)), 10)

    def test_weights(self):
        for status, checksum in ((404, CHECKSUM), (400, CHECKSUM), (200, None), (500, None)):
            self.dir = self.directory()
            wrapped = self.wrap(answering({}))
            self.call(wrapped, "/update_weights", status=status)
            asyncio.run(Request().through(wrapped))
            wrapped._source.stop()
            self.assertEqual([r["model_checksum"] for r in records(self.dir)][1], checksum, status)
            self.assertEqual(len(events(self.dir, "model_checksum")), 0 if checksum else 1)

    def test_weights_of_siblings(self):
        """One process hears of an update, and all of them answer with the new weights."""
        wrapped, sibling = self.wrap(answering({})), self.wrap(answering({}))
        asyncio.run(Request().through(sibling))
        self.call(wrapped, "/update_weights")
        asyncio.run(Request().through(sibling))
        sibling._source.stop()
        mine = [r for r in records(self.dir) if r["source"]["id"] == sibling._source.id]
        self.assertEqual([r["model_checksum"] for r in mine], [CHECKSUM, None])
        until(lambda: len(events(self.dir, "model_checksum")) == 2)
        # Who starts now has read the weights from the disk.
        late = self.wrap(answering({}))
        asyncio.run(Request().through(late))
        late._source.stop()
        self.assertEqual([r["model_checksum"] for r in records(self.dir) if r["source"]["id"] == late._source.id], [CHECKSUM])


if __name__ == "__main__":
    unittest.main()
