import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

from asgi import Case, events, lines, records, until
from auditchain_asgi import state, writing
from auditchain_asgi import source as source_module
from auditchain_asgi.source import Source

ARRIVED = 1_700_000_000_123_456
PATH = b"/v1/chat/completions"


def begin(source, path=PATH, change=False) -> int:
    return source.begin(ARRIVED, change, path)[0]


def finish(source, seq, **members) -> None:
    source.put(seq, writing.line({"source": writing.source(source.id, seq), **members}))


def serve(source, count) -> None:
    for _ in range(count):
        finish(source, begin(source))


class Disk:
    """Lets writes fail on demand."""

    def __init__(self, case):
        self.error = None
        self.attempts = 0
        self._write = os.write
        patch = mock.patch("auditchain_asgi.lines.os.write", self.write)
        patch.start()
        case.addCleanup(patch.stop)
        case.addCleanup(setattr, self, "error", None)

    def write(self, fd, data):
        if self.error is not None:
            self.attempts += 1
            raise OSError(self.error, os.strerror(self.error))
        return self._write(fd, data)


class Life(Case):
    def test_in_order(self):
        source = self.source()
        first, second = begin(source), begin(source)
        finish(source, second)
        finish(source, first)
        serve(source, 100)
        source.stop()
        self.assertEqual(sorted(r["source"]["seq"] for r in records(self.dir)), list(range(102)))
        self.assertEqual([r["source"]["seq"] for r in records(self.dir)][:2], [1, 0])
        said = events(self.dir)
        self.assertEqual([e["source_event"] for e in said], ["start", "stop"])
        self.assertEqual([e["source"] for e in said], [{"id": source.id + "/events", "seq": n} for n in range(2)])
        self.assertEqual((said[-1]["served"], said[-1]["recorded"], said[-1]["lost"], said[-1]["open"]), (102, 102, 0, []))
        self.assertEqual(lines(self.dir)[-1]["source_event"], "stop")
        self.assertEqual(list(self.dir.glob("*.state")), [])
        self.assertIsNone(source.begin(ARRIVED, False, PATH))

    def test_rolls(self):
        source = self.source(file_size=2000)
        for _ in range(200):
            serve(source, 1)
            until(lambda: source.idle and not source._queued)
        source.stop()
        self.assertGreater(len(list(self.dir.glob("*.jsonl"))), 5)
        self.assertEqual([r["source"]["seq"] for r in records(self.dir)], list(range(200)))

    def test_heartbeat(self):
        """It comes although the event loop does nothing, and says what is open."""
        source = self.source(heartbeat=0.05)
        open_one = begin(source)
        serve(source, 3)
        until(lambda: len(events(self.dir, "heartbeat")) > 3)
        beat = events(self.dir, "heartbeat")[-1]
        self.assertEqual((beat["served"], beat["recorded"], beat["open"]), (4, 3, [0]))
        finish(source, open_one)
        until(lambda: events(self.dir, "heartbeat")[-1]["open"] == [])
        self.assertEqual([e["source"]["seq"] for e in events(self.dir)], list(range(len(events(self.dir)))))

    def test_models(self):
        models = [{"checksum": None}]
        source = Source(self.dir, 1 << 20, 1 << 20, 3600.0, lambda: {"pid": 1}, lambda: models)
        self.addCleanup(source.stop)
        until(lambda: events(self.dir, "start"))
        models = [{"checksum": "sha256:x"}]
        source.models_changed()
        (event,) = until(lambda: events(self.dir, "model_checksum"))
        self.assertEqual(event["model"], models)
        self.assertEqual(events(self.dir, "start")[0]["model"], [{"checksum": None}])

    def test_many_open(self):
        """More than there are slots for: they are numbered and recorded all the same."""
        source = self.source(heartbeat=0.05)
        numbers = [begin(source) for _ in range(state.SLOTS + 100)]
        beat = until(lambda: [e for e in events(self.dir, "heartbeat") if e["open"]])[-1]
        self.assertEqual(beat["open"], list(range(1000)))
        for seq in numbers:
            finish(source, seq)
        source.stop()
        self.assertEqual(len(records(self.dir)), len(numbers))

    def test_threads(self):
        source = self.source()
        threads = [threading.Thread(target=serve, args=(source, 500)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        source.stop()
        self.assertEqual(sorted(r["source"]["seq"] for r in records(self.dir)), list(range(4000)))

    def test_stop_with_open_requests(self):
        """The process does not end in order; the next one says so."""
        source = self.source()
        begin(source)
        serve(source, 2)
        source.stop()
        self.assertEqual(events(self.dir, "stop"), [])
        source._state.close()  # what the end of the process does
        self.source()
        until(lambda: events(self.dir, "died"))
        (dead,) = [r for r in records(self.dir) if r.get("status") == "server_died"]
        self.assertEqual(dead["source"], {"id": source.id, "seq": 0})

    def test_no_directory(self):
        blocked = self.dir / "file"
        blocked.write_text("")
        with self.assertRaises(OSError):
            self.source(blocked / "below")

    def test_host(self):
        for name, want in (("gpu-1.example.com", "gpu-1.example.com"), ('a/b"c\u00e9', "a_b_c_"), ("x" * 300, "x" * 200), ("", "localhost")):
            with mock.patch("socket.gethostname", return_value=name):
                self.assertEqual(source_module._host(), want)


class Faults(Case):
    def setUp(self):
        super().setUp()
        patch = mock.patch.object(source_module, "_BACKOFF_S", (0.005, 0.02))
        patch.start()
        self.addCleanup(patch.stop)

    def test_disk_comes_back(self):
        for error in (errno.ENOSPC, errno.EIO):
            directory = self.directory()
            source = self.source(directory)
            until(lambda: events(directory, "start"))
            disk = Disk(self)
            disk.error = error
            serve(source, 50)
            until(lambda: disk.attempts > 5)
            self.assertTrue(source.failing)
            self.assertEqual(records(directory), [])
            disk.error = None
            until(lambda: not source.failing)
            source.stop()
            self.assertEqual([r["source"]["seq"] for r in records(directory)], list(range(50)))
            self.assertEqual(events(directory, "stop")[0]["lost"], 0)

    def test_queue_is_full(self):
        source = self.source(queue_limit=10_000, heartbeat=0.05)
        until(lambda: events(self.dir, "start"))
        disk = Disk(self)
        disk.error = errno.ENOSPC
        with self.assertLogs("auditchain_asgi", "ERROR") as log:
            serve(source, 1)
            until(lambda: source.failing)
            serve(source, 999)
        self.assertLess(len(log.output), 4, "the log is not flooded")
        self.assertTrue(any("lost" in line for line in log.output))
        lost = source._state["lost"]
        self.assertGreater(lost, 800)
        self.assertLessEqual(source._queued, 10_000)
        disk.error = None
        until(lambda: [e for e in events(self.dir, "heartbeat") if e["lost"]])
        source.stop()
        stop = events(self.dir, "stop")[0]
        self.assertEqual((stop["served"], stop["recorded"], stop["lost"], stop["open"]), (1000, 1000 - lost, lost, []))
        self.assertEqual(len(records(self.dir)), 1000 - lost)

    def test_deny(self):
        """It counts as failing before the queue is full, and of what was begun till then nothing is lost."""
        source = self.source(queue_limit=10_000, deny=True)
        until(lambda: events(self.dir, "start"))
        numbers = [begin(source) for _ in range(1000)]
        hang, real = threading.Event(), os.write
        self.addCleanup(hang.set)

        def write(fd, data):
            hang.wait(20)
            return real(fd, data)

        with mock.patch("auditchain_asgi.lines.os.write", write):
            failing = []
            for seq in numbers:
                finish(source, seq)
                failing.append(source.failing)
            self.assertGreater(source._queued, 20_000)
            self.assertEqual(failing, sorted(failing))
            self.assertLess(failing.index(True), 5000 // 50)
            hang.set()
            until(lambda: not source.failing)
        source.stop()
        self.assertEqual([r["source"]["seq"] for r in records(self.dir)], numbers)

    def test_line_longer_than_the_queue(self):
        source = self.source(queue_limit=1000)
        seq = begin(source)
        finish(source, seq, prompt="x" * 5000)
        source.stop()
        self.assertEqual(len(records(self.dir)), 1)

    def test_sync_fails(self):
        """It counts as a failure until lines are durable again, without anybody asking for anything."""
        source = self.source()
        until(lambda: events(self.dir, "start"))
        real, refusals = os.fsync, [1, 1, 1]

        def fsync(fd):
            if refusals and refusals.pop():
                raise OSError(errno.EIO, "refused")
            real(fd)

        with mock.patch("auditchain_asgi.lines.os.fsync", fsync):
            serve(source, 1)
            until(lambda: not refusals and not source.failing)
        self.assertGreaterEqual(source._state["failures"], 3)
        source.stop()
        self.assertEqual(len(records(self.dir)), 1)

    def test_write_hangs(self):
        source = self.source()
        until(lambda: events(self.dir, "start"))
        hang, hung, real = threading.Event(), threading.Event(), os.write

        def write(fd, data):
            hung.set()
            hang.wait(20)
            return real(fd, data)

        with mock.patch("auditchain_asgi.lines.os.write", write), mock.patch.object(source_module, "_STUCK_S", 0.01):
            serve(source, 1)
            hung.wait(20)
            until(lambda: source.failing)
            hang.set()
            until(lambda: not source.failing)

    def test_end_with_a_full_disk(self):
        """The process ends in time. Its requests are among the open ones, and the next one says so."""
        source = self.source()
        until(lambda: events(self.dir, "start"))
        disk = Disk(self)
        disk.error = errno.ENOSPC
        serve(source, 3)
        until(lambda: source.failing)
        with mock.patch.object(source_module, "_STOP_S", 0.1):
            source.stop()
        disk.error = None
        self.assertFalse(source._thread.is_alive())
        source._state.close()
        self.source()
        until(lambda: events(self.dir, "died"))
        self.assertEqual([r["source"]["seq"] for r in records(self.dir) if r["status"] == "server_died"], [0, 1, 2])

    def test_directory_is_deleted(self):
        """It is made anew, and so is the state; the numbers go on."""
        directory = self.dir / "records"
        directory.mkdir()
        source = self.source(directory, heartbeat=0.05)
        serve(source, 3)
        open_one = begin(source)
        until(lambda: source._state["recorded"] == 3)
        with self.assertLogs("auditchain_asgi", "ERROR") as log:
            shutil.rmtree(directory.rename(self.dir / "old"))
            until(lambda: list(directory.glob("*.state")))
        for word in ("made anew", "cannot be written"):
            self.assertTrue(any(word in line and str(directory) in line for line in log.output), log.output)
        serve(source, 2)
        until(lambda: source._state["recorded"] == 5)
        self.assertEqual(state.counters(directory)[source.id], {"served": 6, "recorded": 5, "lost": 0, "failures": 1, "open": 1})
        self.assertEqual([r.seq for r in source._state.open_requests()], [open_one])
        self.assertIsNone(state.State.take(source._state.path), "it has its lock")
        finish(source, open_one)
        source.stop()
        self.assertEqual([r["source"]["seq"] for r in records(directory)], [4, 5, 3])
        self.assertEqual(len(events(directory, "stop")), 1)
        self.assertEqual(list(directory.glob("*.state")), [])

    def test_state_is_deleted(self):
        """At the end of a process with open requests it is made anew, so that the next one can say so."""
        source = self.source()
        begin(source)
        until(lambda: events(self.dir, "start"))
        source._state.path.unlink()
        source.stop()
        source._state.close()
        self.source()
        until(lambda: events(self.dir, "died"))
        self.assertEqual([r["source"] for r in records(self.dir)], [{"id": source.id, "seq": 0}])

    def test_state_cannot_be_made_anew(self):
        source = self.source(heartbeat=0.05)
        until(lambda: events(self.dir, "start"))
        with self.assertLogs("auditchain_asgi", "ERROR") as log, mock.patch.object(os, "posix_fallocate", side_effect=OSError(errno.ENOSPC, "full")):
            source._state.path.unlink()
            until(lambda: log.output)
            serve(source, 1)
            until(lambda: records(self.dir))
        self.assertIn(str(source._state.path), log.output[0])
        until(lambda: source._state.path.exists())

    def test_state_is_gone_or_stays_at_the_end(self):
        """One stop is said, whatever becomes of the state."""
        for unlink in (pathlib.Path.unlink, mock.Mock(side_effect=OSError(errno.EROFS, "read-only"))):
            directory = self.directory()
            source = self.source(directory)
            until(lambda: events(directory, "start"))
            source._state.path.unlink()
            with mock.patch.object(pathlib.Path, "unlink", unlink):
                source.stop()
            self.assertFalse(source._thread.is_alive())
            self.assertEqual(len(events(directory, "stop")), 1)

    def test_defect(self):
        """The thread goes on whatever happens."""
        models = mock.Mock(side_effect=[[], ValueError("defect"), []])
        source = Source(self.dir, 1 << 20, 1 << 20, 3600.0, dict, models)
        self.addCleanup(source.stop)
        until(lambda: events(self.dir, "start"))
        with self.assertLogs("auditchain_asgi", "ERROR"):
            source.models_changed()
            until(lambda: source._state["failures"])
        serve(source, 1)
        until(lambda: records(self.dir))


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


class Counters(Case):
    def test_each_source(self):
        sources = [self.source() for _ in range(3)]
        for n, source in enumerate(sources):
            serve(source, n + 1)
            begin(source)
        (self.dir / "x.state").write_bytes(b"short")
        want = {s.id: {"served": n + 2, "recorded": n + 1, "lost": 0, "failures": 0, "open": 1} for n, s in enumerate(sources)}
        until(lambda: state.counters(self.dir) == want)
