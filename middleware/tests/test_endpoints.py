import unittest

from auditchain_asgi.endpoints import Endpoints, paths


def operation(some, path, root=""):
    found = some.match({"path": path, "root_path": root})
    return found and found.operation


class Paths(unittest.TestCase):
    def test_endpoints(self):
        some = Endpoints(("/v1/a", "/x/*/Y", "*z"))
        for path, want in (
            ("/v1/a", "inference"),
            ("/v1/ab", None),
            ("/v1", None),
            ("/x/1/2/y", "inference"),
            ("/x/y", None),
            ("/x/\n/y", "inference"),
            ("/any.z", "inference"),
            ("/anyz.", None),
            ("/update_weights", "model_change"),
            ("/v1/load_lora_adapter", "model_change"),
            ("", None),
        ):
            self.assertEqual(operation(some, path), want, path)
        self.assertIsNone(operation(Endpoints(()), "/v1/a"))
        everything = Endpoints(("*",))
        self.assertEqual(operation(everything, "/load_lora_adapter"), "model_change")
        self.assertEqual(operation(everything, "/"), "inference")

    def test_loosely(self):
        """What another server may take for the same."""
        some = Endpoints(("/v1/a", "/V1/B/", "/c/*"))
        for path in ("/v1/a/", "/V1/A", "/v1/a;x=1", "/v1/a/;x", "/v1/a ", "/v1/a\t", "/v1/a/ /", "/v1/a#", "/v1/a#/b", "/v1/a?x", "/v1/a\0", "/v1/b", "/C/d/", "/c/"):
            self.assertEqual(operation(some, path), "inference", path)
        for path in ("/v1/ a", "/v1a", "/v1/b/a", "/;/v1/a"):
            self.assertIsNone(operation(some, path), path)
        self.assertEqual(some.match({"path": "/V1/Load_LoRA_adapter/;"}), ("model_change", "/v1/load_lora_adapter"))

    def test_mounted(self):
        for want, root, path in (
            (["/a"], "", "/a"),
            (["/a"], "/", "/a"),
            (["/a"], None, "/a"),
            (["/api/a", "/api/api/a", "/a"], "/api", "/api/a"),
            (["/api/a", "/api/api/a", "/a"], "/api/", "/api/a"),
            (["/apis/a", "/api/apis/a"], "/api", "/apis/a"),
            (["/api", "/api/api"], "/api", "/api"),
        ):
            self.assertEqual(paths({"path": path, "root_path": root}), want)
        some = Endpoints(("/v1/a",))
        for root, path, want in (("/v1", "/a", "inference"), ("/v1", "/v1/a", "inference"), ("/api", "/api/v1/a", "inference"), ("/v1", "/b", None)):
            self.assertEqual(operation(some, path, root), want)


if __name__ == "__main__":
    unittest.main()
