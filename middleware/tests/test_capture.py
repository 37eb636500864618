import hashlib
import random
import unittest

from auditchain_asgi.capture import TAIL, Capture


class Kept(unittest.TestCase):
    def test_any_parts(self):
        chance = random.Random(2)
        for size in (0, 1, 10, 99, 100, 101, 5000, TAIL + 100, 2 * TAIL + 100, 2 * TAIL + 101, 5 * TAIL):
            body = chance.randbytes(size)
            for part in (1, 7, 100, 4096, TAIL - 1, TAIL, TAIL + 1, 10 * TAIL):
                if size // part > 20_000:
                    continue
                kept = Capture(hashlib.sha256(), 100)
                for at in range(0, size, part):
                    kept.add(body[at : at + part])
                    self.assertLessEqual(len(kept.head) + len(kept.tail), 100 + 2 * TAIL)
                self.assertEqual(kept.size, size)
                self.assertEqual(kept.running.hexdigest(), hashlib.sha256(body).hexdigest())
                self.assertEqual(kept.head, body[:100])
                self.assertEqual(kept.whole, size <= 100)
                if kept.gapless:
                    self.assertEqual(bytes(kept.head + kept.tail), body)
                for count in (1, 50, TAIL):
                    last = kept.last(count)
                    self.assertTrue(body.endswith(last))
                    self.assertEqual(len(last), min(count, size))


if __name__ == "__main__":
    unittest.main()
