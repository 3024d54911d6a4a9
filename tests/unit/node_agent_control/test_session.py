"""The control stream against a real server: what is said, what is believed, and what is survived."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.kit.settings import parse_address
from mesh.node.v1 import node_pb2 as pb
from mesh.types.v1 import worker_pb2
from node_agent.agent import AgentInfo
from node_agent.control.session import REFUSED_S, ControlSession
from node_agent.core.desired import DesiredState
from node_agent.core.worker import WorkerPhase, WorkerStatus
from node_agent.disk import Disk
from pki.names import Kind
from tests.fakes.clock import FakeClock
from tests.fakes.node_service import FakeProbes, FakeTunnels, FakeWorkers, Plane, Talk, enrolled, plane, put_tls
from tests.fakes.pki import Mesh
from tests.fakes.upstream import until
from tests.unit.node_agent_control.test_desired import STATE

AGENT = AgentInfo("0.1.0", "2026-11-23", "ab" * 32)
READY = WorkerStatus(worker_id="w-1", spec_hash="h", phase=WorkerPhase.READY, progress_percent=100)
HUB = pb.Hub(hub_id="g-1", endpoint="127.0.0.1:7450", server_name="gateway.mesh.local")


@dataclass
class Node:
    """A control session at work, and what it works on."""

    session: ControlSession
    disk: Disk
    clock: FakeClock
    workers: FakeWorkers
    tunnels: FakeTunnels
    task: "asyncio.Task[None] | None" = None
    heard: list[pb.Report] = field(default_factory=list)

    async def connected(self, to: Plane, **welcome: Any) -> Talk:
        """Connect up to the first report."""
        talk = await to.next()
        await talk.hello()
        await talk.welcome(**welcome)
        await talk.report()
        return talk

    async def again(self, to: Plane) -> Talk:
        """The next connection; time passes until it comes."""
        while to.talks.empty():
            await self.clock.forward(1)
            await asyncio.sleep(0.005)
        return await to.next()


@asynccontextmanager
async def node(
    disk: Disk, *, clock: FakeClock | None = None, address: str | None = None, resume: bool = False
) -> AsyncIterator[Node]:
    clock = clock or FakeClock(datetime.now(UTC))
    workers, tunnels = FakeWorkers(), FakeTunnels()
    session = ControlSession(
        disk=disk,
        clock=clock,
        agent=AGENT,
        workers=workers,
        tunnels=tunnels,
        probes=FakeProbes(),
        address=parse_address(address) if address else None,
    )
    if resume:
        session.resume()
    async with asyncio.TaskGroup() as group:
        running = Node(session, disk, clock, workers, tunnels)
        running.task = group.create_task(session.run())
        yield running
        running.task.cancel()


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


async def test_a_node_says_who_it_is_and_how_it_is(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        agent.workers.now = (READY,)
        talk = await server.next()
        assert talk.node == "spiffe://mesh.local/node/n-1"
        hello = await talk.hello()
        assert (hello.agent_info.checksum, hello.hardware.hostname) == ("ab" * 32, "box")
        assert (hello.applied_revision, [worker.worker_id for worker in hello.workers]) == (0, ["w-1"])
        assert not agent.session.connected
        await talk.welcome(epoch=41)
        report = await talk.report()
        assert (report.sequence, report.applied_revision) == (1, 0)
        assert report.workers[0].phase == worker_pb2.WORKER_PHASE_READY
        assert agent.session.connected
        assert (agent.tunnels.epoch, agent.disk.epoch()) == (41, 41)


async def test_desired_state_is_on_disk_acted_on_and_acknowledged(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        talk = await agent.connected(server)
        await talk.desire(7, hubs=[HUB], workers=[worker_pb2.WorkerSpec(worker_id="w-1", spec_hash="h")])
        assert (await talk.report()).applied_revision == 7
        (specs,) = agent.workers.applied
        (hubs,) = agent.tunnels.applied
        assert (specs[0].worker_id, hubs[0].endpoint) == ("w-1", "127.0.0.1:7450")
        assert Disk(tmp_path).desired() == DesiredState(revision=7, workers=specs, hubs=hubs)


async def test_an_older_revision_is_refused(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        talk = await agent.connected(server)
        await talk.desire(7, hubs=[HUB])
        await talk.report()
        await talk.desire(6)
        await talk.desire(8)
        assert (await talk.report()).applied_revision == 8
        assert [len(hubs) for hubs in agent.tunnels.applied] == [1, 0]


async def test_what_is_on_disk_is_gone_on_with_while_the_control_plane_is_away(tmp_path: Path, mesh: Mesh) -> None:
    disk = enrolled(tmp_path, mesh)
    disk.keep_desired(STATE)
    disk.keep_epoch(5)
    async with node(disk, resume=True) as agent:
        await until(lambda: bool(agent.session.trouble))
        assert agent.workers.applied == [STATE.workers]
        assert agent.tunnels.applied == [STATE.hubs]
        assert agent.tunnels.epoch == 5
        assert not agent.session.connected


async def test_a_control_plane_is_told_the_last_epoch_that_was_seen(tmp_path: Path, mesh: Mesh) -> None:
    """One whose database was restored counts on from it; hubs would refuse anything lower."""
    async with plane(mesh) as server:
        disk = enrolled(tmp_path, mesh, server.address)
        disk.keep_epoch(40)
        async with node(disk, resume=True) as agent:
            talk = await server.next()
            assert (await talk.hello()).last_epoch == 40
            await talk.welcome(epoch=41)
            await talk.report()
            talk.end()
            assert (await (await agent.again(server)).hello()).last_epoch == 41
            assert Disk(tmp_path).epoch() == 41


async def test_of_a_damaged_memory_nothing_is_concluded(tmp_path: Path, mesh: Mesh) -> None:
    disk = enrolled(tmp_path, mesh)
    (tmp_path / "desired.json").write_text('{"format": 1, "rev')
    async with node(disk, resume=True) as agent:
        await until(lambda: bool(agent.session.trouble))
        assert not agent.workers.applied


class FullDisk(Disk):
    """A disk without room, until a test makes some."""

    full = True

    def keep_desired(self, state: DesiredState) -> None:
        if FullDisk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().keep_desired(state)


async def test_a_full_disk_refuses_what_is_new_and_takes_it_when_there_is_room(
    tmp_path: Path, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    FullDisk.full = True
    async with plane(mesh) as server:
        enrolled(tmp_path, mesh, server.address)
        async with node(FullDisk(tmp_path)) as agent:
            talk = await agent.connected(server, interval_s=10)
            await talk.desire(7, hubs=[HUB])
            await until(lambda: "desired state not stored, so refused" in caplog.messages)
            await agent.clock.forward(10)
            assert (await talk.report()).applied_revision == 0
            assert not agent.workers.applied
            FullDisk.full = False
            await agent.clock.forward(10)
            while (await talk.report()).applied_revision != 7:
                pass
            assert len(agent.tunnels.applied) == 1
            assert Disk(tmp_path).desired() is not None


class BrokenDisk(Disk):
    """A disk that fails as nobody expected, once."""

    broken = True

    def keep_desired(self, state: DesiredState) -> None:
        if BrokenDisk.broken:
            BrokenDisk.broken = False
            raise RuntimeError("nobody expected this")
        super().keep_desired(state)


async def test_a_surprise_ends_one_connection_and_not_the_session(
    tmp_path: Path, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    async with plane(mesh) as server:
        enrolled(tmp_path, mesh, server.address)
        async with node(BrokenDisk(tmp_path)) as agent:
            talk = await agent.connected(server)
            await talk.desire(7, hubs=[HUB])
            talk = await agent.again(server)
            assert agent.session.trouble.startswith("unexpected: ")
            assert "nobody expected this" in caplog.text
            await talk.hello()
            await talk.welcome()
            await talk.report()
            await talk.desire(7, hubs=[HUB])
            assert (await talk.report()).applied_revision == 7


async def test_changes_are_told_at_once_and_together(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        talk = await agent.connected(server)
        for percent in range(10, 60, 10):
            agent.workers.become(replace(READY, phase=WorkerPhase.STARTING, progress_percent=percent))
        await agent.clock.forward(0.1)
        report = await talk.report()
        assert (report.sequence, report.workers[0].progress_percent) == (2, 50)
        # Queue depths alone wait for the next heartbeat.
        agent.workers.become(replace(agent.workers.now[0], requests_running=3))
        await agent.clock.forward(0.1)
        agent.workers.become(READY)
        await agent.clock.forward(0.1)
        report = await talk.report()
        assert (report.sequence, report.workers[0].phase) == (3, worker_pb2.WORKER_PHASE_READY)


async def test_a_node_beats_when_nothing_changes(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        talk = await agent.connected(server, interval_s=10)
        for sequence in range(2, 5):
            await agent.clock.forward(10)
            assert (await talk.report()).sequence == sequence


async def test_a_stream_that_ends_is_opened_again_with_all_that_is_known(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        talk = await agent.connected(server, epoch=1)
        await talk.desire(7)
        await talk.report()
        talk.end()
        talk = await agent.again(server)
        assert (await talk.hello()).applied_revision == 7
        await talk.welcome(epoch=2)
        assert (await talk.report()).sequence == 1
        assert agent.tunnels.epoch == 2


async def test_a_control_plane_that_comes_back_is_found(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as first:
        address = first.address
    async with node(enrolled(tmp_path, mesh, address)) as agent:
        await until(lambda: bool(agent.session.trouble))
        async with plane(mesh, address) as second:
            await (await agent.again(second)).hello()


async def test_the_owners_address_goes_before_the_one_from_joining(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, "127.0.0.1:1"), address=server.address):
        await (await server.next()).hello()


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "node_revoked", "this node was revoked"),
        (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired", "our certificate has expired"),
        (grpc.StatusCode.PERMISSION_DENIED, "something_new", "something_new: no way"),
        (grpc.StatusCode.UNAUTHENTICATED, "", "no way"),
    ],
)
@pytest.mark.parametrize("when", ["instead of welcome", "in the middle"])
async def test_a_refusal_is_told_in_words_and_not_asked_for_again_soon(
    tmp_path: Path, mesh: Mesh, status: grpc.StatusCode, reason: str, words: str, when: str
) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        if when == "in the middle":
            talk = await agent.connected(server)
        else:
            talk = await server.next()
            await talk.hello()  # a refusal that crosses it on its way is heard at the next attempt only
        talk.end(status, "no way", reason)
        await until(lambda: agent.session.trouble.startswith(words))
        await agent.clock.forward(REFUSED_S - 1)
        await asyncio.sleep(0.02)
        assert server.came == 1
        await agent.again(server)


async def test_an_expired_certificate_is_named_here_and_a_new_one_is_found(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server:
        disk = enrolled(tmp_path, mesh, server.address)
        clock = FakeClock(datetime.now(UTC) + timedelta(hours=2))
        async with node(disk, clock=clock) as agent:
            await until(lambda: "certificate expired at" in agent.session.trouble)
            assert "enroll again" in agent.session.trouble
            assert server.came == 0
            put_tls(disk, mesh.files(Kind.NODE, "n-1", ttl=timedelta(hours=4)))
            await (await agent.again(server)).hello()


async def test_a_certificate_of_tomorrow_means_a_wrong_clock(tmp_path: Path, mesh: Mesh) -> None:
    disk = enrolled(tmp_path, mesh)
    async with node(disk, clock=FakeClock(datetime.now(UTC) - timedelta(days=1))) as agent:
        await until(lambda: "clock" in agent.session.trouble)


async def test_a_clock_that_is_off_is_said(tmp_path: Path, mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    other = Timestamp()
    other.FromDatetime(datetime.now(UTC) - timedelta(minutes=2))
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        with caplog.at_level(logging.ERROR):
            await agent.connected(server, server_time=other)
        assert "this machine's clock is wrong" in caplog.messages


async def test_a_server_of_another_mesh_is_not_talked_to(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(Mesh()) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        await until(lambda: bool(agent.session.trouble))
        assert server.came == 0


async def test_who_does_not_say_welcome_is_left(tmp_path: Path, mesh: Mesh) -> None:
    async with plane(mesh) as server, node(enrolled(tmp_path, mesh, server.address)) as agent:
        talk = await server.next()
        await talk.hello()
        await talk.desire(1)
        await until(lambda: "welcome" in agent.session.trouble)
        assert not agent.workers.applied
        talk.over.set()


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_cancelling_at_any_moment_ends_it(tmp_path: Path, mesh: Mesh, turns: int) -> None:
    async with plane(mesh) as server:
        async with node(enrolled(tmp_path, mesh, server.address)):
            for _ in range(turns):
                await asyncio.sleep(0.0005)
        while not server.talks.empty():
            (await server.next()).over.set()
