"""A gateway, nodes and simulated engines as processes, and what is to be asked of them before and afterwards."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import psutil

from mesh.gateway.v1 import gateway_pb2 as pb
from tests.fakes.spine import QUOTA, USAGE, Spine, Worker, gateway_environ, lay_out
from tests.fault.spine import Running, free_port, role, spawn

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUIET = ("mesh_gateway_live_requests", "mesh_gateway_queue_depth", "mesh_gateway_outstanding_requests")
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
LONG = ROUNDS > 1
SEED = int(os.environ.get("CHAOS_SEED", "20"))


@dataclass(slots=True)
class Answer:
    """What a client saw of one request; its attributes are httptools' to set."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """Of a stream; ``[DONE]`` as text."""
        data = [event[6:] for event in self.body.decode().split("\n\n") if event.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    @property
    def error(self) -> str:
        """The code of the error that it is, or that it ends with."""
        found = [event["error"]["code"] for event in self.events if "error" in event] if self.is_stream else []
        if self.status >= 400:
            found.append(self.json["error"]["code"])
        return str(found[-1]) if found else ""

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def text(self) -> str:
        """What a stream says."""
        choices = [one for event in self.events if "choices" in event for one in event["choices"]]
        return "".join(one["text"] if "text" in one else one["delta"].get("content") or "" for one in choices)

    @property
    def finish(self) -> list[str]:
        """Every reason to end."""
        choices = [one for event in self.events if "choices" in event for one in event["choices"]]
        return [one["finish_reason"] for one in choices if one["finish_reason"]]

    @property
    def usage(self) -> dict[str, int]:
        """The token counts at the end of a stream."""
        found = [event["usage"] for event in self.events if "choices" in event and event.get("usage")]
        return {name: found[-1][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}

    @property
    def dones(self) -> int:
        return self.events.count("[DONE]")


def say(text: str) -> None:
    """Numbers for whoever runs the tests with ``-s``."""
    sys.stdout.write(f"\n{text}\n")


async def until(ask: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> bool:
    """Ask again and again; False when it was not so in time."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                if await ask():
                    return True
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False


def parsed(octets: bytes) -> Answer:
    """The answer in what came over a connection."""
    answer = Answer()
    parser = httptools.HttpResponseParser(answer)
    parser.feed_data(octets)
    answer.status = parser.get_status_code()
    return answer


def chat(text: str = "Say something.", **fields: object) -> dict[str, object]:
    """A body."""
    return {"model": "mock", "messages": [{"role": "user", "content": text}], **fields}


@dataclass(slots=True)
class Fleet:
    """The processes. Engine ``i`` is that of worker ``w-<i>`` on node ``n-<i>``."""

    spine: Running
    ports: list[int]
    options: tuple[str, ...]
    models: tuple[str, ...]
    engines: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    attached: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """The newest process of each node."""

    def key(self, name: str = "") -> str:
        return (self.spine.folder / (f"key-{name}" if name else "key")).read_text().strip()

    def key_id(self, name: str) -> str:
        made = json.loads((self.spine.folder / "spine.json").read_text())["made"]
        return str(next(one["key_id"] for one in made if one["name"] == name))

    # What clients do

    def octets(
        self,
        body: Mapping[str, object],
        *,
        path: str = CHAT,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """A request on a connection of its own."""
        content = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "host: gateway",
            "connection: close",
            "content-type: application/json",
            f"authorization: Bearer {self.key(key)}",
            f"content-length: {len(content)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + content

    async def connect(self, port: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the gateway, or to that port."""
        return await asyncio.open_connection("127.0.0.1", port or self.spine.plan.http_port)

    async def send(self, octets: bytes, *, port: int = 0, within_s: float = 60.0) -> Answer:
        """That request, to the end of its answer."""
        reader, writer = await self.connect(port)
        try:
            async with asyncio.timeout(within_s):
                writer.write(octets)
                return parsed(await reader.read(-1))
        finally:
            writer.close()

    async def ask(self, body: Mapping[str, object], *, path: str = CHAT, key: str = "") -> Answer:
        return await self.send(self.octets(body, path=path, key=key))

    # What the processes say

    async def page(self, port: int = 0) -> Counter[str]:
        """The metrics of the gateway, or of what listens on that port: the sum of each name's samples."""
        reader, writer = await self.connect(port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        text = parsed(await reader.read(-1)).body.decode()
        writer.close()
        found: Counter[str] = Counter()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                found[line.split()[2]] += 0  # also of what has no samples
            elif line and line[0] != "#":
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]  # sums, not counts
        return found

    async def busy(self) -> dict[str, float]:
        """Everything that should be nothing when nobody asks anything."""
        page = await self.page()
        found = {name: float(page[name]) if name in page else -1.0 for name in QUIET}
        for at, port in enumerate(self.ports):
            page = await self.page(port)
            found |= {f"{name} of {at}": float(page[name]) for name in BUSY}
        return {name: value for name, value in found.items() if value}

    async def until_quiet(self, within_s: float = 30.0) -> None:
        """Until nothing is under way anywhere."""

        async def quiet() -> bool:
            return not await self.busy()

        if not await until(quiet, within_s):
            raise AssertionError(f"not quiet within {within_s} s: {await self.busy()}\n{self.last_words()}")

    async def until_has(self, name: str, least: float, within_s: float = 60.0) -> None:
        """Until that metric of the gateway is so high."""

        async def so_high() -> bool:
            return (await self.page())[name] >= least

        assert await until(so_high, within_s), f"{name} is not {least} within {within_s} s\n{self.last_words()}"

    def fds(self) -> int:
        """Open files of the gateway."""
        return int(psutil.Process(self.spine.gateway.pid).num_fds())

    def rss_mib(self) -> float:
        """Resident memory of the gateway."""
        return float(psutil.Process(self.spine.gateway.pid).memory_info().rss) / 2**20

    def records(self) -> list[pb.UsageRecord]:
        """All usage records that were delivered, as often as they were."""
        path = self.spine.folder / USAGE
        octets, at, found = path.read_bytes() if path.exists() else b"", 0, []
        while at + 4 <= len(octets) and (end := at + 4 + int.from_bytes(octets[at : at + 4], "big")) <= len(
            octets
        ):
            found.append(pb.UsageRecord.FromString(octets[at + 4 : end]))
            at = end
        return found

    async def until_recorded(self, count: int, within_s: float = 30.0) -> list[pb.UsageRecord]:
        """The records, once there are so many."""

        async def there() -> bool:
            return len(self.records()) >= count

        await until(there, within_s)
        return self.records()

    def used(self) -> dict[tuple[str, str], int]:
        """What the gateway last said to have used: by key id and the name of the limit, of its latest window."""
        path, found = self.spine.folder / QUOTA, {}
        for line in path.read_text().splitlines() if path.exists() else ():
            subject, kind, _, _, used, _ = json.loads(line)
            found[subject, pb.QuotaKind.Name(kind).removeprefix("QUOTA_KIND_").lower()] = int(used)
        return found

    def last_words(self) -> str:
        logs = sorted(self.spine.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    # Whom to hurt

    def start_engine(self, at: int) -> None:
        """A simulator in place of the one that was there."""
        argv = ("-m", "node_agent.engines.simulator_server", "--slots", "4096", "--model", self.models[at])
        more = ("--port", str(self.ports[at]), "--options", self.options[at])
        self.engines[at] = spawn(self.spine.folder, f"engine-{at}", sys.executable, *argv, *more)
        self.spine.others.append(self.engines[at])

    def start_node(self, node_id: str, *, epoch: int = 1) -> None:
        """A process of that node; each one needs a higher epoch than the one before."""
        self.attached[node_id] = self.spine.start_node(node_id=node_id, epoch=epoch)

    async def until_ready(self, within_s: float = 30.0) -> None:
        """Until every node is attached and every engine answers."""

        async def ready() -> bool:
            try:
                page = await self.page()
                for port in self.ports:
                    await self.page(port)
            except (OSError, httptools.HttpParserError):
                return False
            attached = page["mesh_gateway_tunnel_sessions"] == len(self.spine.plan.nodes)
            return attached and bool(page["mesh_gateway_snapshot_revision"])

        if not await until(ready, within_s):
            raise AssertionError(f"the fleet did not become ready: {self.last_words()}")


@asynccontextmanager
async def fleet(
    *options: str,
    models: tuple[str, ...] = (),
    slots: int = 4096,
    keys: Mapping[str, dict[str, int]] | None = None,
    ports: list[int] | None = None,
    settings: Mapping[str, str] | None = None,
    reach: Mapping[int, int] | None = None,
) -> AsyncIterator[Fleet]:
    """One simulator, worker and node for each of the options, ready.

    ``models``: what each serves; all ``mock`` without. ``reach``: engine → port at which its node reaches it,
    where that is not the engine's own. ``settings``: the gateway's, without ``MESH_GW_``.
    """
    models = models or ("mock",) * len(options)
    ports = ports or [free_port() for _ in options]
    reach = reach or {}
    plan = Spine(
        control_plane_port=free_port(),
        http_port=free_port(),
        tunnel_port=free_port(),
        upstream_port=0,
        engine="simulator",
        node_id="n-0",
        slots=slots,
        keys=dict(keys or {}),
        keeps_books=True,
        workers=tuple(
            Worker(model=model, node_id=f"n-{at}", worker_id=f"w-{at}", port=reach.get(at, ports[at]))
            for at, model in enumerate(models)
        ),
    )
    with tempfile.TemporaryDirectory(prefix="mesh-fleet-") as name:
        folder = Path(name)
        lay_out(folder, plan)
        control_plane = spawn(folder, "control-plane", *role("control-plane", folder))
        environ = {
            **gateway_environ(folder, plan),
            **{f"MESH_GW_{one}": how for one, how in (settings or {}).items()},
        }
        gateway = spawn(folder, "gateway", sys.executable, "-m", "gateway", **environ)
        made = Fleet(Running(folder, plan, gateway, others=[control_plane]), ports, options, models)
        try:
            for at in range(len(options)):
                made.start_engine(at)
                made.start_node(f"n-{at}")
            await made.until_ready()
            yield made
        finally:
            for process in (*made.spine.nodes, gateway, *made.spine.others):
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()
