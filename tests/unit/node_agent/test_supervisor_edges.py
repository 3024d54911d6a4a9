"""What nobody expected in one worker stays that worker's trouble, and ends when its cause does."""

import logging

import pytest

from node_agent.core.worker import WorkerPhase
from tests.fakes.clock import settle
from tests.fakes.engine import spec
from tests.fakes.worker_node import Node


async def test_one_workers_surprise_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.runtime.hidden.add("bad")
    async with node.agent() as supervisor:
        supervisor.apply([spec("bad"), spec("good")])
        await settle(60)
        assert (node.phase("bad"), node.phase("good")) == (WorkerPhase.FAILED, WorkerPhase.READY)
        assert "unexpected: " in node.status("bad").detail
        assert "keeper failed" in caplog.text
        await node.clock.forward(30)
        assert (node.phase("bad"), node.phase("good")) == (WorkerPhase.FAILED, WorkerPhase.READY)


async def test_an_engine_that_lived_through_its_keepers_surprise_is_kept() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        engine = node.runtime.only("w-1")
        node.runtime.hidden.add("w-1")
        node.engine.silent = True
        await node.clock.forward(12)
        assert node.phase() is WorkerPhase.FAILED
        node.engine.silent = False
        node.runtime.hidden.clear()
        await node.clock.forward(90)
        assert (node.phase(), node.status().starts) == (WorkerPhase.READY, 1)
        assert node.runtime.only("w-1").pid == engine.pid


async def test_what_cannot_be_ended_now_is_ended_later() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        node.runtime.hidden.add("w-1")
        supervisor.apply([])
        await node.clock.forward(60)
        assert (len(node.host.processes), node.phase()) == (1, WorkerPhase.DRAINING)
        node.runtime.hidden.clear()
        await node.clock.forward(60)
        assert (node.host.processes, supervisor.statuses()) == ({}, ())


async def test_a_leftover_that_cannot_be_ended_holds_up_its_successor_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = Node()
    node.runtime.leave("w-1", "old")
    node.runtime.hidden.add("w-1")
    async with node.agent() as supervisor:
        supervisor.apply([spec(), spec("w-2")])
        await node.clock.forward(30)
        assert (node.phase(), node.phase("w-2")) == (WorkerPhase.PENDING, WorkerPhase.READY)
        assert "leftover not ended" in caplog.text
        node.runtime.hidden.clear()
        await node.clock.forward(30)
        assert (node.phase(), node.runtime.stopped) == (WorkerPhase.READY, ["w-1"])


async def test_nothing_is_started_before_what_runs_here_is_known(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    left = node.runtime.leave("w-1", "hash-1")
    node.runtime.blind = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        with caplog.at_level(logging.ERROR):
            await node.clock.forward(200)  # more often than a part may fail
        assert (len(node.host.processes), node.phase()) == (1, WorkerPhase.PENDING)
        assert "cannot look for engines" in caplog.text
        node.runtime.blind = False
        await node.clock.forward(30)
        assert (node.phase(), node.runtime.only("w-1").pid) == (WorkerPhase.READY, left.pid)
