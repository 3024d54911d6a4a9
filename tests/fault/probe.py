"""A client for the other side of a namespace: ``probe.py ready PORT`` or ``probe.py stream PORT KEY_FILE``.

``ready`` exits 0 when a node is attached. ``stream`` prints ``first`` at the first event, and at the end
``error``, ``done`` or ``cut``, whichever it saw.
"""

import http.client
import sys
from pathlib import Path

READY = (b"\nmesh_gateway_tunnel_sessions 1.0", b"\nmesh_gateway_snapshot_revision 1.0")


def ready(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read()
        return 0 if all(line in metrics for line in READY) else 1
    except OSError:
        return 1


def stream(port: int, key_file: Path) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"authorization": f"Bearer {key_file.read_text().strip()}", "content-type": "application/json"}
    body = '{"model":"mock","stream":true,"messages":[{"role":"user","content":"hello"}]}'
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    seen, end = 0, "cut"
    while line := answer.readline():
        if b'"error"' in line:
            end = "error"
        elif b"[DONE]" in line:
            end = "done"
        elif b"tick" in line:
            seen += 1
            if seen == 1:
                sys.stdout.write("first\n")
                sys.stdout.flush()
    sys.stdout.write(f"{end}\n")
    return 0


if __name__ == "__main__":
    sys.exit(ready(int(sys.argv[2])) if sys.argv[1] == "ready" else stream(int(sys.argv[2]), Path(sys.argv[3])))
