"""The loops, one round at a time, on a real database and a clock that moves when told."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from control_plane.core import bounds
from control_plane.core.access import Organization
from control_plane.core.fleet import AgentInfo, Certificate, Hardware, NodeState
from control_plane.loops.certificate import CertificateWatch
from control_plane.loops.placer import Placer
from control_plane.loops.sweeper import HUB_GRACE, REVOKED_GRACE, Sweeper
from control_plane.store import (
    assignments,
    certificates,
    deployments,
    gateways,
    joining,
    models,
    nodes,
    organizations,
    snapshot,
)
from control_plane.store import join_tokens as tokens
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.gateways import Gateway
from mesh.kit.errors import Unavailable
from mesh.kit.ids import DeploymentId, GatewayId, ModelId, NodeId, OrganizationId, uuid7
from pki.files import write_atomic, write_private
from pki.names import Kind
from pki.policy import MAX_LEAF_LIFETIME
from pki.tls import ServerTls, TlsFiles
from tests.fakes.clock import FakeClock
from tests.fakes.pki import Mesh
from tests.fakes.wake import FakeWake
from tests.mesh.control_plane_harness import show

GRACE = timedelta(seconds=30)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sweeper(pool: Pool, clock: FakeClock) -> Sweeper:
    return Sweeper(pool, clock, GRACE)


@pytest.fixture
def placer(pool: Pool, clock: FakeClock) -> Placer:
    return Placer(pool, FakeWake(clock), clock, GRACE)


class _Issued:
    """What an authority gives, as far as it is kept."""

    def __init__(self, serial: str, not_after: datetime) -> None:
        self.serial_hex, self.not_after = serial, not_after


async def join(pool: Pool, clock: FakeClock, serial: str = "a1") -> NodeId:
    """A node that joined."""
    now = clock.now()
    async with transaction(pool) as db:
        owner = OrganizationId(uuid7(now))
        await organizations.record(db, Organization(owner, f"o-{serial}", now))
        token = bounds.join_token(token_id=f"t{serial}", organization_id=owner, ttl_s=0, uses=0, now=now)
        await tokens.record(db, token, mac=b"m" * 32)
        joined = await joining.join(
            db,
            token_id=token.token_id,
            mac=b"m" * 32,
            spki=f"k{serial}",
            hostname="box",
            agent_version="1",
            address="192.0.2.1",
            now=now,
            sign=lambda _: _Issued(serial, now + timedelta(hours=24)),
        )
    assert isinstance(joined, joining.Joined)
    return joined.node_id


async def connect(pool: Pool, clock: FakeClock, node_id: NodeId, serial: str = "a1") -> int:
    """A session of that node, with 16 GiB."""
    async with transaction(pool) as db:
        return await nodes.begin_session(
            db,
            node_id,
            serial=serial,
            agent_info=AgentInfo("1", "2026-11-23", "c"),
            hardware=Hardware("box", "linux", "x86_64", 8, 16 * 2**30, 0),
            workers=(),
            applied_revision=0,
            now=clock.now(),
        )


async def state_of(pool: Pool, node_id: NodeId) -> NodeState:
    async with connection(pool) as db:
        return (await nodes.get(db, node_id)).state


async def test_a_node_left_online_by_a_killed_control_plane_is_found_silent_after_the_grace(
    pool: Pool, clock: FakeClock, sweeper: Sweeper
) -> None:
    node_id = await join(pool, clock)
    await connect(pool, clock, node_id)
    await clock.forward(3600)  # nobody listened
    await sweeper.once()
    assert await state_of(pool, node_id) is NodeState.ONLINE  # it had no chance yet
    await clock.forward(GRACE.total_seconds())
    await sweeper.once()
    assert await state_of(pool, node_id) is NodeState.OFFLINE


async def test_a_node_that_returns_within_the_grace_stays_online(
    pool: Pool, clock: FakeClock, sweeper: Sweeper
) -> None:
    node_id = await join(pool, clock)
    await connect(pool, clock, node_id)
    await clock.forward(3600)
    await sweeper.once()
    await clock.forward(20)
    assert await connect(pool, clock, node_id) == 2
    await clock.forward(20)
    await sweeper.once()
    assert await state_of(pool, node_id) is NodeState.ONLINE


async def test_silence_is_counted_afresh_after_the_database_was_away(
    pool: Pool, clock: FakeClock, sweeper: Sweeper
) -> None:
    node_id = await join(pool, clock)
    await connect(pool, clock, node_id)
    await sweeper.once()
    sweeper.interrupted()
    await clock.forward(3600)
    await sweeper.once()
    assert await state_of(pool, node_id) is NodeState.ONLINE


async def test_a_gateway_that_stays_away_is_forgotten_and_one_that_restarts_is_not(
    pool: Pool, clock: FakeClock, sweeper: Sweeper
) -> None:
    async with transaction(pool) as db:
        await gateways.record_seen(db, Gateway(GatewayId("gw-1"), "h:1", "gateway.mesh.local"), now=clock.now())
    await clock.forward(3600)
    await sweeper.once()
    await clock.forward(HUB_GRACE.total_seconds() - 1)
    await sweeper.once()
    async with connection(pool) as db:
        assert len(await gateways.list_(db)) == 1
    await clock.forward(1)
    await sweeper.once()
    async with connection(pool) as db:
        assert await gateways.list_(db) == []


async def test_certificates_are_forgotten_a_day_after_their_end(
    pool: Pool, clock: FakeClock, sweeper: Sweeper
) -> None:
    node_id = await join(pool, clock)
    old = Certificate("b2", node_id, "k", clock.now() - timedelta(days=3), clock.now() - timedelta(days=2))
    async with transaction(pool) as db:
        await certificates.record(db, old)
    await sweeper.once()
    async with connection(pool) as db:
        assert await certificates.find(db, "b2") is None
        assert await certificates.find(db, "a1") is not None


async def test_a_revoked_node_is_named_for_longer_than_any_certificate_lives_and_then_forgotten(
    pool: Pool, clock: FakeClock, sweeper: Sweeper
) -> None:
    node_id = await join(pool, clock)
    ends_at = clock.now() + timedelta(hours=24)
    async with transaction(pool) as db:
        await nodes.revoke(db, node_id, now=clock.now())
    await clock.forward((ends_at + REVOKED_GRACE - clock.now()).total_seconds())
    await sweeper.once()
    async with connection(pool) as db:
        assert node_id in (await snapshot.load(db, now=clock.now())).revoked_nodes
    await clock.forward(1)
    await sweeper.once()
    async with connection(pool) as db:
        assert (await snapshot.load(db, now=clock.now())).revoked_nodes == ()
        assert await nodes.list_(db) == []
    assert REVOKED_GRACE > MAX_LEAF_LIFETIME


async def deploy(pool: Pool, clock: FakeClock, replicas: int = 1) -> DeploymentId:
    now = clock.now()
    model = bounds.model(
        model_id=ModelId(uuid7(now)),
        name="smol",
        source="package:llm/m.gguf",
        context_length=0,
        memory_bytes=0,
        vram_bytes=0,
        gpu_count=0,
        now=now,
    )
    made = bounds.deployment(
        deployment_id=DeploymentId(uuid7(now)),
        name="",
        model=model,
        engine="",
        replicas=replicas,
        slots=0,
        now=now,
    )
    async with transaction(pool) as db:
        await models.record(db, model)
        await deployments.record(db, made)
    return made.deployment_id


async def test_placing_twice_places_once(pool: Pool, clock: FakeClock, placer: Placer) -> None:
    node_id = await join(pool, clock)
    await connect(pool, clock, node_id)
    await deploy(pool, clock, replicas=2)
    await placer.once()
    async with connection(pool) as db:
        first, told = await assignments.list_(db), await assignments.desired_for(db, node_id)
    await placer.once()
    async with connection(pool) as db:
        assert await assignments.list_(db) == first
        assert await assignments.desired_for(db, node_id) == told
    assert [one.node_id for one in first] == [node_id, node_id]


async def test_workers_stay_with_a_node_that_is_away_for_a_moment_and_move_when_it_is_lost(
    pool: Pool, clock: FakeClock, placer: Placer
) -> None:
    one, two = await join(pool, clock, "a1"), await join(pool, clock, "b2")
    epoch = await connect(pool, clock, one, "a1")
    await deploy(pool, clock)
    await placer.once()
    await connect(pool, clock, two, "b2")
    async with transaction(pool) as db:
        await nodes.end_session(db, one, epoch, now=clock.now())
    await placer.once()
    async with connection(pool) as db:
        assert [each.node_id for each in await assignments.list_(db)] == [one]
    await clock.forward(GRACE.total_seconds() + 1)
    await placer.once()
    async with connection(pool) as db:
        assert [each.node_id for each in await assignments.list_(db)] == [two]


async def test_the_first_node_back_after_an_outage_does_not_inherit_everything(
    pool: Pool, clock: FakeClock, placer: Placer
) -> None:
    one, two = await join(pool, clock, "a1"), await join(pool, clock, "b2")
    epoch = await connect(pool, clock, one, "a1")
    await deploy(pool, clock)
    await placer.once()
    async with transaction(pool) as db:
        await nodes.end_session(db, one, epoch, now=clock.now())  # the control plane stops, cleanly
    await clock.forward(3600)
    restarted = Placer(pool, FakeWake(clock), clock, GRACE)
    await connect(pool, clock, two, "b2")
    await restarted.once()
    async with connection(pool) as db:
        assert [each.node_id for each in await assignments.list_(db)] == [one]
    await connect(pool, clock, one, "a1")
    await clock.forward(GRACE.total_seconds() + 1)
    await restarted.once()
    async with connection(pool) as db:
        assert [each.node_id for each in await assignments.list_(db)] == [one]


async def test_a_round_without_a_database_says_so(placer: Placer, pool: Pool) -> None:
    pool.terminate()
    with pytest.raises(Unavailable):
        await placer.once()


class Shown(ServerTls):
    """A listener's side of TLS that remembers what it was given."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        super().__init__(files)

    def replace(self, files: TlsFiles) -> None:
        self.files = files
        super().replace(files)


def test_a_new_certificate_is_shown_once_its_files_are_whole(tmp_path: Path, clock: FakeClock) -> None:
    mesh = Mesh()
    old, new = mesh.files(Kind.CONTROL_PLANE), mesh.files(Kind.CONTROL_PLANE)
    show(tmp_path, old)
    tls = Shown(old)
    watch = CertificateWatch(tmp_path, [tls], clock)
    watch.once()
    write_private(tmp_path / "tls.key", new.key_pem)
    watch.once()
    assert tls.files.chain_pem == old.chain_pem  # a key that is not the certificate's: half written
    write_atomic(tmp_path / "tls.crt", new.chain_pem)
    watch.once()
    assert tls.files.chain_pem == new.chain_pem
    (tmp_path / "tls.crt").unlink()
    watch.once()
    assert tls.files.chain_pem == new.chain_pem
