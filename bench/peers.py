"""The others: each started the way its own documents say, pinned to core 0, in front of the same upstream."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEERS_BIN = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin"
FRONT_CORE, BACK_CORE = "0", "1"


class NotListening(RuntimeError):
    """Nobody accepts connections on that port."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to load: where it listens, and the processes whose CPU is its price."""

    name: str
    port: int
    measured: list[int]
    helpers: list[int]
    model: str = "mock"
    key_file: str = "/dev/null"
    note: str = ""


def free_port() -> int:
    """A port the kernel calls free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Spawner:
    """Starts processes pinned to a core, keeps their output, and ends them, by pid."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, core: str, *argv: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                ["taskset", "-c", core, *map(str, argv)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )
        self._running.append(child)
        return child

    def last_words(self) -> str:
        """The end of every log, for when something did not start."""
        tails = [f"{log.name}: {log.read_text(errors='replace')[-300:]}" for log in self.folder.glob("*.log")]
        return "\n".join(tails)

    def stop(self) -> None:
        for child in reversed(self._running):
            child.terminate()
        for child in reversed(self._running):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._running.clear()


def start_upstream(spawner: Spawner, *, chunks: int, delay_us: int) -> tuple[int, int]:
    """The fixed upstream, on core 1. Returns its port and pid."""
    port = free_port()
    binary = Path(__file__).parent / "bin" / "upstream"
    child = spawner.start(f"upstream-{port}", BACK_CORE, binary, str(port), str(chunks), str(delay_us))
    return port, child.pid


def direct(spawner: Spawner, upstream: int) -> Target:
    """No gateway at all: the ceiling of client and upstream on their one core."""
    del spawner
    return Target("direct", upstream, [], [], note="no gateway")


def nginx(spawner: Spawner, upstream: int) -> Target:
    """nginx with one worker, kept-alive upstream connections, no buffering, no access log."""
    port = free_port()
    folder = spawner.folder / f"nginx-{port}"
    folder.mkdir()
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{upstream}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; proxy_request_buffering on; }}
  }}
}}
""")
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    child = spawner.start(f"nginx-{port}", FRONT_CORE, binary, "-c", folder / "nginx.conf", "-p", folder)
    return Target("nginx", port, [child.pid], [], note="no tunnel, no keys, no accounting")


def aiohttp_proxy(spawner: Spawner, upstream: int) -> Target:
    """aiohttp's server and client alone, as most Python gateways are built."""
    port = free_port()
    script = Path(__file__).parent / "aiohttp_proxy.py"
    child = spawner.start(f"aiohttp-{port}", FRONT_CORE, sys.executable, script, str(port), str(upstream))
    return Target("aiohttp", port, [child.pid], [], note="no tunnel, no keys, no accounting")


def ssh_reverse(spawner: Spawner, upstream: int) -> Target:
    """``ssh -R``: a bare TCP forward through sshd, the tunnel everybody has."""
    port, sshd_port = free_port(), free_port()
    folder = spawner.folder / f"ssh-{port}"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    (folder / "sshd_config").write_text(
        f"Port {sshd_port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPidFile {folder}/pid\n"
        "PasswordAuthentication no\nLogLevel ERROR\n"
        "AllowTcpForwarding yes\nPermitRootLogin yes\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = spawner.start(f"sshd-{port}", FRONT_CORE, "/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config")
    wait_listening(sshd_port)
    client = spawner.start(
        f"ssh-{port}",
        BACK_CORE,
        *("ssh", "-N", "-p", str(sshd_port), "-i", folder / "user", "-o", "StrictHostKeyChecking=no"),
        *("-o", f"UserKnownHostsFile={folder}/known", "-o", "ExitOnForwardFailure=yes", "-F", "none"),
        *("-R", f"127.0.0.1:{port}:127.0.0.1:{upstream}", "127.0.0.1"),
    )
    return Target(
        "ssh -R", port, [server.pid], [client.pid], note="tunnel of TCP; no HTTP, no keys, no accounting"
    )


def litellm(spawner: Spawner, upstream: int) -> Target:
    """LiteLLM's proxy, one worker, without database, keys and logging."""
    port = free_port()
    config = spawner.folder / f"litellm-{port}.yaml"
    config.write_text(
        "model_list:\n  - model_name: mock\n    litellm_params:\n      model: openai/mock\n"
        f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: none\n"
    )
    child = spawner.start(
        f"litellm-{port}",
        FRONT_CORE,
        *(PEERS_BIN / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)),
        *("--num_workers", "1"),
        env={
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # the least work for it
        },
    )
    return Target("litellm", port, [child.pid], [], note="no tunnel, no keys, no accounting")


def rust_router(name: str, quiet: str) -> Callable[[Spawner, int], Target]:
    """vllm-router or sglang-router with its round-robin policy and warnings only."""

    def start(spawner: Spawner, upstream: int) -> Target:
        port, metrics = free_port(), free_port()
        child = spawner.start(
            f"{name}-{port}",
            FRONT_CORE,
            *(PEERS_BIN / "python", "-m", f"{name.replace('-', '_')}.launch_router"),
            *("--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--prometheus-port", str(metrics), "--log-level", quiet),
        )
        return Target(name, port, [child.pid], [], note="no tunnel, no keys, no accounting")

    return start


def wait_listening(port: int, tries: int = 600) -> None:
    """Until somebody accepts connections there; NotListening after a minute."""
    for _ in range(tries):
        with socket.socket() as probe:
            probe.settimeout(0.1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        subprocess.run(["sleep", "0.1"], check=True)
    raise NotListening(port)


PEERS: dict[str, Callable[[Spawner, int], Target]] = {
    "direct": direct,
    "nginx": nginx,
    "aiohttp": aiohttp_proxy,
    "ssh -R": ssh_reverse,
    "vllm-router": rust_router("vllm-router", "warning"),
    "sglang-router": rust_router("sglang-router", "warn"),
    "litellm": litellm,
}
