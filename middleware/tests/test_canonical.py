import json
import random
import shutil
import struct
import subprocess
import time
import unittest

from auditchain_asgi import canonical

# RFC 8785, appendix B: the double's bits, and how it is written.
NUMBERS = {
    0x0000000000000000: "0",
    0x8000000000000000: "0",
    0x0000000000000001: "5e-324",
    0x8000000000000001: "-5e-324",
    0x7FEFFFFFFFFFFFFF: "1.7976931348623157e+308",
    0xFFEFFFFFFFFFFFFF: "-1.7976931348623157e+308",
    0x4340000000000000: "9007199254740992",
    0xC340000000000000: "-9007199254740992",
    0x4430000000000000: "295147905179352830000",
    0x44B52D02C7E14AF5: "9.999999999999997e+22",
    0x44B52D02C7E14AF6: "1e+23",
    0x44B52D02C7E14AF7: "1.0000000000000001e+23",
    0x444B1AE4D6E2EF4E: "999999999999999700000",
    0x444B1AE4D6E2EF4F: "999999999999999900000",
    0x444B1AE4D6E2EF50: "1e+21",
    0x3EB0C6F7A0B5ED8C: "9.999999999999997e-7",
    0x3EB0C6F7A0B5ED8D: "0.000001",
    0x41B3DE4355555553: "333333333.3333332",
    0x41B3DE4355555554: "333333333.33333325",
    0x41B3DE4355555555: "333333333.3333333",
    0x41B3DE4355555556: "333333333.3333334",
    0x41B3DE4355555557: "333333333.33333343",
    0xBECBF647612F3696: "-0.0000033333333333333333",
    0x43143FF3C1CB0959: "1424953923781206.2",
}


def double(bits):
    return struct.unpack(">d", struct.pack(">Q", bits))[0]


def canonicalise(text):
    return canonical.encode(canonical.parse(text)).decode("utf-8")


class Canonical(unittest.TestCase):
    def test_numbers(self):
        for bits, want in NUMBERS.items():
            self.assertEqual(canonical.number(double(bits)), want)
        for bits in (0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000, 0xFFF0000000000000):
            with self.assertRaises(ValueError):
                canonical.number(double(bits))

    def test_texts(self):
        for text, want in {
            # RFC 8785, section 3.2.2
            r'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
            r'"string":"\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}': '{"literals":[null,true,false],'
            '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
            # RFC 8785, section 3.2.3
            r'{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",'
            r'"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}': '{"\\r":"Carriage Return",'
            '"1":"One","\u0080":"Control","ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😀":"Emoji: Grinning Face",'
            '"\ufb33":"Hebrew Letter Dalet With Dagesh"}',
            "[]": "[]",
            "{}": "{}",
            ' [ 1 , { } , [ ] , "" ] ': '[1,{},[],""]',
            "[-0,-0.0,0e9,1.0,10e0]": "[0,0,0,1,10]",
            "[9007199254740993,-9007199254740993,12345678901234567890]": "[9007199254740992,-9007199254740992,12345678901234567000]",
            "[1,2,3,-4]": "[1,2,3,-4]",
            "[1e-4,-1e-5,1.5e-5,1e15,1e16,-1.5e16,0.5,-2.50]": "[0.0001,-0.00001,0.000015,1000000000000000,10000000000000000,-15000000000000000,0.5,-2.5]",
            "[1,true]": "[1,true]",
            r'"\u007f\u2028\b\f\t/\u0000"': '"\x7f\u2028\\b\\f\\t/\\u0000"',
            r'{"\ud83d\ude00":"a","\ufb33":{"\n":"\n"},"b":"\u007f","a":null}': '{"a":null,"b":"\x7f","😀":"a","\ufb33":{"\\n":"\\n"}}',
            '{"b":1,"a":{"d":1.50,"c":[{"z":1,"y":2}]}}': '{"a":{"c":[{"y":2,"z":1}],"d":1.5},"b":1}',
        }.items():
            self.assertEqual(canonicalise(text), want)

    def test_many_values(self):
        """So many that the event loop would be held up are refused, in little time; text and token ids are never many."""
        for taken, text in (
            (True, "[" + "[]," * 9_000 + "0]"),
            (True, "[" + "0.5," * 19_000 + "0]"),
            (True, "[" + "1," * 90_000 + "0]"),
            (True, '["' + ',:[{\\"\\\\' * 500_000 + '"]'),
            (False, "[" + "[]," * 30_000 + "0]"),
            (False, "[" + "0.5," * 30_000 + "0]"),
            (False, "[" + '{"":1},' * 30_000 + "0]"),
            (False, "{" + ",".join(f'"{n}":0' for n in range(30_000)) + "}"),
            (False, "[" + "12345678901234567890," * 200_000 + "0]"),
            (False, "[" + "[]," * 1_600_000 + "0]"),
            (False, "[" + '"",' * 1_600_000 + "0]"),
            (False, "[" + "1," * 2_400_000 + "0]"),
        ):
            best = float("inf")
            for _ in range(3):
                begun = time.perf_counter()
                try:
                    canonicalise(text)
                    found = True
                except ValueError:
                    found = False
                best = min(best, time.perf_counter() - begun)
                self.assertEqual(found, taken, text[:30])
            self.assertLess(best, 0.1, text[:30])  # about 20 ms, on a machine that has nothing else to do

    def test_refused(self):
        for text in (
            '{"a":1,"a":1}',
            '[{"a":{"b":1,"b":2}}]',
            "[NaN]",
            "[Infinity]",
            "[-Infinity]",
            "[1e999]",
            "[" + "9" * 400 + "]",
            r'"\ud800"',
            r'{"\udc00x":1}',
            "[1",
            "",
            '"\x01"',
        ):
            with self.assertRaises(ValueError, msg=text):
                canonicalise(text)
        with self.assertRaises(RecursionError):
            canonicalise("[" * 100_000 + "]" * 100_000)

    @unittest.skipUnless(shutil.which("node"), "node is not installed")
    def test_as_ecmascript(self):
        """A sorted JSON.stringify is what RFC 8785 is defined by."""
        chance = random.Random(8785)
        numbers = []
        while len(numbers) < 3000:
            x = chance.choice((lambda: double(chance.getrandbits(64)), lambda: chance.uniform(-1e22, 1e22), lambda: chance.random() * 10 ** chance.randint(-9, 23)))()
            if x == x and abs(x) != float("inf"):
                numbers.append(x)
        keys = {"".join(chr(chance.choice((chance.randrange(0xD800), chance.randrange(0xE000, 0x110000)))) for _ in range(2)) for _ in range(500)}
        text = json.dumps({"numbers": numbers, "keys": dict.fromkeys(sorted(keys), "")})
        program = """
            const v = JSON.parse(require('fs').readFileSync(0, 'utf8'));
            const sort = x => Array.isArray(x) ? x.map(sort) : x && typeof x === 'object'
                ? '{' + Object.keys(x).sort().map(k => JSON.stringify(k) + ':' + sort(x[k])).join(',') + '}' : JSON.stringify(x);
            process.stdout.write('{"keys":' + sort(v.keys) + ',"numbers":[' + v.numbers.map(sort).join(',') + ']}')"""
        ran = subprocess.run(["node", "-e", program], input=text.encode(), stdout=subprocess.PIPE, check=True)
        self.assertEqual(canonicalise(text), ran.stdout.decode("utf-8"))


if __name__ == "__main__":
    unittest.main()
