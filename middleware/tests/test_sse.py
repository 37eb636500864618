import random
import unittest

from auditchain_asgi import sse


def read(parts) -> list:
    reader = sse.Reader()
    return [data for part in parts for data in reader.add(part)] + reader.end()


class Reading(unittest.TestCase):
    def test_events(self):
        for want, stream in (
            ([], b""),
            ([b"a"], b"data: a\n\n"),
            ([b"a", b"b"], b"data: a\n\ndata:b\n\n"),
            ([b"a", b"b"], b"data: a\r\n\r\ndata:b\r\n\r\n"),
            ([b"a", b"b"], b"data: a\r\rdata:b\r\r"),
            ([b"a\nb"], b"data: a\r\ndata: b\r\n\r\n"),
            ([b"a\nb"], b"data: a\rdata: b\n\r"),
            ([b"a", b"b"], b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n"),
            ([b"a"], b": comment\n\nevent: e\nid: 1\ndata: a\nretry: 5\n\nevent: none\n\n"),
            ([b"", b"a"], b"data:\n\ndata: a"),
            ([b"a", b"b"], b"data: a\n\ndata: b\r"),
            ([b"a", b"b"], b"data: a\r\n\ndata: b\n\r\n"),
        ):
            self.assertEqual(sse.datas(stream), want)
            for at in range(len(stream) + 1):
                self.assertEqual(read([stream[:at], stream[at:]]), want, (stream, at))
            self.assertEqual(read(stream[at : at + 1] for at in range(len(stream))), want, stream)

    def test_at_once(self):
        """An event comes with the part that ends it."""
        for parts, want in (
            ([b"data: a\n", b"\n"], [[], [b"a"]]),
            ([b"data: a\r\n\r", b"\n"], [[], [b"a"]]),
            ([b"data: a\n\ndata: b\n\ndata:", b" c\n\n\n", b"data: d"], [[b"a", b"b"], [b"c"], []]),
        ):
            reader = sse.Reader()
            self.assertEqual([reader.add(part) for part in parts], want)

    def test_as_the_whole(self):
        chance = random.Random(9)
        for _ in range(5000):
            stream = b"".join(chance.choices((b"\n", b"\r", b"\r\n", b"data:", b"data: x", b"y", b" ", b":"), k=chance.randrange(1, 40)))
            parts, at = [], 0
            while at < len(stream):
                size = chance.randrange(1, 9)
                parts.append(stream[at : at + size])
                at += size
            self.assertEqual(read(parts), sse.datas(stream), parts)


if __name__ == "__main__":
    unittest.main()
