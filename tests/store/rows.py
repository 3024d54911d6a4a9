"""Short ways to put things into a database, for tests of the store."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from control_plane.core.access import JoinToken, Organization
from control_plane.core.fleet import AgentInfo, Gpu, Hardware, WorkerPhase, WorkerReport
from control_plane.core.model import Assignment, Deployment, Engine, Model
from control_plane.core.placement import place
from control_plane.store import assignments, deployments, join_tokens, models, nodes, organizations
from control_plane.store.db import Db, Pool, transaction
from control_plane.store.joining import Joined, Refusal, join
from mesh.kit.ids import DeploymentId, ModelId, NodeId, OrganizationId

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRACE = timedelta(minutes=5)
GIB = 2**30
MAC = bytes(32)
ORG = Organization(OrganizationId("org-1"), "acme", NOW)
AGENT = AgentInfo("0.1.0", "2026-01-01", "ab" * 32)
HARDWARE = Hardware("host", "linux", "x86_64", 8, 16 * GIB, 100 * GIB, (Gpu("gpu-1", "card", 24 * GIB, "8.9"),))


@dataclass(frozen=True, slots=True)
class FakeIssued:
    """What a signing authority would give."""

    serial_hex: str
    not_after: datetime


def sign(_: NodeId) -> FakeIssued:
    """A certificate of 24 hours that nobody signed."""
    return FakeIssued(f"{secrets.randbits(150) | 1:x}", NOW + timedelta(hours=24))


def later(**span: float) -> datetime:
    return NOW + timedelta(**span)


async def make_organization(pool: Pool) -> None:
    async with transaction(pool) as db:
        await organizations.record(db, ORG)


async def make_token(pool: Pool, token_id: str = "t1", *, uses: int = 1, mac: bytes = MAC) -> JoinToken:
    token = JoinToken(token_id, ORG.organization_id, NOW, later(minutes=15), uses)
    async with transaction(pool) as db:
        await join_tokens.record(db, token, mac=mac)
    return token


async def ask_to_join(
    pool: Pool, token_id: str = "t1", *, spki: str = "key-1", mac: bytes = MAC, now: datetime = NOW
) -> Joined[FakeIssued] | Refusal:
    async with transaction(pool) as db:
        return await join(
            db,
            token_id=token_id,
            mac=mac,
            spki=spki,
            hostname="gpu-7",
            agent_version="0.1.0",
            address="192.0.2.7",
            now=now,
            sign=sign,
        )


async def make_node(pool: Pool, token_id: str = "t1") -> tuple[NodeId, str]:
    """A joined node and its certificate's serial."""
    await make_token(pool, token_id)
    joined = await ask_to_join(pool, token_id, spki=f"key-of-{token_id}")
    assert isinstance(joined, Joined)
    return joined.node_id, joined.issued.serial_hex


async def connect(db: Db, node_id: NodeId, serial: str, *, now: datetime = NOW) -> int:
    return await nodes.begin_session(
        db,
        node_id,
        serial=serial,
        agent_info=AGENT,
        hardware=HARDWARE,
        workers=(),
        applied_revision=0,
        now=now,
    )


async def make_online_node(pool: Pool, token_id: str = "t1") -> tuple[NodeId, str]:
    node_id, serial = await make_node(pool, token_id)
    async with transaction(pool) as db:
        await connect(db, node_id, serial)
    return node_id, serial


def a_model(name: str = "small", *, gpus: int = 0) -> Model:
    return Model(
        ModelId(f"id-{name}"), name, "package:weights/m.gguf", 4096, GIB, 8 * GIB if gpus else 0, gpus, NOW
    )


def a_deployment(of: Model, *, replicas: int = 1, name: str = "chat") -> Deployment:
    return Deployment(DeploymentId(f"id-{name}"), name, of.model_id, of.name, Engine.LLAMACPP, replicas, 4, NOW)


async def make_deployment(pool: Pool, *, replicas: int = 1, gpus: int = 0, name: str = "chat") -> Deployment:
    model = a_model(f"model-of-{name}", gpus=gpus)
    deployment = a_deployment(model, replicas=replicas, name=name)
    async with transaction(pool) as db:
        await models.record(db, model)
        await deployments.record(db, deployment)
    return deployment


async def place_all(pool: Pool, *, now: datetime = NOW) -> list[Assignment]:
    """One round of the placer."""
    async with transaction(pool) as db:
        await assignments.lock(db)
        plan = place(
            await nodes.list_(db),
            await deployments.list_(db),
            await models.list_(db),
            await assignments.list_(db),
            now=now,
            grace=GRACE,
        )
        return await assignments.apply(db, plan, now=now)


def says(worker: Assignment, phase: WorkerPhase, *, progress: int = 100, detail: str = "") -> WorkerReport:
    """What a node says of a worker that it was given."""
    return WorkerReport(worker.worker_id, worker.spec_hash, phase, progress, detail, starts=1)
