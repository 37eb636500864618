import errno
import os
import pathlib
import shutil
import threading
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


class Counters(Case):
    def test_each_source(self):
        sources = [self.source() for _ in range(3)]
        for n, source in enumerate(sources):
            serve(source, n + 1)
            begin(source)
        (self.dir / "x.state").write_bytes(b"short")
        want = {s.id: {"served": n + 2, "recorded": n + 1, "lost": 0, "failures": 0, "open": 1} for n, s in enumerate(sources)}
        until(lambda: state.counters(self.dir) == want)
