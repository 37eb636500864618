import unittest

from asgi import Case
from auditchain_asgi import settings

LEAST = {"AUDITCHAIN_DIR": "/var/log/auditchain", "AUDITCHAIN_HMAC_KEY": "0123456789abcdef"}


class Read(Case):
    def test_defaults(self):
        found = settings.read({**LEAST, "AUDITCHAIN_TIMEOUT": " ", "OTHER": "x"})
        self.assertEqual(str(found.dir), "/var/log/auditchain")
        self.assertEqual(found.key, b"0123456789abcdef")
        self.assertEqual(
            (found.hash, found.content, found.keyed, found.payload, found.payload_limit, found.timeout, found.deny, found.heartbeat),
            ("body", False, False, False, 1_000_000, None, False, 60),
        )
        self.assertEqual((found.file_size, found.queue_limit, found.model, found.model_id), (64_000_000, 64_000_000, "", None))
        self.assertIn("/v1/chat/completions", found.endpoints)
        self.assertNotIn("0123456789abcdef", repr(found))
        self.assertNotIn("0123456789abcdef", repr(found.describe()))

    def test_given(self):
        found = settings.read(
            {
                **LEAST,
                "AUDITCHAIN_HASH": "hmac-content",
                "AUDITCHAIN_PAYLOAD": "on",
                "AUDITCHAIN_PAYLOAD_LIMIT": "500K",
                "AUDITCHAIN_TIMEOUT": "2m",
                "AUDITCHAIN_ON_FAILURE": "deny",
                "AUDITCHAIN_HEARTBEAT": "10s",
                "AUDITCHAIN_FILE_SIZE": "1G",
                "AUDITCHAIN_QUEUE_LIMIT": "123456",
                "AUDITCHAIN_ENDPOINTS": "/a, /b/*,",
                "AUDITCHAIN_MODEL_ID": "m",
            }
        )
        self.assertEqual(
            (found.hash, found.content, found.keyed, found.payload, found.payload_limit, found.timeout, found.deny, found.heartbeat),
            ("hmac-content", True, True, True, 500_000, 120, True, 10),
        )
        self.assertEqual((found.file_size, found.queue_limit, found.model_id), (1_000_000_000, 123_456, "m"))
        self.assertEqual(found.endpoints, ("/a", "/b/*"))

    def test_wrong(self):
        """The message is one line, and begins with the key."""
        for key, value in (
            ("DIR", ""),
            ("DIR", "relative"),
            ("HMAC_KEY", ""),
            ("HMAC_KEY", "short"),
            ("HMAC_KEY", "/etc/auditchain/hmac.key"),
            ("HMAC_KEY", " /etc/auditchain/hmac.key"),
            ("HMAC_KEY", " file:/etc/auditchain/hmac.key"),
            ("HMAC_KEY", "file:/no/such/file"),
            ("HMAC_KEY", "file:/"),
            ("HMAC_KEY", "file:/dev/zero"),
            ("HMAC_KEY", "file:/dev/null"),
            ("HASH", "md5"),
            ("PAYLOAD", "yes"),
            ("PAYLOAD_LIMIT", "0"),
            ("PAYLOAD_LIMIT", "6M"),
            ("TIMEOUT", "30"),
            ("TIMEOUT", "0s"),
            ("TIMEOUT", "1.5s"),
            ("HEARTBEAT", "0s"),
            ("HEARTBEAT", "2d"),
            ("HEARTBEAT", "\u0661s"),
            ("FILE_SIZE", "64MB"),
            ("FILE_SIZE", "-1M"),
            ("FILE_SIZE", "64 M"),
            ("QUEUE_LIMIT", "1T"),
            ("ON_FAILURE", "refuse"),
            ("ENDPOINTS", "v1/completions"),
        ):
            with self.assertRaises(settings.SettingsError, msg=(key, value)) as caught:
                settings.read({**LEAST, "AUDITCHAIN_" + key: value})
            self.assertTrue(str(caught.exception).startswith(f"AUDITCHAIN_{key}: "), str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_key_in_a_file(self):
        for content, want in ((b"0123456789abcdef\n", b"0123456789abcdef"), (b"0123456789abcdef", b"0123456789abcdef"), (bytes(range(32)) + b"\n\n", bytes(range(32)) + b"\n")):
            (self.dir / "key").write_bytes(content)
            self.assertEqual(settings.read({**LEAST, "AUDITCHAIN_HMAC_KEY": f"file:{self.dir}/key"}).key, want)

    def test_unknown(self):
        self.assertEqual(settings.unknown({**LEAST, "AUDITCHAIN_HASHES": "x", "AUDITCHAIN_": "", "PATH": ""}), ["AUDITCHAIN_", "AUDITCHAIN_HASHES"])
        fluent_bits = [f"AUDITCHAIN_{name}" for name in ("AGGREGATOR", "BUCKET", "CHAIN", "DIR", "ENDPOINT", "REGION", "RETENTION")]
        self.assertEqual(settings.unknown(dict.fromkeys(fluent_bits, "x")), [])


if __name__ == "__main__":
    unittest.main()
