import errno
import os
import pathlib
import random
import stat
from unittest import mock

from asgi import Case
from auditchain_asgi.lines import Files


class GaveUp(Exception):
    pass


class Written(Case):
    def setUp(self):
        super().setUp()
        self.failures = []
        self.may_fail = 1000

    def failed(self, error):
        self.failures.append(error)
        if len(self.failures) > self.may_fail:
            raise GaveUp

    def files(self, size_limit=1 << 20) -> Files:
        files = Files(self.dir, "name", size_limit, self.failed)
        self.addCleanup(files.close)
        return files

    def whole_lines(self):
        """Lines with an end, in the order of the files."""
        found = []
        for path in sorted(self.dir.iterdir()):
            found += [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return found

    def test_rolls(self):
        files = self.files(size_limit=100)
        wanted = []
        for n in range(50):
            line = b"%d" % n * (n + 1) + b"\n"
            files.append(line)
            self.assertTrue(files.sync())
            wanted.append(line)
        self.assertEqual(self.whole_lines(), wanted)
        paths = sorted(self.dir.iterdir())
        self.assertGreater(len(paths), 10)
        self.assertEqual([p.name for p in paths], [f"name-{n + 1:06d}.jsonl" for n in range(len(paths))])
        for path in paths[:-1]:
            self.assertGreaterEqual(path.stat().st_size, 100)

    def test_mode(self):
        old = os.umask(0o077)
        self.addCleanup(os.umask, old)
        files = self.files()
        files.append(b"x\n")
        self.assertEqual(stat.S_IMODE((self.dir / "name-000001.jsonl").stat().st_mode), 0o640)

    def test_never_another_file(self):
        """A file that is there already is not written to."""
        (self.dir / "name-000001.jsonl").write_bytes(b"other\n")
        self.may_fail = 3
        with self.assertRaises(GaveUp):
            self.files().append(b"x\n")
        self.assertEqual(self.whole_lines(), [b"other\n"])

    def test_deleted(self):
        files = self.files()
        files.append(b"a\n")
        (self.dir / "name-000001.jsonl").unlink()
        files.append(b"b\n")
        self.assertEqual(self.whole_lines(), [b"b\n"])
        self.assertEqual(len(self.failures), 1)

    def test_faults(self):
        """Whatever writes do, each line gets in whole, once, and in order."""
        real = os.write
        for seed in range(100):
            chance = random.Random(seed)
            kinds = chance.choice(((errno.ENOSPC,), (errno.EIO,), (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, 0)))

            def write(fd, data):
                if chance.random() < 0.3:
                    kind = chance.choice(kinds)
                    if not kind:
                        return 0
                    raise OSError(kind, os.strerror(kind))
                if chance.random() < 0.5:
                    data = data[: chance.randrange(1, len(data) + 1)]
                return real(fd, data)

            for path in self.dir.iterdir():
                path.unlink()
            self.failures.clear()
            files = self.files(size_limit=chance.choice((50, 1 << 20)))
            wanted = []
            with mock.patch("auditchain_asgi.lines.os.write", write):
                for n in range(20):
                    batch = [b"%d-%d" % (n, m) * chance.randrange(1, 5) + b"\n" for m in range(chance.randrange(1, 4))]
                    files.append(b"".join(batch))
                    wanted += batch
            files.close()
            # What a fault tore has no end; what has one is whole.
            self.assertEqual(self.whole_lines(), wanted, seed)
            if kinds == (errno.ENOSPC,):
                self.assertEqual(b"".join(p.read_bytes() for p in sorted(self.dir.iterdir())), b"".join(wanted), "a full disk tears no line")

    def test_no_file(self):
        """A file that cannot be made is tried again."""
        real, refusals = os.open, [errno.ENOSPC, errno.EACCES, errno.EMFILE]

        def refuse(path, *args):
            if refusals and str(path).endswith(".jsonl"):
                raise OSError(refusals.pop(), "refused")
            return real(path, *args)

        files = self.files()
        with mock.patch("auditchain_asgi.lines.os.open", refuse):
            files.append(b"a\n")
        self.assertEqual(self.whole_lines(), [b"a\n"])
        self.assertEqual(len(self.failures), 3)

    def test_sync_fails(self):
        files = self.files()
        files.append(b"a\n")
        with mock.patch("auditchain_asgi.lines.os.fsync", side_effect=OSError(errno.EIO, "refused")):
            self.assertFalse(files.sync())
        files.append(b"b\n")
        self.assertTrue(files.sync())
        self.assertEqual((self.dir / "name-000001.jsonl").read_bytes(), b"a\n")
        self.assertEqual((self.dir / "name-000002.jsonl").read_bytes(), b"b\n")

    def test_full_disk(self):
        """A file system that is really full."""
        full = pathlib.Path("/dev/full")
        if not full.exists():
            self.skipTest("there is no /dev/full")
        files = self.files()
        files.append(b"a\n")
        own, files._fd = files._fd, os.open(full, os.O_WRONLY)
        os.close(own)
        self.may_fail = 2
        with self.assertRaises(GaveUp):
            files.append(b"b\n")
        self.assertEqual([e.errno for e in self.failures], [errno.ENOSPC] * 3)
