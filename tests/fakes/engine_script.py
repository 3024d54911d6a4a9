"""A tiny engine: the HTTP surface the supervisor uses, and switches for everything an engine can do wrong.

``GET /crash?<code>`` ends it with that exit code. With ``--child`` it starts a process that outlives it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--model", default="tiny")
parser.add_argument("--child", action="store_true")
parser.add_argument("--ignore-term", action="store_true")
parser.add_argument("--loading", action="store_true")
parser.add_argument("--broken", action="store_true", help="answers 200 with nonsense")
parser.add_argument("--huge", action="store_true", help="answers without end")
parser.add_argument("--mute", action="store_true", help="never answers")
options = parser.parse_args()

METRICS = f"""# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
pid {os.getpid()}
"""


def say(text: str) -> None:
    """One line to the engine's log, at once."""
    os.write(1, f"{text}\n".encode())


class Handler(BaseHTTPRequestHandler):
    """Answers as llama.cpp's server does, as far as anyone here asks."""

    def do_GET(self) -> None:
        if self.path.startswith("/crash?"):
            os._exit(int(self.path.partition("?")[2]))
        elif self.path == "/health":
            self.reply(503 if options.loading else 200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.reply(200, {"data": [{"id": options.model}]})
        elif self.path == "/metrics":
            self.reply(200, METRICS)
        else:
            self.reply(404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked["model"] == options.model and asked["max_tokens"] == 1
        self.reply(200 if known else 404, {"choices": [{"text": "Hi"}]})

    def reply(self, status: int, body: object) -> None:
        if options.mute:
            threading.Event().wait()
        text = body if isinstance(body, str) else json.dumps(body)
        if options.broken:
            text = "[]"
        octets = b"x" * (2 << 20) if options.huge else text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        try:
            self.wfile.write(octets)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


if options.ignore_term:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if options.child:
    child = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    # In a session of its own, as engines with worker processes do.
    say(f"child {subprocess.Popen(child, start_new_session=True).pid}")
try:
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
except OSError as exc:
    sys.exit(f"cannot listen on 127.0.0.1:{options.port}: {exc.strerror}")
say(f"the environment has {sorted(name for name in os.environ if name.startswith('MESH_'))}")
server.serve_forever()
