"""A model server without a model, that behaves towards its clients as vLLM does.

--middleware is added as vLLM adds its own: the class, by its import path, without arguments, outermost.
"""

import argparse
import json
import os

import uvicorn

SETTINGS = "STUB_SETTINGS"  # hands the arguments to the workers


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loop", default="auto")
    parser.add_argument("--middleware", action="append", default=[])
    parser.add_argument("--served-model-name", default="stub-7b")
    parser.add_argument("--api-key", action="append", default=[])
    parser.add_argument("--requests", help="file in which workers count their requests, for /metrics", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    os.environ[SETTINGS] = json.dumps(vars(args))
    uvicorn.run(
        "app:create",
        factory=True,
        host="127.0.0.1",
        port=args.port,
        workers=args.workers,
        loop=args.loop,
        access_log=False,
        timeout_keep_alive=60,
        app_dir=os.path.dirname(os.path.abspath(__file__)),
    )
