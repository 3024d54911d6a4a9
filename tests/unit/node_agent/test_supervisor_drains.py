"""How workers that are no longer wanted, or wanted otherwise, end."""

import pytest

from node_agent.core.worker import WorkerPhase, WorkerUnknown, WorkerUnready
from tests.fakes.clock import settle
from tests.fakes.engine import spec
from tests.fakes.worker_node import PACE, Node


async def test_a_worker_no_longer_wanted_takes_nothing_new_and_finishes_what_it_has() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        with supervisor.lease("w-1") as endpoint, supervisor.lease("w-1"):
            assert endpoint == supervisor.target("w-1")
            supervisor.apply([])
            await settle()
            assert (node.phase(), node.status().detail) == (WorkerPhase.DRAINING, "no longer wanted")
            with pytest.raises(WorkerUnready, match="draining"), supervisor.lease("w-1"):
                pass
            await node.clock.forward(29)
            assert node.runtime.stopped == []
        await settle()
        assert node.runtime.stopped == ["w-1"]
        assert supervisor.statuses() == ()
        with pytest.raises(WorkerUnknown):
            supervisor.target("w-1")


async def test_draining_ends_after_the_grace_even_with_requests_left() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        with supervisor.lease("w-1"):
            supervisor.apply([])
            await node.clock.forward(31)
            assert node.runtime.stopped == ["w-1"]


async def test_an_engine_that_drains_by_itself_is_asked_at_once_and_given_the_time() -> None:
    node = Node()
    node.engine.drains = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        with supervisor.lease("w-1"):
            supervisor.apply([])
            await settle()
            assert node.runtime.graces == [PACE.stop_grace_s + PACE.drain_grace_s]


async def test_a_changed_specification_is_started_only_when_the_old_engine_is_gone() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        with supervisor.lease("w-1"):
            supervisor.apply([spec(spec_hash="hash-2")])
            await settle()
            assert (node.status().spec_hash, node.phase()) == ("hash-2", WorkerPhase.PENDING)
            assert node.runtime.only("w-1").spec_hash == "hash-1"
        await settle()
        assert (node.status().spec_hash, node.phase(), node.status().starts) == ("hash-2", WorkerPhase.READY, 1)
        assert node.runtime.only("w-1").spec_hash == "hash-2"


async def test_a_worker_taken_back_while_it_waits_for_its_turn_never_starts() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        with supervisor.lease("w-1"):
            supervisor.apply([spec(spec_hash="hash-2")])
            await settle()
            supervisor.apply([])
            await settle()
        await node.clock.forward(5)
        assert (supervisor.statuses(), node.host.starts["w-1"]) == ((), ("hash-1", 1))


async def test_a_worker_can_be_taken_back_in_every_phase_of_its_start() -> None:
    for turns in range(25):
        node = Node()
        async with node.agent() as supervisor:
            supervisor.apply([spec()])
            await settle(turns)
            supervisor.apply([])
            await node.clock.forward(60)
            assert (supervisor.statuses(), node.host.processes) == ((), {}), turns


async def test_a_failed_worker_can_be_taken_back_while_it_waits_for_its_next_start() -> None:
    node = Node()
    node.runtime.refusal = "no"
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(40)
        supervisor.apply([])
        await settle()
        assert supervisor.statuses() == ()
