import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import types
import unittest
from unittest import mock

from auditchain_asgi import checksum, sums
from auditchain_asgi.model import MAX_MODELS, Models

GIVEN = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
WAIT = 20  # seconds, for what comes at once


def of(**files: bytes) -> str:
    """The checksum of a model with these files."""
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


class Case(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = pathlib.Path(directory.name)
        self.cache = self.dir / "cache"
        settled = mock.patch.object(sums, "SETTLED_NS", 0)  # so that the sums of new files are kept
        settled.start()
        self.addCleanup(settled.stop)

    def model(self, name: str, **files: bytes) -> pathlib.Path:
        path = self.dir / name
        path.mkdir()
        for file, content in files.items():
            (path / file).write_bytes(content)
        return path


class ModelsTest(Case):
    def started(self, spec: str, count: int) -> Models:
        """Models after count of them have become known or failed."""
        changes = threading.Semaphore(0)
        models = Models(spec, self.cache, changes.release)
        models.start()
        self.wait(changes, count)
        self.changes = changes
        return models

    def wait(self, changes: threading.Semaphore, count: int) -> None:
        for _ in range(count):
            self.assertTrue(changes.acquire(timeout=WAIT), "no checksum became known")

    def test_for_any_id(self) -> None:
        models = self.started(str(self.model("m", a=b"1", b=b"2")), 1)
        want = of(a=b"1", b=b"2")
        for model_id in ("llama", None):
            self.assertEqual(models.checksum(model_id), want)
            self.assertIsNone(models.lora(model_id))
        self.assertEqual(models.describe(), [{"checksum": want}])

    def test_by_name(self) -> None:
        m, lora, odd = self.model("m", a=b"1"), self.model("l", a=b"2"), self.model("x=y", a=b"3")
        models = self.started(f"one={m}, two={GIVEN},{odd},lora/support={lora},lora/given={OTHER}", 3)
        self.assertEqual(models.checksum("one"), of(a=b"1"))
        self.assertEqual(models.checksum("two"), GIVEN)
        self.assertEqual(models.checksum("support"), of(a=b"3"), "the base of an adapter")
        self.assertEqual(models.lora("support"), ("support", of(a=b"2")))
        self.assertEqual(models.lora("given"), ("given", OTHER))
        self.assertEqual(
            models.describe(),
            [
                {"name": "one", "checksum": of(a=b"1")},
                {"name": "two", "checksum": GIVEN},
                {"checksum": of(a=b"3")},
                {"name": "support", "checksum": of(a=b"2"), "lora": True},
                {"name": "given", "checksum": OTHER, "lora": True},
            ],
        )

    def test_base_of_an_adapter(self) -> None:
        one = Models(f"llama={GIVEN},lora/l={OTHER}", self.cache, lambda: None)
        self.assertEqual([one.checksum(i) for i in ("llama", "l", "other", None)], [GIVEN, GIVEN, None, None])
        two = Models(f"a={GIVEN},b={OTHER},lora/l={OTHER}", self.cache, lambda: None)
        self.assertIsNone(two.checksum("l"), "either could be the base")
        self.assertIsNone(Models("", self.cache, lambda: None).checksum("llama"))

    def test_not_known_before_it_is_computed(self) -> None:
        models = Models(f"a={self.model('m', a=b'1')}", self.cache, lambda: None)
        self.assertIsNone(models.checksum("a"))
        self.assertEqual(models.describe(), [{"name": "a", "checksum": None}])

    def test_failure(self) -> None:
        models = self.started(f"a={self.dir}/gone,b={self.model('m', a=b'1')}", 2)
        self.assertIsNone(models.checksum("a"))
        self.assertEqual(models.checksum("b"), of(a=b"1"), "the next one is computed all the same")
        self.assertIn("No such file or directory", models.describe()[0]["error"])

    def test_a_failing_callback_stops_nothing(self) -> None:
        done = threading.Semaphore(0)

        def changed() -> None:
            done.release()
            raise RuntimeError("changed")

        with self.assertLogs("auditchain_asgi.model", "ERROR"):
            Models(f"a={self.model('m', a=b'1')},b={self.model('n', a=b'1')}", self.cache, changed).start()
            self.wait(done, 2)

    def test_a_model_that_is_not_there_is_said_aloud(self) -> None:
        for spec, want in (
            ("/no/such", "AUDITCHAIN_MODEL: the checksum of the model for any id is not known"),
            ("a=/no/such", "AUDITCHAIN_MODEL: the checksum of the model 'a' is not known"),
            ("lora/a=/no\nsuch", "AUDITCHAIN_MODEL or load_lora_adapter: the checksum of the model 'a' is not known"),
        ):
            with self.subTest(spec), self.assertLogs("auditchain_asgi.model", "ERROR") as logs:
                self.started(spec, 1)
                self.assertIn(want, logs.output[0])
                self.assertIn("/no", logs.output[0])
                self.assertNotIn("\n", logs.output[0])

    def test_adapters_come_and_go(self) -> None:
        models = self.started(GIVEN, 0)
        first, second = self.model("l1", a=b"1"), self.model("l2", a=b"2")
        models.load_lora("l", str(first))
        self.assertEqual(models.checksum("l"), GIVEN)
        self.wait(self.changes, 1)
        self.assertEqual(models.lora("l"), ("l", of(a=b"1")))
        models.load_lora("l", str(second))
        self.wait(self.changes, 1)
        self.assertEqual(models.lora("l"), ("l", of(a=b"2")))
        models.unload_lora("l")
        models.unload_lora("never")
        self.assertIsNone(models.lora("l"))

    def test_what_a_client_names_is_never_believed(self) -> None:
        models = self.started(OTHER, 0)
        for path in (GIVEN, "org/adapter", "\0", "\ud800"):
            models.load_lora("l", path)
            self.wait(self.changes, 1)
            self.assertEqual(models.lora("l"), ("l", None), path)
            json.dumps(models.describe(), ensure_ascii=False).encode()

    def test_number_of_adapters(self) -> None:
        models = Models(GIVEN, self.cache, lambda: None)
        for i in range(MAX_MODELS):
            models.load_lora(str(i), "x")
        with self.assertLogs("auditchain_asgi.model", "WARNING"):
            models.load_lora("more", "x")
        self.assertIsNone(models.lora("more"))
        models.load_lora("0", "y")
        self.assertEqual(len(models.describe()), MAX_MODELS + 1)

    def test_invalidate(self) -> None:
        models = self.started(f"a={self.model('m', a=b'1')},b={GIVEN},lora/l={OTHER}", 1)
        models.invalidate()
        self.assertEqual([models.checksum(i) for i in ("a", "b")], [None, None])
        self.assertEqual(models.lora("l"), ("l", OTHER))
        self.assertIn("changed while they were served", models.describe()[1]["error"])

    def test_invalidated_or_unloaded_while_it_is_computed(self) -> None:
        begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
        compute = checksum.checksum

        def slow(path: str, kept: sums.Sums) -> str:
            begun.release()
            go_on.acquire(timeout=WAIT)
            return compute(path, kept)

        with mock.patch.object(checksum, "checksum", slow):
            changes = threading.Semaphore(0)
            m, n = self.model("m", a=b"1"), self.model("n", a=b"1")
            models = Models(f"{m},lora/l={m},lora/last={n}", self.cache, changes.release)
            models.start()
            self.wait(begun, 1)
            models.invalidate()
            go_on.release()
            self.wait(begun, 1)
            models.unload_lora("l")
            go_on.release()
            go_on.release()
            self.wait(changes, 1)
        self.assertIsNone(models.checksum("any"))
        self.assertIsNone(models.lora("l"))
        self.assertEqual(models.lora("last"), ("last", of(a=b"1")))

    def test_specs(self) -> None:
        for spec, want in {
            "a=": "names no directory",
            "=a": "has no name before the =",
            "lora/=a": "has no name before the =",
            "a=b,": "names no directory",
            ",": "names no directory",
            "a=sha256:00": "is not sha256: and 64 digits",
            "sha256:" + "AB" * 32: "is not sha256: and 64 digits",
            "lora/l": "is written lora/NAME=DIRECTORY",
            "/a,/b": "two of them are for any id",
            "a=/a,a=/b": "two of them are for 'a'",
            "lora/a=/a,lora/a=/b": "two of them are for 'a'",
            "a\x1b=/a": "is not plain text",
            "\udcff=/a": "is not plain text",
            ",".join(f"m{i}=/a" for i in range(MAX_MODELS + 1)): "at most 1000 may be",
        }.items():
            with self.subTest(spec=spec[:40]), self.assertRaises(ValueError) as raised:
                Models(spec, self.cache, lambda: None)
            self.assertIn(want, str(raised.exception))


class SumsTest(Case):
    def compute(self, path: pathlib.Path) -> tuple[str, int]:
        """The checksum, and how many bytes were hashed for it: those of files, and the manifest's."""
        hashed = 0

        class Counting:
            def __init__(self, data: bytes = b"") -> None:
                self.digest = hashlib.sha256()
                self.update(data)

            def update(self, data: bytes) -> None:
                nonlocal hashed
                hashed += len(data)
                self.digest.update(data)

            def hexdigest(self) -> str:
                return self.digest.hexdigest()

        with mock.patch.object(checksum, "hashlib", types.SimpleNamespace(sha256=Counting)), sums.Sums(self.cache) as kept:
            result = checksum.checksum(str(path), kept)
        return result, hashed - 64 - len("  a\n")

    def test_kept(self) -> None:
        m = self.model("m", a=b"12345")
        want = of(a=b"12345")
        self.assertEqual(self.compute(m), (want, 5))
        self.assertEqual(self.compute(m), (want, 0))
        self.assertEqual(os.stat(self.cache).st_mode & 0o777, 0o700)
        self.assertEqual(sorted(p.name for p in self.cache.iterdir()), ["model-sums.json", "model-sums.lock"])

    def test_changed_files_are_read_again(self) -> None:
        m = self.model("m", a=b"12345")
        self.compute(m)
        info = os.stat(m / "a")
        (m / "a").write_bytes(b"54321")
        os.utime(m / "a", ns=(info.st_atime_ns, info.st_mtime_ns))  # only the ctime tells
        self.assertEqual(self.compute(m), (of(a=b"54321"), 5))

    def test_new_files_are_not_kept(self) -> None:
        m = self.model("m", a=b"12345")
        with mock.patch.object(sums, "SETTLED_NS", 3600 * 10**9):
            self.compute(m)
        self.assertEqual(self.compute(m)[1], 5)

    def test_damaged(self) -> None:
        m = self.model("m", a=b"12345")
        self.compute(m)
        file = self.cache / "model-sums.json"
        good = file.read_bytes()
        kept = json.loads(good)
        path, *numbers, digest = kept["sums"][0]
        self.assertEqual(self.compute(m)[1], 0)
        for damaged in (
            b"",
            good[:-1],
            b"\xff" * 100,
            b"[" * 100_000,
            b"null",
            json.dumps({"version": 2, "sums": kept["sums"]}).encode(),
            json.dumps({"version": 1, "sums": {}}).encode(),
            json.dumps({"version": 1, "sums": [[path, *numbers]]}).encode(),
            json.dumps({"version": 1, "sums": [[1, *numbers, digest]]}).encode(),
            json.dumps({"version": 1, "sums": [[path, *numbers, digest[:-1]]]}).encode(),
            json.dumps({"version": 1, "sums": [[path, *numbers, digest.upper()]]}).encode(),
            json.dumps({"version": 1, "sums": [[path, *numbers[1:], 1.5, digest]]}).encode(),
            good + b" " * sums.MAX_BYTES,
        ):
            with self.subTest(damaged[:30]):
                file.write_bytes(damaged)
                with self.assertLogs("auditchain_asgi.sums", "WARNING"):
                    self.assertEqual(self.compute(m), (of(a=b"12345"), 5))
                self.assertEqual(self.compute(m)[1], 0, "it was not made anew")

    def test_a_directory_that_cannot_be_used(self) -> None:
        self.cache.write_text("a file")
        m = self.model("m", a=b"12345")
        with self.assertLogs("auditchain_asgi.sums", "WARNING"):
            self.assertEqual(self.compute(m), (of(a=b"12345"), 5))

    def test_number_of_entries(self) -> None:
        a, b, c = (self.model(name, a=b"12345") for name in "abc")
        with mock.patch.object(sums, "MAX_ENTRIES", 2):
            for m in (a, b, a, c):
                self.compute(m)
        self.assertEqual([self.compute(m)[1] for m in (a, c, b)], [0, 0, 5])

    def test_changes_while_it_is_read(self) -> None:
        m = self.model("m", a=b"12345")
        for name, change in {
            "grows": lambda: (m / "a").write_bytes(b"123456"),
            "rewritten": lambda: (m / "a").write_bytes(b"54321"),
            "replaced": lambda: os.replace(self.model("other", a=b"12345") / "a", m / "a"),
            "gone": lambda: (m / "a").unlink(),
        }.items():
            (m / "a").write_bytes(b"12345")

            class Changing:
                def __init__(self) -> None:
                    change()

                def update(self, data: bytes) -> None: ...

                def hexdigest(self) -> str:
                    return "0" * 64

            os.utime(m / "a", ns=(0, 0))
            with self.subTest(name), mock.patch.object(checksum, "hashlib", types.SimpleNamespace(sha256=Changing)), sums.Sums(self.cache) as kept:
                with self.assertRaises((checksum.ModelError, FileNotFoundError)):
                    checksum.manifest(os.fsencode(m), kept)

    def test_another_mode_is_no_other_content(self) -> None:
        m = self.model("m", a=b"12345")

        class Changing:
            def __init__(self) -> None:
                os.chmod(m / "a", 0o600)

            def update(self, data: bytes) -> None: ...

            def hexdigest(self) -> str:
                return "0" * 64

        with mock.patch.object(checksum, "hashlib", types.SimpleNamespace(sha256=Changing)), sums.Sums(self.cache) as kept:
            checksum.manifest(os.fsencode(m), kept)

    def test_processes_that_start_at_once_read_once(self) -> None:
        m = self.model("m", a=os.urandom(64 << 20))
        program = f"""
import os, pathlib, sys
from auditchain_asgi import checksum, sums
sums.SETTLED_NS = 0
sys.stdin.readline()
with sums.Sums(pathlib.Path({str(self.cache)!r})) as kept:
    print(checksum.checksum({str(m)!r}, kept))
print(next(line for line in open("/proc/self/io") if line.startswith("rchar")).split()[1])
"""
        root = str(pathlib.Path(__file__).parents[1])
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root},
            )
            for _ in range(4)
        ]
        for p in processes:
            p.stdin.write("\n")
            p.stdin.flush()
        answers = [p.communicate(timeout=60)[0].split() for p in processes]
        self.assertEqual({a[0] for a in answers}, {of(a=(m / "a").read_bytes())})
        self.assertEqual(sum(int(a[1]) > 64 << 20 for a in answers), 1, answers)


if __name__ == "__main__":
    unittest.main()
