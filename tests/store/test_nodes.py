"""Sessions and their epochs, reports, silence and revocation."""

import asyncio
from dataclasses import replace

import pytest

from control_plane.core.fleet import (
    AgentInfo,
    GpuSample,
    HostSample,
    NodeState,
    Report,
    WorkerPhase,
    WorkerReport,
)
from control_plane.store import assignments, certificates, nodes, snapshot
from control_plane.store.changes import hubs_changed
from control_plane.store.db import Pool, connection, transaction
from mesh.kit.errors import NotFound, PermissionDenied, Unauthenticated
from mesh.kit.ids import NodeId, WorkerId
from tests.store.rows import (
    AGENT,
    HARDWARE,
    NOW,
    ask_to_join,
    connect,
    later,
    make_deployment,
    make_node,
    make_online_node,
    make_organization,
    place_all,
    says,
)

HOST = HostSample(12.5, 0.4, 2, 16, 3, 100, 10, 20)
GPU = GpuSample("gpu-1", 80.0, 1, 24, 60.5, 250.0)


@pytest.fixture(autouse=True)
async def organization(pool: Pool) -> None:
    await make_organization(pool)


async def report(pool: Pool, node_id: NodeId, epoch: int, said: Report, *, now=NOW) -> bool:
    async with transaction(pool) as db:
        return await nodes.record_report(db, node_id, epoch, said, now=now)


async def revision(pool: Pool) -> int:
    async with connection(pool) as db:
        return await snapshot.revision(db)


async def test_a_session_begins_with_everything_the_node_tells(pool: Pool) -> None:
    node_id, serial = await make_node(pool)
    worker = WorkerReport(WorkerId("w1"), "ab" * 32, WorkerPhase.READY, 100, "", 1, True, 2, 3)
    async with transaction(pool) as db:
        epoch = await nodes.begin_session(
            db,
            node_id,
            serial=serial,
            agent_info=AGENT,
            hardware=HARDWARE,
            workers=(worker,),
            applied_revision=7,
            now=later(seconds=1),
        )
        node = await nodes.get(db, node_id)
    assert epoch == 1
    assert (node.state, node.epoch, node.last_seen_at) == (NodeState.ONLINE, 1, later(seconds=1))
    assert (node.agent_info, node.hardware, node.workers) == (AGENT, HARDWARE, (worker,))
    assert (node.applied_revision, node.host, node.gpus) == (7, None, ())
    assert node.desired_revision >= 1


async def test_epochs_only_grow_and_no_two_sessions_share_one(pool: Pool) -> None:
    node_id, serial = await make_node(pool)

    async def begin() -> int:
        async with transaction(pool) as db:
            return await connect(db, node_id, serial)

    async with asyncio.TaskGroup() as group:
        begun = [group.create_task(begin()) for _ in range(20)]
    assert sorted(one.result() for one in begun) == list(range(1, 21))


async def test_only_the_newest_epoch_is_heard(pool: Pool) -> None:
    node_id, serial = await make_online_node(pool)
    async with transaction(pool) as db:
        assert await connect(db, node_id, serial) == 2
    assert not await report(pool, node_id, 1, Report(99), now=later(seconds=9))
    assert await report(pool, node_id, 2, Report(5, host=HOST, gpus=(GPU,)), now=later(seconds=5))
    async with connection(pool) as db:
        node = await nodes.get(db, node_id)
    assert (node.applied_revision, node.last_seen_at) == (5, later(seconds=5))
    assert (node.host, node.gpus, node.agent_info) == (HOST, (GPU,), AGENT)


async def test_a_report_may_tell_a_new_build_of_the_agent(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    newer = AgentInfo("0.2.0", "2026-02-02", "cd" * 32)
    assert await report(pool, node_id, 1, Report(0, agent_info=newer))
    async with connection(pool) as db:
        assert (await nodes.get(db, node_id)).agent_info == newer


async def test_an_old_session_cannot_end_a_newer_one(pool: Pool) -> None:
    node_id, serial = await make_online_node(pool)
    async with transaction(pool) as db:
        await connect(db, node_id, serial)
        assert not await nodes.end_session(db, node_id, 1, now=NOW)
        assert (await nodes.get(db, node_id)).state is NodeState.ONLINE
        assert await nodes.end_session(db, node_id, 2, now=later(seconds=3))
        node = await nodes.get(db, node_id)
    assert (node.state, node.last_seen_at) == (NodeState.OFFLINE, later(seconds=3))


async def test_a_silent_node_goes_offline_and_its_next_report_brings_it_back(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    async with transaction(pool) as db:
        assert await nodes.expire_silent(db, seen_before=NOW) == []
        assert await nodes.expire_silent(db, seen_before=later(seconds=1)) == [node_id]
        assert await nodes.expire_silent(db, seen_before=later(seconds=1)) == []
        assert (await nodes.get(db, node_id)).state is NodeState.OFFLINE
    assert await report(pool, node_id, 1, Report(0), now=later(seconds=2))
    async with connection(pool) as db:
        assert (await nodes.get(db, node_id)).state is NodeState.ONLINE


async def test_admission_names_what_is_wrong(pool: Pool) -> None:
    node_id, serial = await make_node(pool)
    other, other_serial = await make_node(pool, "t2")
    async with connection(pool) as db:
        assert await nodes.require_admitted(db, node_id, serial=serial) == 0
        with pytest.raises(Unauthenticated, match="node unknown"):
            await nodes.require_admitted(db, NodeId("nobody"), serial=serial)
        for unknown in ("abc123", other_serial):
            with pytest.raises(Unauthenticated, match="certificate unknown"):
                await nodes.require_admitted(db, node_id, serial=unknown)
        await db.execute("UPDATE certificates SET revoked_at = $1 WHERE serial = $2", NOW, serial)
        with pytest.raises(PermissionDenied, match="certificate revoked"):
            await nodes.require_admitted(db, node_id, serial=serial)
    async with transaction(pool) as db:
        await nodes.revoke(db, other, now=NOW)
        with pytest.raises(PermissionDenied, match="node revoked"):
            await connect(db, other, other_serial)


async def test_a_revoked_node_is_cut_off_from_everything(pool: Pool) -> None:
    node_id, serial = await make_online_node(pool)
    await make_deployment(pool)
    assert len(await place_all(pool)) == 1
    before = await revision(pool)
    async with transaction(pool) as db:
        node = await nodes.revoke(db, node_id, now=later(seconds=1))
        assert node.state is NodeState.REVOKED
        assert node.certificate_expires_at is None
        assert await assignments.list_(db) == []
        found = await certificates.find(db, serial)
        assert found is not None
        assert found.revoked_at == later(seconds=1)
        assert not await nodes.record_report(db, node_id, 1, Report(0), now=NOW)
        assert not await nodes.end_session(db, node_id, 1, now=NOW)
    async with connection(pool) as db:
        told = await snapshot.load(db, now=NOW)
    assert told.revision > before
    assert set(told.revoked_nodes) == {node_id, serial}


async def test_revoking_twice_changes_nothing_and_revoking_nobody_is_an_error(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    async with transaction(pool) as db:
        await nodes.revoke(db, node_id, now=NOW)
    before = await revision(pool)
    async with transaction(pool) as db:
        assert (await nodes.revoke(db, node_id, now=NOW)).state is NodeState.REVOKED
        with pytest.raises(NotFound, match="no node 'nobody'"):
            await nodes.revoke(db, "nobody", now=NOW)
    assert await revision(pool) == before


async def test_a_revoked_node_is_forgotten_once_its_certificates_have_ended(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    alive, _ = await make_online_node(pool, "t2")
    async with transaction(pool) as db:
        await nodes.revoke(db, node_id, now=NOW)
        assert await nodes.delete_revoked(db, expired_before=later(hours=24)) == []
        assert await nodes.delete_revoked(db, expired_before=later(hours=25)) == [node_id]
        assert [one.node_id for one in await nodes.list_(db)] == [alive]


async def test_what_a_node_says_of_its_workers_reaches_their_rows(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool, replicas=2)
    first, second = await place_all(pool)
    before = await revision(pool)
    said = Report(1, (says(first, WorkerPhase.STARTING, progress=40, detail="loading"),))
    assert await report(pool, node_id, 1, said)
    async with connection(pool) as db:
        rows = {one.worker_id: one for one in await assignments.list_(db)}
    heard = rows[first.worker_id]
    assert (heard.phase, heard.progress_percent, heard.detail) == (WorkerPhase.STARTING, 40, "loading")
    assert rows[second.worker_id] == second
    assert await revision(pool) == before + 1


async def test_gateways_hear_of_phases_and_not_of_every_percent(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool)
    (worker,) = await place_all(pool)
    await report(pool, node_id, 1, Report(1, (says(worker, WorkerPhase.STARTING, progress=10),)))
    before = await revision(pool)
    await report(pool, node_id, 1, Report(1, (says(worker, WorkerPhase.STARTING, progress=90),)))
    assert await revision(pool) == before
    await report(pool, node_id, 1, Report(1, (says(worker, WorkerPhase.READY),)))
    assert await revision(pool) == before + 1


async def test_a_worker_the_node_does_not_know_has_not_begun(pool: Pool) -> None:
    node_id, _ = await make_online_node(pool)
    await make_deployment(pool)
    (worker,) = await place_all(pool)
    other, _ = await make_online_node(pool, "t2")
    ready = says(worker, WorkerPhase.READY)
    for reporter, epoch, said in (
        (node_id, 1, ()),
        (node_id, 1, (replace(ready, spec_hash="00" * 32),)),
        (other, 1, (ready,)),
    ):
        await report(pool, node_id, 1, Report(1, (ready,)))
        await report(pool, reporter, epoch, Report(1, said))
        async with connection(pool) as db:
            (row,) = await assignments.list_(db)
        assert row.phase is (WorkerPhase.READY if reporter == other else WorkerPhase.PENDING)


async def test_a_node_that_connects_again_tells_its_workers_at_once(pool: Pool) -> None:
    node_id, serial = await make_online_node(pool)
    await make_deployment(pool)
    (worker,) = await place_all(pool)
    async with transaction(pool) as db:
        await nodes.begin_session(
            db,
            node_id,
            serial=serial,
            agent_info=AGENT,
            hardware=HARDWARE,
            workers=(says(worker, WorkerPhase.READY),),
            applied_revision=0,
            now=NOW,
        )
        (row,) = await assignments.list_(db)
    assert row.phase is WorkerPhase.READY


async def test_nodes_are_listed_oldest_first_and_an_unknown_one_is_an_error(pool: Pool) -> None:
    first, _ = await make_node(pool, "t1")
    async with connection(pool) as db:
        assert (await nodes.get(db, first)).agent_info == AgentInfo("0.1.0", "", "")
        assert [one.node_id for one in await nodes.list_(db)] == [first]
        with pytest.raises(NotFound, match="no node 'nobody'"):
            await nodes.get(db, "nobody")
    assert await ask_to_join(pool, "t1", spki="key-of-t1")


async def begin(
    pool: Pool, node_id: NodeId, serial: str, *, applied_revision: int = 0, last_epoch: int = 0
) -> tuple[int, int]:
    """The new session's epoch, and the desired revision after it."""
    async with transaction(pool) as db:
        epoch = await nodes.begin_session(
            db,
            node_id,
            serial=serial,
            agent_info=AGENT,
            hardware=HARDWARE,
            workers=(),
            applied_revision=applied_revision,
            last_epoch=last_epoch,
            now=NOW,
        )
        return epoch, (await nodes.get(db, node_id)).desired_revision


async def test_a_restored_database_counts_on_from_what_its_nodes_have_seen(pool: Pool) -> None:
    node_id, serial = await make_node(pool)
    assert await begin(pool, node_id, serial, applied_revision=30, last_epoch=40) == (41, 31)
    assert await begin(pool, node_id, serial, applied_revision=31, last_epoch=41) == (42, 31)
    assert await begin(pool, node_id, serial) == (43, 31)  # a node that forgot takes nothing back


@pytest.mark.parametrize("said", [2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
async def test_a_node_that_lies_about_what_it_saw_hurts_nobody(pool: Pool, said: int) -> None:
    liar, serial = await make_node(pool)
    honest, _ = await make_online_node(pool, "t2")
    async with connection(pool) as db:
        before = await nodes.get(db, honest)
    for _ in range(3):
        epoch, revision = await begin(pool, liar, serial, applied_revision=said, last_epoch=said)
        assert max(epoch, revision) <= 2**62 + 2
    async with transaction(pool) as db:
        await hubs_changed(db)  # raises every node's revision in one statement
        assert (await nodes.get(db, honest)).desired_revision == before.desired_revision + 1
        assert (await nodes.get(db, honest)).epoch == before.epoch
    assert await report(pool, liar, epoch, Report(1))


async def test_the_certificates_of_a_revoked_node_stay_with_its_row(pool: Pool) -> None:
    """Else the row would look as if nothing it holds could still be good."""
    revoked, serial = await make_online_node(pool)
    _, other_serial = await make_online_node(pool, "t2")
    async with transaction(pool) as db:
        await nodes.revoke(db, revoked, now=NOW)
        assert await certificates.delete_expired(db, before=later(hours=25)) == 1
        assert await certificates.find(db, other_serial) is None
        assert await certificates.find(db, serial) is not None
        assert await nodes.delete_revoked(db, expired_before=later(hours=24)) == []
        assert await nodes.delete_revoked(db, expired_before=later(hours=25)) == [revoked]
        assert await certificates.find(db, serial) is None
