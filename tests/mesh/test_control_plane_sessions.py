"""Control streams: one live session per node, and nobody else's."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest

from control_plane.rpc.metrics import Metrics
from control_plane.rpc.node_service import Heartbeat, NodeLink, _Talk
from control_plane.rpc.sessions import NodeSession, Sessions
from control_plane.store.db import open_pool, transaction
from mesh.admin.v1 import deployment_pb2
from mesh.admin.v1 import node_pb2 as admin_pb
from mesh.kit.errors import StaleEpoch
from mesh.node.v1 import node_pb2
from mesh.types.v1 import machine_pb2, worker_pb2
from pki.names import Identity, Kind
from pki.peer import Caller
from tests.fakes.clock import FakeClock
from tests.fakes.wake import FakeWake
from tests.mesh.control_plane_clients import eventually, hello, status
from tests.mesh.control_plane_harness import Plane, running
from tests.store.rows import connect, make_online_node, make_organization

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def node_of(plane: Plane, node_id: str) -> admin_pb.Node:
    return (await plane.nodes.GetNode(admin_pb.GetNodeRequest(node_id=node_id))).node


async def test_a_newer_session_cuts_the_older_one_at_once(plane: Plane) -> None:
    joined = await plane.join()
    older = await plane.connect(joined)
    assert (await older.welcome()).epoch == 1
    newer = await plane.connect(joined)
    assert (await newer.welcome()).epoch == 2
    assert await older.ended() == (grpc.StatusCode.ABORTED, "stale_epoch")
    assert (await newer.desired()).revision >= 1
    assert (await node_of(plane, joined.node_id)).state == admin_pb.NODE_STATE_ONLINE
    await newer.hang_up()


async def test_a_revoked_node_is_cut_and_may_not_return(plane: Plane) -> None:
    joined = await plane.join()
    node = await plane.connect(joined)
    await node.welcome()
    await node.desired()
    await plane.nodes.DeleteNode(admin_pb.DeleteNodeRequest(node_id=joined.node_id))
    assert await node.ended() == (grpc.StatusCode.PERMISSION_DENIED, "node_revoked")
    again = await plane.connect(joined)
    assert await again.ended() == (grpc.StatusCode.PERMISSION_DENIED, "node_revoked")


async def test_the_hello_comes_first(plane: Plane) -> None:
    node = plane.talk(await plane.join())
    await node.report()
    assert await node.ended() == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def test_a_second_hello_ends_the_session(plane: Plane) -> None:
    node = await plane.connect(await plane.join())
    await node.welcome()
    await node.call.write(node_pb2.ConnectRequest(hello=hello()))
    assert await node.ended() == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def test_an_empty_message_is_refused(plane: Plane) -> None:
    node = plane.talk(await plane.join())
    await node.call.write(node_pb2.ConnectRequest())
    assert await node.ended() == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def test_octets_that_are_no_message_end_the_stream_and_nothing_else(plane: Plane) -> None:
    joined = await plane.join()
    channel = plane.node_channel(joined)
    raw = channel.stream_stream("/mesh.node.v1.NodeService/Connect")()
    await raw.write(b"\xff\xff\xff")
    async with asyncio.timeout(20):
        assert await raw.code() is not grpc.StatusCode.OK
    node = await plane.connect(joined)
    await node.welcome()
    await node.hang_up()


async def test_a_hello_with_too_many_workers_is_refused_by_name(plane: Plane) -> None:
    workers = [worker_pb2.WorkerStatus(worker_id=str(number)) for number in range(257)]
    node = await plane.connect(await plane.join(), workers=workers)
    assert await node.ended() == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
    assert "workers: at most 256" in await node.call.details()


async def test_operators_see_what_the_node_said_made_fit_to_keep(plane: Plane) -> None:
    joined = await plane.join(hostname="rack-7")
    node = await plane.connect(joined)
    await node.welcome()
    await node.report(
        applied_revision=3,
        workers=[worker_pb2.WorkerStatus(worker_id="unknown", detail="loading\x00\n80 %", progress_percent=400)],
        host=machine_pb2.HostSample(cpu_percent=float("nan"), memory_used_bytes=9, memory_total_bytes=8),
        gpus=[
            machine_pb2.GpuSample(uuid="GPU-1", utilization_percent=250, temperature_celsius=-300, power_watts=-1)
        ],
    )
    seen = await eventually(lambda: node_of(plane, joined.node_id), lambda found: found.applied_revision == 3)
    assert (seen.hostname, seen.state, seen.epoch) == ("rack-7", admin_pb.NODE_STATE_ONLINE, 1)
    assert seen.agent_info.checksum == "a" * 64
    assert seen.hardware.cpu_count == 8
    assert (seen.workers[0].detail, seen.workers[0].progress_percent) == ("loading  80 %", 100)
    assert (seen.host.cpu_percent, seen.host.memory_used_bytes) == (0, 8)
    assert (seen.gpus[0].utilization_percent, seen.gpus[0].temperature_celsius) == (100, -50)
    assert seen.gpus[0].power_watts == 0
    assert seen.certificate_expires_at.seconds > seen.created_at.seconds
    await node.hang_up()


async def test_a_repeated_report_is_dropped(plane: Plane) -> None:
    joined = await plane.join()
    node = await plane.connect(joined)
    await node.welcome()
    await node.say(node_pb2.Report(sequence=2, applied_revision=20))
    await node.say(node_pb2.Report(sequence=2, applied_revision=21))
    await node.say(node_pb2.Report(sequence=1, applied_revision=22))
    await node.hang_up()
    seen = await eventually(
        lambda: node_of(plane, joined.node_id), lambda found: found.state == admin_pb.NODE_STATE_OFFLINE
    )
    assert seen.applied_revision == 20


async def test_a_node_that_hangs_up_is_offline_and_one_that_joined_only_is_joining(plane: Plane) -> None:
    joined = await plane.join()
    assert (await node_of(plane, joined.node_id)).state == admin_pb.NODE_STATE_JOINING
    node = await plane.connect(joined)
    await node.welcome()
    await node.hang_up()
    await eventually(
        lambda: node_of(plane, joined.node_id), lambda found: found.state == admin_pb.NODE_STATE_OFFLINE
    )


async def test_nodes_that_break_off_are_offline_too_every_one_of_them(plane: Plane) -> None:
    joined = [await plane.join() for _ in range(12)]
    talks = [await plane.connect(one) for one in joined]
    for talk in talks:
        await talk.welcome()
    for talk in talks:
        talk.call.cancel()

    async def states() -> set[int]:
        return {(await node_of(plane, one.node_id)).state for one in joined}

    await eventually(states, lambda found: found == {admin_pb.NODE_STATE_OFFLINE})


async def test_what_an_absent_node_said_of_its_workers_is_not_shown_as_present(plane: Plane) -> None:
    node = await plane.connect(await plane.join())
    await node.welcome()
    made = await plane.deploy("seen", name="seen")
    [spec] = (await node.desired(lambda state: bool(state.workers))).workers
    await node.report(workers=[status(spec, "READY", detail="answers")])

    async def worker() -> deployment_pb2.Worker:
        request = deployment_pb2.GetDeploymentRequest(deployment=made.deployment_id)
        return (await plane.deployments.GetDeployment(request)).deployment.workers[0]

    await eventually(worker, lambda seen: seen.phase == worker_pb2.WORKER_PHASE_READY)
    await node.hang_up()
    seen = await eventually(worker, lambda seen: seen.phase == worker_pb2.WORKER_PHASE_PENDING)
    assert seen.detail == "its node is not connected"
    await plane.deployments.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(deployment="seen"))


async def test_a_revision_that_cannot_be_is_kept_as_the_largest_that_can(plane: Plane) -> None:
    joined = await plane.join()
    node = await plane.connect(joined, applied_revision=2**64 - 1)
    await node.welcome()
    assert (await node_of(plane, joined.node_id)).applied_revision == 2**63 - 1
    await node.hang_up()


async def test_the_numbers_of_live_streams_and_nodes_are_on_the_metrics_page(plane: Plane) -> None:
    node = await plane.connect(await plane.join())
    await node.welcome()

    async def page() -> str:
        return (await plane.http("/metrics"))[1]

    def shown(text: str) -> bool:  # of earlier tests, the last sessions may still be ending
        return (
            'inventiv_control_plane_streams{method="Connect"} 1.0' in text
            and 'inventiv_control_plane_nodes{state="online"} 1.0' in text
        )

    await eventually(page, shown)
    await node.hang_up()


async def test_silence_ends_the_session() -> None:
    second = timedelta(seconds=1)
    async with running(heartbeat_interval=second, heartbeat_grace=2 * second) as impatient:
        joined = await impatient.join()
        node = await impatient.connect(joined)
        assert (await node.welcome()).heartbeat_interval_s == 1
        assert await node.ended() == (grpc.StatusCode.UNAVAILABLE, "unavailable")
        await eventually(
            lambda: node_of(impatient, joined.node_id), lambda found: found.state == admin_pb.NODE_STATE_OFFLINE
        )


async def test_two_replicas_share_one_truth() -> None:
    """A newer session, a revocation and a deployment made at one replica are felt at the other."""
    async with running() as here:
        other_state = here.state.with_name("other")
        other_state.mkdir()
        (other_state / "pepper").write_text((here.state / "pepper").read_text())
        there = Plane(other_state, here.mesh, replace(here.settings, state_dir=other_state))
        await there.start()
        try:
            joined = await here.join()
            older = await here.connect(joined)
            await older.welcome()
            newer = await there.connect(joined)
            await newer.welcome()
            assert await older.ended() == (grpc.StatusCode.ABORTED, "stale_epoch")
            await here.deploy("shared")
            [spec] = (await newer.desired(lambda state: bool(state.workers))).workers
            await newer.report(workers=[status(spec)])
            await here.nodes.DeleteNode(admin_pb.DeleteNodeRequest(node_id=joined.node_id))
            assert await newer.ended() == (grpc.StatusCode.PERMISSION_DENIED, "node_revoked")
        finally:
            await there.stop()


async def test_a_node_that_saw_more_than_a_restored_database_knows_comes_back(plane: Plane) -> None:
    joined, other = await plane.join(), await plane.join()
    neighbour = await plane.connect(other)
    await neighbour.welcome()
    node = await plane.connect(joined, applied_revision=30, last_epoch=40)
    assert (await node.welcome()).epoch == 41
    assert (await node.desired()).revision == 31
    await node.hang_up()
    # And one who makes it up gets no further than its own row.
    liar = await plane.connect(joined, applied_revision=2**64 - 1, last_epoch=2**64 - 1)
    assert (await liar.welcome()).epoch == 42
    snapshots = plane.watch("new-hub", "127.0.0.1:7999")  # raises the revision of every node
    await anext(snapshots)
    told = await neighbour.desired(lambda state: "new-hub" in {hub.hub_id for hub in state.hubs})
    assert told.revision < 100
    await liar.hang_up()
    await neighbour.hang_up()


class OneReport:
    """A stream on which one report comes, and then nothing."""

    def __init__(self) -> None:
        self.said = False

    async def read(self) -> node_pb2.ConnectRequest:
        if self.said:
            await asyncio.get_running_loop().create_future()
        self.said = True
        return node_pb2.ConnectRequest(report=node_pb2.Report(sequence=1))


@pytest.mark.asyncio(loop_scope="function")
async def test_a_fenced_report_needs_one_connection_and_not_a_second_one(database: str) -> None:
    """With as many fenced reports as connections, each would wait for the other's second one."""
    clock = FakeClock()
    pool = await open_pool(database, max_size=1)
    await make_organization(pool)
    node_id, serial = await make_online_node(pool)
    async with transaction(pool) as db:
        assert await connect(db, node_id, serial) == 2
    link = NodeLink(
        pool,
        FakeWake(clock),
        clock,
        Metrics(),
        Heartbeat(interval=timedelta(seconds=10), grace=timedelta(seconds=30)),
        Sessions(pool, clock),
    )
    caller = Caller(Identity(Kind.NODE, node_id, "mesh.local"), clock.now(), serial)
    talk = _Talk(NodeSession(node_id, 1), caller, clock.monotonic())
    with pytest.raises(StaleEpoch):
        async with asyncio.timeout(60):
            await link._hear(talk, OneReport())  # type: ignore[arg-type]  # all of a stream that is used here
    pool.terminate()
