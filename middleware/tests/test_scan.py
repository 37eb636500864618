import json
import random
import unittest

from auditchain_asgi import scan

KEYS = ("model", "user", "stream", "usage", "id", 'mo"del', "\\", "model\\", "{", "]", "a,b")


def value(chance, depth):
    kind = chance.randrange(9 if depth else 6)
    if kind == 0:
        return chance.choice((None, True, False))
    if kind == 1:
        return chance.choice((0, -1, 12345, 0.5, 1e30))
    if kind < 6:
        return "".join(chance.choice(('"', "\\", "{", "}", "[", "]", ",", ":", "x", "é", "\n", '"model":"no"', "\\\\")) for _ in range(chance.randrange(6)))
    if kind == 6:
        return [value(chance, depth - 1) for _ in range(chance.randrange(5))]
    return members(chance, depth - 1)


def members(chance, depth):
    return {chance.choice(KEYS): value(chance, depth) for _ in range(chance.randrange(1, 6))}


class Scan(unittest.TestCase):
    def test_every_cut(self):
        """Of an object cut anywhere, what is read are members of its own, with their values."""
        chance = random.Random(1)
        seen = 0
        for _ in range(150):
            whole = members(chance, 3)
            text = json.dumps(whole, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, 1)))
            for cut in range(len(text) + 1):
                for found in (scan.leading(text[:cut]), scan.trailing(text[cut:])):
                    seen += len(found)
                    for key, found_value in found.items():
                        self.assertEqual(found_value, whole.get(key, "no member of its own"), (key, text, cut))
            self.assertEqual(scan.leading(text), whole)
            self.assertEqual(scan.trailing(text), whole)
        self.assertGreater(seen, 10_000)

    def test_members(self):
        """Of a whole object what a parser finds, and of one that was cut never the value of another member."""
        chance = random.Random(3)
        for _ in range(2000):
            pairs = [(chance.choice(KEYS), value(chance, 3)) for _ in range(chance.randrange(8))]
            separators = chance.choice(((",", ":"), (", ", ": "), (" , ", "\t:\n")))
            ascii = chance.random() < 0.5
            texts = (json.dumps(key, ensure_ascii=ascii) + separators[1] + json.dumps(v, ensure_ascii=ascii, separators=separators) for key, v in pairs)
            text = chance.choice(("", "\ufeff", "\n ")) + "{" + separators[0].join(texts) + "}" + chance.choice(("", "\n"))
            wanted = chance.sample(KEYS, 4)
            want = {key: v for key, v in dict(pairs).items() if key in wanted}
            self.assertEqual(scan.members(text.encode(), wanted), (want, True), text)
            found, _ = scan.members(text.encode()[: chance.randrange(len(text))], wanted)
            for key, found_value in found.items():
                self.assertIn((key, found_value), pairs, text)

    def test_members_in_doubt(self):
        many = "[" * 12_000 + "]" * 12_000
        for want, text in (
            (({"user": "b"}, True), '{"user":"a","\\u0075ser":"b"}'),
            (({"user": None}, True), '{"user":"a","x":"","user":null}'),
            (({"user": "a"}, True), '{"user":"a","x":' + "9" * 5000 + "}"),
            (({"user": "a"}, True), '{"user":"a","x":' + "[" * 5000 + "]" * 5000 + "}"),
            (({"user": "a"}, True), '{"user":"a","x":"' + '\\"' * 100_000 + '"}'),
            (({"user": "a"}, True), '{"user":"a","x":[{"y'),
            (({"user": "a"}, False), '{"user":"a","x":' + many + ',"user":"b"}'),
            (({}, False), '{"user":"a","user":"' + "x" * 100_000 + '"}'),
            (({"user": None}, True), '{"user":"a","user":nonsense}'),
            (({}, True), "[]"),
            (({}, True), "hello"),
            (({}, True), ""),
        ):
            self.assertEqual(scan.members(text.encode(), ("user",)), want, text[:50])
        self.assertEqual(scan.members('{"user":"a"}'.encode("utf-16"), ("user",)), ({}, False))

    def test_behind_a_cut(self):
        """The first member behind what was cut."""
        for cut in ('xx"', 'x\\"x"', "12", "1,2]", "]", "}]}", '"a":{"b":[]}}', 'x","y":[]'):
            self.assertEqual(scan.trailing(cut + ',"user":"bob"}').get("user"), "bob", cut)
            self.assertEqual(scan.trailing(cut + ',"usage":{"n":1}}').get("usage"), {"n": 1}, cut)
        for cut in ('"user":"no"', '"user":"no"}', 'x","user":"no"}]', '"user":"no"},{"user":"no"}]'):
            self.assertNotIn("user", scan.trailing(cut + ',"x":1}}'), cut)

    def test_depth(self):
        """Of the last object inside of the outermost one."""
        response = {"id": "r", "output": [{"usage": 1, "content": [{"model": "no"}]}], "model": "m", "usage": {"input_tokens": 3}, "user": None}
        text = json.dumps({"type": "response.completed", "response": response, "sequence_number": 9})
        seen = set()
        for cut in range(text.index('"id"') - 1, len(text) + 1):
            found = scan.trailing(text[cut:], 2)
            seen.update(found)
            for key, found_value in found.items():
                self.assertEqual(found_value, response[key])
        self.assertEqual(seen, set(response))

    def test_into(self):
        text = '{"type":"response.created","response":{"id":"r","instructions":"' + "x" * 100
        self.assertEqual(scan.leading(text, ("response",)), {"type": "response.created", "response": {"id": "r"}})
        self.assertEqual(scan.leading(text), {"type": "response.created"})

    def test_cut_number(self):
        self.assertEqual(scan.leading('{"a":1,"b":12'), {"a": 1})

    def test_what_is_no_object(self):
        for text in ("", " ", "[", '[{"model":"x"}]', '"model"', "}", "]}", '"}', "\\}", '","model":"x"}}', "{{}", "nonsense}", '{"a":}', ',"model":}'):
            self.assertEqual(scan.leading(text), {}, text)
            self.assertEqual(scan.trailing(text), {}, text)

    def test_last_of_many(self):
        text = '{"x":[' + '{"model":"no"},' * 20_000 + '0],"model":"yes","user":"u"}'
        self.assertEqual(scan.trailing(text), {"model": "yes", "user": "u"})
        self.assertEqual(scan.trailing('{"m":' + "[" * 50_000 + "]" * 50_000 + ',"model":"yes"}'), {"model": "yes"})


if __name__ == "__main__":
    unittest.main()
