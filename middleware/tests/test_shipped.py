import contextlib
import fcntl
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from typing import Any, Callable, Optional
from unittest import mock

from auditchain_asgi import fluentbit, shipped

UUID = "11111111-2222-4333-8444-555555555555"
OTHER = "66666666-7777-4888-8999-aaaaaaaaaaaa"
WAIT = 60.0  # seconds, for what Fluent Bit does at once when nothing else runs
SCHEMA = """CREATE TABLE in_tail_files (id INTEGER PRIMARY KEY, name TEXT NOT NULL, offset INTEGER, inode INTEGER, created INTEGER,
    rotated INTEGER DEFAULT 0, offset_marker INTEGER DEFAULT 0, offset_marker_size INTEGER DEFAULT 0)"""


class Case(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.dir, self.storage, self.db = self.root / "audit", self.root / "buffer", self.root / "tail.db"
        self.dir.mkdir()
        self.storage.mkdir()
        polling = mock.patch.object(shipped, "_POLL_S", 0.02)
        polling.start()
        self.addCleanup(polling.stop)

    def file(self, number: int, content: bytes = b'{"a":1}\n', process: str = UUID) -> pathlib.Path:
        path = self.dir / f"{process}-{number:06d}.jsonl"
        path.write_bytes(content)
        return path

    def state(self, process: str = UUID, alive: bool = True) -> Any:
        """A state file, locked as by a living process."""
        file = open(self.dir / f"{process}.state", "wb")
        self.addCleanup(file.close)
        if alive:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def delete(self, older_than: float = 0, wait: float = 0) -> tuple[list[str], dict[str, str]]:
        """Names that were deleted, and those that were kept for a reason."""
        with contextlib.redirect_stdout(io.StringIO()) as out:
            result = shipped.delete_shipped(self.dir, self.db, self.storage, older_than, wait)
        deleted = [f.path.name for f in result.deleted]
        self.assertEqual([pathlib.Path(line.split()[1].rstrip(",")).name for line in out.getvalue().splitlines()], deleted)
        for name in deleted:
            self.assertFalse((self.dir / name).exists())
        for path in result.kept:
            self.assertTrue(path.exists())
        return deleted, {path.name: reason for path, reason in result.kept.items()}


class RulesTest(Case):
    def setUp(self) -> None:
        super().setUp()
        self.connection = sqlite3.connect(self.db)
        self.addCleanup(self.connection.close)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(SCHEMA)
        self.connection.commit()

    def read(self, path: pathlib.Path, offset: Optional[int] = None, inode: Optional[int] = None, under: str = "/elsewhere") -> None:
        """Fluent Bit has read the file, to its end or to the offset, and chunks have gone since."""
        info = path.stat()
        self.connection.execute(
            "INSERT INTO in_tail_files (name, offset, inode) VALUES (?, ?, ?)",
            (f"{under}/{path.name}", info.st_size if offset is None else offset, info.st_ino if inode is None else inode),
        )
        self.connection.commit()
        self.chunk("tail.0/1-2.3.flb").unlink()

    def chunk(self, name: str) -> pathlib.Path:
        path = self.storage / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        return path

    def assertKept(self, path: pathlib.Path, reason: str, **how: float) -> None:
        deleted, kept = self.delete(**how)
        self.assertEqual((deleted, list(kept)), ([], [path.name]))
        self.assertRegex(kept[path.name], reason)

    def test_all_is_known(self) -> None:
        path = self.file(1)
        self.read(path)
        self.assertEqual(self.delete(), ([path.name], {}))

    def test_age(self) -> None:
        path = self.file(1)
        self.read(path)
        self.assertEqual(self.delete(older_than=3600), ([], {}))
        os.utime(path, (0, time.time() - 3601))
        self.assertEqual(self.delete(older_than=3600), ([path.name], {}))

    def test_other_files_are_none_of_ours(self) -> None:
        for name in ("x.jsonl", f"{UUID}.jsonl", f"{UUID}-1.jsonl", f"{UUID}-000001.jsonl.gz", f"x{UUID}-000001.jsonl", f"{UUID}-00000١.jsonl", "model-sums.json"):
            path = self.dir / name
            path.write_bytes(b"{}\n")
            self.read(path)
        (self.dir / f"{UUID}-000001.jsonl").symlink_to(self.dir / "x.jsonl")
        (self.dir / f"{UUID}-000002.jsonl").mkdir()
        self.assertEqual(self.delete(), ([], {}))

    def test_the_last_two_of_a_living_process_stay(self) -> None:
        state = self.state()
        paths = [self.file(n) for n in (1, 2, 999999, 1000000)]
        for path in paths:
            self.read(path)
        self.assertEqual(self.delete(), ([p.name for p in paths[:2]], {}))
        (self.dir / f"{UUID}.state").unlink()
        state.close()
        self.assertEqual(self.delete(), ([p.name for p in paths[2:]], {}))

    def test_all_of_a_killed_process_stay_until_that_is_said(self) -> None:
        self.state(alive=False)
        paths = [self.file(n) for n in (1, 2, 3)]
        other = self.file(1, process=OTHER)
        for path in [*paths, other]:
            self.read(path)
        deleted, kept = self.delete()
        self.assertEqual((deleted, list(kept)), ([other.name], [p.name for p in paths]))
        self.assertIn("was killed", kept[paths[0].name])

    def test_not_read(self) -> None:
        line = b'{"a":1}\n'
        for name, content, offset, reason in (
            ("not in the database", line, None, "does not have it"),
            ("in part", line * 2, 8, "has read to 8 of 16 bytes"),
            ("nothing", line, 0, "has read to 0 of 8 bytes"),
            ("lines after what is torn", line + b'{"a\n{"b', 8, "has read to 8 of 15"),
            ("within a line", line + b'{"a', 10, "within a line"),
            ("into what is torn", line + b'{"a', 11, "within a line"),
            ("more than there is", line, 9, "has read to 9, and it has 8 bytes"),
            ("less than nothing", line, -1, "has read to -1"),
        ):
            with self.subTest(name):
                path = self.file(1, content)
                self.connection.execute("DELETE FROM in_tail_files")
                self.connection.commit()
                if offset is not None:
                    self.read(path, offset)
                self.assertKept(path, reason)

    def test_what_was_torn_is_no_line(self) -> None:
        for content, offset in ((b'{"a":1}\n{"b', 8), (b'{"b', 0), (b"", 0), (b"\n" + b"x" * (3 << 20), 1)):
            path = self.file(1, content)
            self.connection.execute("DELETE FROM in_tail_files")
            self.read(path, offset)
            self.assertEqual(self.delete(), ([path.name], {}))

    def test_another_file(self) -> None:
        path = self.file(1)
        self.read(path, inode=path.stat().st_ino + 1)
        other = self.file(2, process=OTHER)
        self.connection.execute("INSERT INTO in_tail_files (name, offset, inode) VALUES (?, 8, ?)", (f"/x/{other.name}x", other.stat().st_ino))
        self.connection.commit()
        deleted, kept = self.delete()
        self.assertEqual(deleted, [])
        self.assertEqual({*kept.values()}, {"Fluent Bit's database does not have it"})

    def test_more_than_once(self) -> None:
        path = self.file(1)
        self.read(path)
        self.read(path, offset=0, under="/another")
        self.assertKept(path, "more than once")

    def test_chunks_that_wait(self) -> None:
        for name in ("tail.0/12-345.678901234.flb", "tail.0/12-345.   678901.flb", "http.1/12-345.1.flb"):
            path = self.file(1)
            self.read(path)
            chunk = self.chunk(name)
            self.assertKept(path, "1 of Fluent Bit's chunks .* have not arrived: .*" + chunk.name.replace(".", r"\."), wait=0.05)
            chunk.unlink()
            self.assertEqual(self.delete(), ([path.name], {}))
            self.connection.execute("DELETE FROM in_tail_files")

    def test_later_chunks_are_not_waited_for(self) -> None:
        path = self.file(1)
        self.read(path)
        chunk = self.chunk("tail.0/1-1.1.flb")
        poll = time.sleep

        def sleep(seconds: float) -> None:
            if chunk.exists():
                self.chunk("tail.0/1-2.2.flb")
                chunk.unlink()
            poll(seconds)

        with mock.patch.object(shipped.time, "sleep", sleep):
            self.assertEqual(self.delete(wait=WAIT), ([path.name], {}))

    def test_rejected_chunks(self) -> None:
        for name in ("rejected/vllm.audit_0_forward.0_0x7f35f005dff0.flb", "x.flb", "tail.0/1-2.3x.flb"):
            path = self.file(1)
            self.read(path)
            chunk = self.chunk(name)
            self.assertKept(path, "kept 1 rejected chunks")
            chunk.unlink()
            self.connection.execute("DELETE FROM in_tail_files")

    def test_a_chunk_that_is_rejected_meanwhile(self) -> None:
        path = self.file(1)
        self.read(path)
        chunk = self.chunk("tail.0/1-1.1.flb")

        def sleep(seconds: float) -> None:
            self.chunk("rejected/vllm.audit_0_forward.0_0x1.flb")
            chunk.unlink()

        with mock.patch.object(shipped.time, "sleep", sleep):
            self.assertKept(path, "kept 1 rejected chunks", wait=WAIT)

    def test_a_file_that_changes_meanwhile(self) -> None:
        path = self.file(1)
        self.read(path)
        chunk = self.chunk("tail.0/1-1.1.flb")

        def sleep(seconds: float) -> None:
            with open(path, "ab") as file:
                file.write(b"{}\n")
            chunk.unlink()

        with mock.patch.object(shipped.time, "sleep", sleep):
            self.assertKept(path, "changed meanwhile", wait=WAIT)

    def test_the_wrong_storage(self) -> None:
        path = self.file(1)
        self.read(path)
        os.utime(self.storage / "tail.0", (0, path.stat().st_mtime - 1))
        self.assertKept(path, "is it Fluent Bit's storage.path")
        (self.storage / "tail.0").rename(self.storage / "http.0")
        self.assertKept(path, "is it Fluent Bit's storage.path")

    def test_what_cannot_be_told(self) -> None:
        for name, change in {
            "no database": lambda: setattr(self, "db", self.root / "gone.db"),
            "no tail database": lambda: self.connection.execute("DROP TABLE in_tail_files"),
            "another table": lambda: self.connection.execute("ALTER TABLE in_tail_files RENAME COLUMN offset TO place"),
            "another kind of place": lambda: self.connection.execute("UPDATE in_tail_files SET offset = 'end'"),
            "no number": lambda: self.connection.execute("UPDATE in_tail_files SET inode = NULL"),
            "no storage": lambda: shutil.rmtree(self.storage),
            "no directory": lambda: shutil.rmtree(self.dir),
        }.items():
            with self.subTest(name):
                self.doCleanups()
                self.setUp()
                self.read(self.file(1))
                change()
                self.connection.commit()
                with self.assertRaises((fluentbit.UnknownError, OSError)):
                    self.delete()

    def test_limits(self) -> None:
        path = self.file(1)
        self.read(path)
        self.chunk("tail.0/1-1.1.flb")
        for limit in ("MAX_ROWS", "MAX_CHUNKS"):
            with mock.patch.object(fluentbit, limit, 0), self.assertRaisesRegex(fluentbit.UnknownError, "has more than 0"):
                self.delete()

    def test_the_command(self) -> None:
        def run(*more: str) -> tuple[int, str, str]:
            command = ["-m", "auditchain_asgi.shipped", "--dir", self.dir, "--db", self.db, "--storage", self.storage, *more]
            done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
            return done.returncode, done.stdout, done.stderr

        path = self.file(1)
        self.read(path, 0)
        self.assertEqual(run(), (0, "", ""))
        self.assertEqual(run("--older-than", "0s"), (1, "", f"kept {path}: Fluent Bit has read to 0 of 8 bytes\n"))
        self.connection.execute("UPDATE in_tail_files SET offset = 8")
        self.connection.commit()
        self.assertEqual(run("--older-than", "0s"), (0, f"deleted {path}, 8 bytes\n", ""))
        self.db = self.root / "gone.db"
        self.assertEqual(run(), (2, "", f"shipped: {self.db}: unable to open database file\n"))
        code, _, said = run("--older-than", "1w")
        self.assertEqual(code, 2)
        self.assertIn("'1w' is not like 90s, 10m, 12h or 7d", said)


class FluentBit:
    """The real one."""

    def __init__(self, directory: pathlib.Path, name: str, config: dict) -> None:
        file = directory / f"{name}.yaml"
        file.write_text(json.dumps(config))  # which is YAML
        self.log = directory / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([program(), "-c", file], stdout=log, stderr=log)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(WAIT)


def program() -> Optional[str]:
    return shutil.which(os.environ.get("FLUENT_BIT", "fluent-bit"))


@unittest.skipUnless(program(), "fluent-bit is not installed")
class FluentBitTest(Case):
    def setUp(self) -> None:
        super().setUp()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def node(self, storage_type: str = "filesystem", output: Optional[dict] = None, **tail: str) -> FluentBit:
        """Fluent Bit on the GPU server."""
        forward = {"name": "forward", "match": "*", "host": "127.0.0.1", "port": self.port, "require_ack_response": "on", "retry_limit": "no_limits"}
        tail_input = {
            "name": "tail", "tag": "vllm.audit", "path": f"{self.dir}/*.jsonl", "read_from_head": "on", "refresh_interval": 1,
            "db": str(self.db), "db.compare_filename": "on", "storage.type": storage_type, **tail,
        }
        service = {
            "flush": 0.2, "grace": 1, "storage.path": str(self.storage), "storage.sync": "full", "storage.keep.rejected": "on",
            "scheduler.base": 1, "scheduler.cap": 1,
        }
        node = FluentBit(self.root, "node", {"service": service, "pipeline": {"inputs": [tail_input], "outputs": [output or forward]}})
        self.addCleanup(node.stop, signal.SIGKILL)
        return node

    def aggregator(self) -> FluentBit:
        """Fluent Bit that takes what is forwarded, and writes it to a file."""
        output = {"name": "file", "match": "*", "path": str(self.root), "file": "arrived", "format": "plain"}
        pipeline = {"inputs": [{"name": "forward", "listen": "127.0.0.1", "port": self.port}], "outputs": [output]}
        aggregator = FluentBit(self.root, "aggregator", {"service": {"flush": 0.2, "grace": 1}, "pipeline": pipeline})
        self.addCleanup(aggregator.stop, signal.SIGKILL)
        return aggregator

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"{what} did not come; {(self.root / 'node.log').read_text()}")
            time.sleep(0.05)

    def has_read(self, path: pathlib.Path, offset: int) -> Callable[[], bool]:
        def condition() -> bool:
            with contextlib.suppress(fluentbit.UnknownError):
                return offset in fluentbit.offsets(self.db).get((path.name, path.stat().st_ino), [])
            return False

        return condition

    def arrived(self, text: str) -> Callable[[], bool]:
        path = self.root / "arrived"
        return lambda: path.exists() and text in path.read_text()

    def test_nothing_is_deleted_before_the_aggregator_has_it(self) -> None:
        content = b'{"line":"first"}\n{"line":"last"}\n'
        path, torn = self.file(1, content), self.file(1, content + b'{"line":"to', process=OTHER)
        node = self.node()
        for p in (path, torn):
            self.until("reading", self.has_read(p, len(content)))
        for again in (False, True):
            deleted, kept = self.delete(wait=0.5)
            self.assertEqual((deleted, set(kept)), ([], {path.name, torn.name}))
            self.assertRegex(kept[path.name], "chunks may hold lines of it and have not arrived")
            if not again:  # killed, and started again, which finds its chunks and its database
                node.stop(signal.SIGKILL)
                self.assertEqual(self.delete(wait=0)[0], [])
                node = self.node()
                self.until("the start", lambda: "forward" in (self.root / "node.log").read_text())

        result = []
        waiting = threading.Thread(target=lambda: result.append(self.delete(wait=WAIT)))
        waiting.start()
        self.aggregator()
        waiting.join(WAIT)
        self.assertEqual(result, [([path.name, torn.name], {})])
        # What was deleted had arrived before that.
        self.until("the aggregator's file", self.arrived("last"))

        # A file that got the inode of a deleted one is another file.
        reborn = self.file(2, b'{"line":"reborn"}\n')
        self.until("arriving", self.arrived("reborn"))
        self.until("reading", self.has_read(reborn, 18))
        self.assertEqual(self.delete(wait=WAIT), ([reborn.name], {}))

        # Fluent Bit has ended, and has nothing left.
        last = self.file(3, b'{"line":"at last"}\n')
        self.until("arriving", self.arrived("at last"))
        node.stop()
        self.assertEqual(self.delete(wait=WAIT), ([last.name], {}))

    def test_lines_that_are_written_while_it_runs(self) -> None:
        """Whatever is deleted has arrived by then, under a stream of lines."""
        self.node()
        self.aggregator()
        deleted = []
        for number in range(1, 16):
            path = self.file(number, b"".join(b'{"line":"%d-%d"}\n' % (number, i) for i in range(200)))
            self.until("reading", self.has_read(path, path.stat().st_size))
            deleted += self.delete(wait=WAIT)[0]
        self.assertEqual(len(deleted), 15)
        self.until("arriving", self.arrived("15-199"))
        arrived = (self.root / "arrived").read_text()
        for number in range(1, 16):
            for i in range(200):
                self.assertEqual(arrived.count(f':\\"{number}-{i}\\"'), 1)

    def test_chunks_in_memory_are_noticed(self) -> None:
        path = self.file(1)
        self.node(storage_type="memory")
        self.until("reading", self.has_read(path, 8))
        deleted, kept = self.delete()
        self.assertEqual(deleted, [])
        self.assertIn("storage.type filesystem", kept[path.name])

    def test_a_rejected_chunk_stops_everything(self) -> None:
        path = self.file(1)
        server = socket.create_server(("127.0.0.1", self.port))
        self.addCleanup(server.close)

        def refuse() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        self.node(output={"name": "http", "match": "*", "host": "127.0.0.1", "port": self.port, "retry_limit": 1})
        self.until("reading", self.has_read(path, 8))
        self.until("rejecting", lambda: bool(fluentbit.chunks(self.storage).rejected))
        deleted, kept = self.delete(wait=WAIT)
        self.assertEqual(deleted, [])
        self.assertIn("rejected chunks, which did not arrive", kept[path.name])

    def test_a_line_that_is_too_long_keeps_its_file(self) -> None:
        path = self.file(1, b'{"a":1}\n' + b'{"b":"' + b"x" * 100_000 + b'"}\n')
        self.aggregator()
        self.node(buffer_max_size="64K", buffer_chunk_size="32K")
        self.until("giving up", lambda: "lines are too long" in (self.root / "node.log").read_text())
        deleted, kept = self.delete(wait=WAIT)
        self.assertEqual(deleted, [])
        self.assertIn("has read to", kept[path.name])

    def test_a_database_that_others_may_not_read(self) -> None:
        self.file(1)
        self.node(**{"db.locking": "true"})
        self.until("reading", lambda: bool(fluentbit.chunks(self.storage).waiting))
        with mock.patch.object(fluentbit, "_BUSY_S", 0.1), self.assertRaisesRegex(fluentbit.UnknownError, "locked"):
            self.delete()


if __name__ == "__main__":
    unittest.main()
