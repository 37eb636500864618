import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

from asgi import Case, events, lines, records, until
from auditchain_asgi import state, writing
from auditchain_asgi import source as source_module
from auditchain_asgi.source import Source
from test_source import ARRIVED, PATH, begin, serve

CHILD = """
import os, sys, pathlib, time
sys.path[:0] = [{package!r}, {tests!r}]
from test_source import begin, finish, serve
from auditchain_asgi.source import Source
source = Source(pathlib.Path({directory!r}), 1 << 20, 1 << 20, 3600.0, dict, list)
serve(source, 5)
begin(source)
begin(source, b"/v1/load_lora_adapter", True)
serve(source, 1)
while source._queued or not source._begun: time.sleep(0.001)
print(source.id, flush=True)
while {busy}:
    serve(source, 1)
    while source._queued > 10_000: time.sleep(0.0001)
time.sleep(60)
"""


class Killed(Case):
    def child(self, busy=False):
        """A process that has served some requests, and its source id."""
        here = pathlib.Path(__file__).resolve().parent
        program = CHILD.format(package=str(here.parent), tests=str(here), directory=str(self.dir), busy=busy)
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.addCleanup(child.stdout.close)
        return child, child.stdout.readline().strip()

    def test_killed(self):
        child, dead = self.child()
        living = self.source()
        until(lambda: events(self.dir, "start")[1:])
        self.assertEqual(events(self.dir, "died"), [], "it lives")
        child.send_signal(signal.SIGKILL)
        child.wait()
        finder = self.source()
        (event,) = until(lambda: events(self.dir, "died"))
        until(lambda: len(list(self.dir.glob("*.state"))) == 2)
        said = [r for r in records(self.dir) if r.get("status") == "server_died"]
        self.assertEqual([r["source"] for r in said], [{"id": dead, "seq": 5}, {"id": dead, "seq": 6}])
        self.assertEqual([r["endpoint"] for r in said], ["/v1/chat/completions", "/v1/load_lora_adapter"])
        self.assertEqual([r["operation"] for r in said], ["inference", "model_change"])
        self.assertEqual([r["timestamp"] for r in said], ["2023-11-14T22:13:20.123456Z"] * 2)
        for record in said:
            self.assertRegex(record["request_id"], "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        self.assertEqual(event["source"], {"id": dead + "/events", "seq": 1})
        self.assertEqual((event["of"], event["served"], event["recorded"], event["lost"], event["open"]), (dead, 8, 8, 0, []))
        self.assertIn(event["reported_by"], (living.id, finder.id))
        living.stop()
        finder.stop()
        self.assertEqual(len(events(self.dir, "died")), 1)

    def test_more_open_than_slots(self):
        """Of a request without a slot nothing is known, also when there are few open ones left, and slots are free again."""
        with mock.patch.object(state, "SLOTS", 4):
            dead = state.State.create(self.dir, "x", "host/x")
        slots = [dead.open(seq, 0, b"1" * 16, False, b"/v1/completions") for seq in range(7)]
        for slot in slots[:3] + slots[-1:]:
            dead.close_slot(slot)
        dead["served"], dead["recorded"], dead["open"], dead["events"] = 7, 4, 3, 1
        dead.close()
        self.source()
        (event,) = until(lambda: events(self.dir, "died"))
        self.assertEqual([r["source"]["seq"] for r in records(self.dir) if r.get("status") == "server_died"], [3])
        self.assertEqual((event["served"], event["recorded"]), (7, 5))

    def test_machine_crashed(self):
        """The state was set back by it: what the files say goes before, and no number is used for something else."""
        dead = state.State.create(self.dir, "x", "host/x")
        dead["served"], dead["recorded"], dead["events"] = 2, 1, 1
        dead.open(1, 0, b"1" * 16, False, b"/v1/completions")
        dead.close()
        lines = [self.line({"id": "host/x", "seq": seq}) for seq in (0, 1, 3)]
        for seq, name, served in ((0, "start", 0), (1, "model_checksum", 5), (2, "heartbeat", 6)):
            lines.append(self.line({"id": "host/x/events", "seq": seq}, source_event=name, of="host/x", served=served, recorded=2))
        (self.dir / "x-000001.jsonl").write_bytes(b"".join(lines) + lines[-1].replace(b'"seq":2', b'"seq":9')[:-1])
        self.source()
        (event,) = until(lambda: events(self.dir, "died"))
        self.assertEqual(event["source"], {"id": "host/x/events", "seq": 3})
        self.assertEqual((event["served"], event["recorded"]), (6, 3))
        self.assertEqual([r for r in records(self.dir) if r.get("status") == "server_died"], [])

    @staticmethod
    def line(source, **members):
        return json.dumps({"timestamp": "2026-11-23T07:25:01.123456Z", "source": source, **members}, separators=(",", ":")).encode() + b"\n"

    def test_found_at_a_heartbeat(self):
        child, dead = self.child()
        self.source(heartbeat=0.05)
        child.kill()
        until(lambda: events(self.dir, "died"))

    def test_killed_at_any_instant(self):
        """Every number has a record, once, though the process was killed amidst its work."""
        for n in range(8):
            child, dead = self.child(busy=True)
            time.sleep(0.02 * n)  # any instant will do
            child.kill()
            child.wait()
            finder = self.source()
            event = until(lambda: [e for e in events(self.dir, "died") if e["of"] == dead])[0]
            finder.stop()
            numbers = sorted(r["source"]["seq"] for r in records(self.dir) if r["source"]["id"] == dead)
            self.assertEqual(numbers, list(range(event["served"])))
            self.assertEqual(event["recorded"], event["served"])
            mine = sorted(e["source"]["seq"] for e in events(self.dir) if e["of"] == dead)
            self.assertEqual(mine, list(range(len(mine))))

    def test_finder_is_killed(self):
        """Whoever finds the dead one again, after a crash at any step, says the same in the same bytes."""
        child, dead = self.child()
        child.kill()
        child.wait()
        name = dead.split("/")[1]
        before = (self.dir / f"{name}.state").read_bytes()
        with mock.patch.object(state.State, "remove"):  # the first finder is killed before this
            first = self.source()
            until(lambda: events(self.dir, "died"))
            first.stop()
        self.assertTrue((self.dir / f"{name}.state").exists())
        self.assertNotEqual((self.dir / f"{name}.state").read_bytes(), before)
        # That of the first, which mock kept from being removed, says that it stopped in order.
        second = self.source()
        until(lambda: len(events(self.dir, "died")) > 1)
        second.stop()
        said = {}
        for path in self.dir.glob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                number = json.loads(line)["source"]
                if number["id"].startswith(dead):
                    said.setdefault((number["id"], number["seq"]), []).append(line)
        for number, written in said.items():
            self.assertEqual(len(set(written)), 1, number)
        self.assertEqual(sum(len(w) == 2 for w in said.values()), 3)
        self.assertEqual(list(self.dir.glob("*.state")), [])

    def test_written_but_not_counted(self):
        """Killed between the write of a line and the freeing of its slot."""
        child, dead = self.child()
        child.kill()
        child.wait()
        name = dead.split("/")[1]
        with open(self.dir / f"{name}-000001.jsonl", "ab") as file:
            file.write(writing.line({"source": writing.source(dead, 5), "prompt": "x" * 600_000}))
            file.write(writing.line({"source": writing.source(dead + "/events", 1), "source_event": "heartbeat", "of": dead}))
            file.write(writing.line({"source": writing.source(dead, 6)})[:-1])  # torn
        self.source()
        (event,) = until(lambda: events(self.dir, "died"))
        said = [r for r in records(self.dir) if r.get("status") == "server_died"]
        self.assertEqual([r["source"]["seq"] for r in said], [6])
        self.assertEqual((event["source"]["seq"], event["served"], event["recorded"]), (2, 8, 8))

    def test_quoted(self):
        """A prompt cannot pass for a record."""
        child, dead = self.child()
        child.kill()
        child.wait()
        mark = writing.source_mark(dead).decode() + "5}"
        with open(self.dir / f"{dead.split('/')[1]}-000001.jsonl", "ab") as file:
            file.write(writing.line({"source": writing.source(dead, 4), "prompt": mark}))
        self.source()
        until(lambda: events(self.dir, "died"))
        self.assertEqual(len([r for r in records(self.dir) if r.get("status") == "server_died"]), 2)

    def test_damaged_state(self):
        (self.dir / "a.state").write_bytes(b"")
        (self.dir / "b.state").write_bytes(b"x" * 10_000)
        old = self.dir / ".c.state.new"
        old.write_bytes(b"")
        os.utime(old, (1, 1))
        new = self.dir / ".d.state.new"
        new.write_bytes(b"")
        source = self.source(heartbeat=0.05)
        until(lambda: len(events(self.dir, "heartbeat")) > 2)
        serve(source, 1)
        source.stop()
        self.assertEqual(len(records(self.dir)), 1)
        self.assertEqual({p.name for p in self.dir.iterdir() if not p.name.endswith(".jsonl")}, {"a.state", "b.state", ".d.state.new"})

    def test_cannot_say(self):
        """What could not be made durable leaves the state where it is, for the next heartbeat."""
        child, dead = self.child()
        child.kill()
        child.wait()
        path = self.dir / (dead.split("/")[1] + ".state")
        real, refuse, refused = os.fsync, [], []

        def fsync(fd):
            if refuse and not refused and b"died" in os.pread(fd_of_lines(), 1 << 20, 0):
                refused.append(path.exists())
                raise OSError(errno.EIO, "refused")
            real(fd)

        def fd_of_lines():
            return os.open(sorted(p for p in self.dir.glob("*.jsonl") if dead.split("/")[1] not in p.name)[0], os.O_RDONLY)

        with mock.patch("auditchain_asgi.lines.os.fsync", fsync), mock.patch.object(source_module, "_BACKOFF_S", (0.005, 0.02)):
            refuse.append(True)
            self.source(heartbeat=0.05)
            until(lambda: not path.exists())
        self.assertEqual(refused, [True])
        said = [json.dumps(e) for e in events(self.dir, "died")]
        self.assertEqual((len(said), len(set(said))), (2, 1))

    def test_odd_lines_of_the_dead(self):
        """They keep nobody from writing."""
        child, dead = self.child()
        child.kill()
        child.wait()
        with open(self.dir / f"{dead.split('/')[1]}-000001.jsonl", "ab") as file:
            file.write(b"{" + writing.source_mark(dead) + b"null}}\n")
        source = self.source(heartbeat=0.05)
        until(lambda: len(events(self.dir, "heartbeat")) > 2)
        serve(source, 1)
        source.stop()
        self.assertEqual(len(events(self.dir, "stop")), 1)


class Forked(Case):
    def fork(self, run):
        """Runs in a forked copy of this process; its exit status is the result."""
        child = os.fork()
        if not child:
            try:
                os._exit(0 if run() else 1)
            except BaseException:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def test_forked(self):
        """A copy of the process is no longer the source, and does not keep the parent's lock."""
        parent = self.source()
        serve(parent, 1)

        def child():
            if parent.begin(ARRIVED, False, PATH) is not None:
                return False
            own = Source(self.dir, 1 << 20, 1 << 20, 3600.0, dict, list)
            serve(own, 2)
            own.stop()
            return own.id != parent.id

        self.assertEqual(self.fork(child), 0)
        serve(parent, 1)
        parent.stop()
        self.assertEqual(len(records(self.dir)), 4)
        self.assertEqual([len(events(self.dir, name)) for name in ("start", "stop", "died")], [2, 2, 0])

    def test_forked_while_a_thread_holds_locks(self):
        """A copy has not that thread, and so must not wait for it."""
        parent = self.source()
        until(lambda: events(self.dir, "start"))

        def child():
            signal.alarm(20)
            parent.put(0, b"")
            with source_module.starting():
                return parent.begin(ARRIVED, False, PATH) is None

        with parent._lock, source_module.starting():
            self.assertEqual(self.fork(child), 0)

    def test_lock_is_not_kept(self):
        source = self.source()
        path = self.dir / (source.id.split("/")[1] + ".state")
        begin(source)
        read, write = os.pipe()
        runs, says_so = os.pipe()
        child = os.fork()
        if not child:
            os.close(write)
            os.write(says_so, b"x")
            os.read(read, 1)  # until the parent is done
            os._exit(0)
        try:
            os.close(read)
            os.read(runs, 1)
            self.assertIsNone(state.State.take(path))
            source.stop()
            source._state.close()
            taken = state.State.take(path)
            self.assertIsNotNone(taken, "a forked copy keeps the lock")
            taken.close()
        finally:
            for fd in (write, runs, says_so):
                os.close(fd)
            os.waitpid(child, 0)
