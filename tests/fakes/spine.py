"""The data path alone, of real parts: a real gateway process, a real tunnel, any upstream for an engine.

The two ends that a whole mesh would bring are doubles here: a control plane that pushes one snapshot, grants exact
shares of limits and takes usage records, and nodes whose workers are fixed (the agent's real tunnel code, no
supervisor). Used by the fault tests and by the benchmark. As a program: ``python -m tests.fakes.spine ROLE
FOLDER``, where the role is ``control-plane`` or ``node`` (``SPINE_NODE``: which), and the folder's ``spine.json``
holds what they need.
"""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from mesh.kit.clock import WallClock
from mesh.types.v1 import worker_pb2
from mesh.wire.channel import CONTROL_SERVER_OPTIONS
from node_agent.core.desired import Hub
from node_agent.core.worker import LoopbackEndpoint, WorkerUnknown
from node_agent.disk import Disk
from node_agent.tunnel.dialer import Dialer
from node_agent.tunnel.local import Local
from pki.api_keys import new_api_key
from pki.files import write_atomic, write_private
from pki.names import DEFAULT_TRUST_DOMAIN, Kind, server_name
from pki.policy import Role
from pki.tls import TlsFiles, load_tls, server_credentials
from tests.fakes.pki import Mesh as Authorities
from tests.fakes.spine_quota import Shares

PEPPER = b"p" * 32
ORGANIZATION = "org-1"
READY = (b"\nmesh_gateway_tunnel_sessions 1.0", b"\nmesh_gateway_snapshot_revision 1.0")
USAGE, QUOTA = "usage.bin", "quota.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker of a node, and the port of its engine."""

    model: str
    node_id: str
    port: int
    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spine:
    """What the processes of one spine agree on; written to ``spine.json``."""

    control_plane_port: int
    http_port: int
    tunnel_port: int
    upstream_port: int
    tunnel_host: str = "127.0.0.1"
    model: str = "mock"
    engine: str = "vllm"
    node_id: str = "n-1"
    slots: int = 4096
    other_models: dict[str, int] = field(default_factory=dict)
    """Further models of the same node, and the port of each one's engine."""
    workers: tuple[Worker, ...] = ()
    """All workers there are, on as many nodes as they name; without them, one for each model above."""
    keys: dict[str, dict[str, int]] = field(default_factory=dict)
    """Further keys, each with its limits (the fields of ``Limits``); the secret of one is in ``key-<name>``."""
    keeps_books: bool = False
    """Write usage records to ``usage.bin``, each with its length before it, and what is asked of limits to
    ``quota.jsonl``."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(dict.fromkeys(one.node_id for one in self.workers)) or (self.node_id,)


def lay_out(folder: Path, spine: Spine, authorities: Authorities | None = None) -> None:
    """Write identities, keys (``key``, ``key-<name>``) and ``spine.json`` into the folder."""
    authorities = authorities or Authorities()
    for kind, name in ((Kind.CONTROL_PLANE, "c-1"), (Kind.GATEWAY, "g-1")):
        put_tls(folder / str(kind) / "tls", authorities.files(kind, name))
    for node_id in spine.nodes:
        put_tls(node_folder(folder, spine.node_id, node_id) / "identity", authorities.files(Kind.NODE, node_id))
    write_atomic(folder / "node-trust.pem", authorities.ca_pem(Role.NODE) + pem_root(authorities))
    write_atomic(folder / "control-ca.pem", authorities.ca_pem(Role.CONTROL))
    made = []
    for name, limits in {"": {}, **spine.keys}.items():
        key = new_api_key()
        write_private(folder / (f"key-{name}" if name else "key"), (key.reveal() + "\n").encode())
        made.append({"name": name, "key_id": key.id, "mac": key.mac(PEPPER).hex(), "limits": limits})
    write_atomic(folder / "spine.json", json.dumps({**asdict(spine), "made": made}).encode())


def node_folder(folder: Path, first: str, node_id: str) -> Path:
    """Where that node keeps its identity; the first one's folder is called ``node``."""
    return folder / ("node" if node_id == first else f"node-{node_id}")


def pem_root(authorities: Authorities) -> bytes:
    """The root, as PEM."""
    first = authorities.bundle_pem.split("-----END CERTIFICATE-----")[0]
    return (first + "-----END CERTIFICATE-----\n").encode()


def put_tls(folder: Path, files: TlsFiles) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_private(folder / "tls.key", files.key_pem)
    write_atomic(folder / "tls.crt", files.chain_pem)
    write_atomic(folder / "trust-bundle.pem", files.trust_bundle_pem)


def gateway_environ(folder: Path, spine: Spine) -> dict[str, str]:
    """The settings of the real gateway for this spine."""
    return {
        "MESH_GW_STATE_DIR": str(folder / "gateway"),
        "MESH_GW_TLS_DIR": str(folder / "gateway" / "tls"),
        "MESH_GW_NODE_TRUST": str(folder / "node-trust.pem"),
        "MESH_GW_CONTROL_PLANE": f"127.0.0.1:{spine.control_plane_port}",
        "MESH_GW_HTTP_LISTEN": f"127.0.0.1:{spine.http_port}",
        "MESH_GW_TUNNEL_LISTEN": f"{spine.tunnel_host}:{spine.tunnel_port}",
        "MESH_GW_LOG_LEVEL": "warning",
    }


def workers(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Every worker; the only one of a model is called ``w-<model>``."""
    alone = {row["model"]: row["upstream_port"], **row["other_models"]}
    return row["workers"] or [
        {"model": model, "node_id": row["node_id"], "port": port, "worker_id": f"w-{model}"}
        for model, port in alone.items()
    ]


def snapshot(row: dict[str, Any]) -> pb.Snapshot:
    """The keys; each model with its workers, all ready."""
    keys = [
        pb.ApiKey(
            key_id=one["key_id"],
            secret_mac=bytes.fromhex(one["mac"]),
            organization_id=ORGANIZATION,
            limits=pb.Limits(**one["limits"]),
        )
        for one in row["made"]
    ]
    models: dict[str, pb.Model] = {}
    for worker in workers(row):
        name = worker["model"]
        model = models.setdefault(name, pb.Model(name=name, context_length=4096))
        route = model.routes.add()
        route.worker_id, route.node_id, route.deployment_id = worker["worker_id"], worker["node_id"], "d-1"
        route.engine, route.slots, route.phase = row["engine"], row["slots"], worker_pb2.WORKER_PHASE_READY
    return pb.Snapshot(revision=1, key_pepper=PEPPER, api_keys=keys, models=models.values())


@dataclass(slots=True)
class FakeControlPlane(GatewayServiceServicer):
    """Pushes one snapshot; counts how often each usage record came; grants what there is of limits."""

    message: pb.Snapshot
    shares: Shares
    books: Path | None = None
    """A folder to write down in what gateways say."""
    usage: Counter[str] = field(default_factory=Counter)

    async def WatchSnapshot(
        self, request: pb.WatchSnapshotRequest, _context: object
    ) -> AsyncIterator[pb.WatchSnapshotResponse]:
        del request
        yield pb.WatchSnapshotResponse(snapshot=self.message)
        await asyncio.Event().wait()

    async def WatchLoad(
        self, _request: pb.WatchLoadRequest, _context: object
    ) -> AsyncIterator[pb.WatchLoadResponse]:
        """Nothing is known of any worker."""
        yield pb.WatchLoadResponse()
        await asyncio.Event().wait()

    async def ReportDemand(self, _request: pb.ReportDemandRequest, _context: object) -> pb.ReportDemandResponse:
        return pb.ReportDemandResponse()

    async def LeaseQuota(self, request: pb.LeaseQuotaRequest, _context: object) -> pb.LeaseQuotaResponse:
        holder = f"{request.process}/{request.start_id}"
        grants = [self.shares.grant(holder, ask) for ask in request.asks]
        if self.books is not None:
            with (self.books / QUOTA).open("a") as file:
                for ask, grant in zip(request.asks, grants, strict=True):
                    row = (ask.subject, ask.kind, ask.window, ask.wanted, ask.used, grant.granted)
                    file.write(json.dumps(row) + "\n")
        return pb.LeaseQuotaResponse(grants=grants)

    async def ReportUsage(self, request: pb.ReportUsageRequest, _context: object) -> pb.ReportUsageResponse:
        ids = [record.request_id for record in request.records]
        self.usage.update(ids)
        if self.books is not None:
            with (self.books / USAGE).open("ab") as file:
                for record in request.records:
                    octets = record.SerializeToString()
                    file.write(len(octets).to_bytes(4, "big") + octets)
        return pb.ReportUsageResponse(stored_request_ids=ids)


async def run_control_plane(folder: Path, stop: asyncio.Event) -> None:
    """Serve until told to stop."""
    row = json.loads((folder / "spine.json").read_text())
    server = grpc.aio.server(options=list(CONTROL_SERVER_OPTIONS))
    shares = Shares({one["key_id"]: one["limits"] for one in row["made"]}, WallClock())
    double = FakeControlPlane(snapshot(row), shares, folder if row["keeps_books"] else None)
    add_GatewayServiceServicer_to_server(double, server)
    files = load_tls(folder / "control-plane" / "tls")
    credentials = server_credentials(files, (folder / "control-ca.pem").read_bytes())
    server.add_secure_port(f"127.0.0.1:{row['control_plane_port']}", credentials)
    await server.start()
    await stop.wait()
    await server.stop(None)


async def run_node(folder: Path, stop: asyncio.Event) -> None:
    """The agent's tunnel to the gateway, for fixed workers. ``SPINE_EPOCH``: the session's number."""
    row = json.loads((folder / "spine.json").read_text())
    node_id = os.environ.get("SPINE_NODE", row["node_id"])
    ports = {one["worker_id"]: one["port"] for one in workers(row) if one["node_id"] == node_id}

    @contextmanager
    def lease(worker_id: str) -> Iterator[LoopbackEndpoint]:
        if worker_id not in ports:
            raise WorkerUnknown(worker_id)
        yield LoopbackEndpoint("127.0.0.1", ports[worker_id])

    clock = WallClock()
    local = Local(lease, clock, max_requests=8192)
    disk = Disk(node_folder(folder, row["node_id"], node_id))
    dialer = Dialer(disk, clock, local.open, int(os.environ.get("SPINE_EPOCH", "1")))
    name = server_name(Kind.GATEWAY, DEFAULT_TRUST_DOMAIN)
    dialer.apply([Hub(hub_id="g-1", endpoint=f"{row['tunnel_host']}:{row['tunnel_port']}", server_name=name)])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(local.run()), group.create_task(dialer.run())]
        await stop.wait()
        for task in tasks:
            task.cancel()


def until_routable(http_port: int, tries: int = 300) -> None:
    """Until a node is attached, by the gateway's metrics; RuntimeError after half a minute."""
    for _ in range(tries):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=1) as answer:
                metrics = answer.read()
                if all(line in metrics for line in READY):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError("the gateway did not become ready")


async def main(role: str, folder: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await {"control-plane": run_control_plane, "node": run_node}[role](folder, stop)


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    uvloop.run(main(sys.argv[1], Path(sys.argv[2])))
