"""How one node's workers come up, fail and come back."""

import asyncio

import pytest

from node_agent.core.worker import WorkerPhase, WorkerUnready
from tests.fakes.clock import settle
from tests.fakes.engine import spec
from tests.fakes.worker_node import PACE, Node


async def test_nothing_is_touched_before_the_first_desired_state() -> None:
    node = Node()
    node.runtime.leave("w-1", "hash-1")
    async with node.agent():
        await node.clock.forward(100)
        assert (node.runtime.stopped, node.supervisor.statuses()) == ([], ())


async def test_a_wanted_worker_is_pending_until_it_is_its_turn() -> None:
    node = Node()
    node.supervisor.apply([spec()])
    assert node.phase() is WorkerPhase.PENDING
    with pytest.raises(WorkerUnready, match="pending"):
        node.supervisor.target("w-1")


async def test_a_worker_starts_warms_and_becomes_ready() -> None:
    node = Node()
    node.engine.loading = True
    node.engine.warm.clear()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert (node.phase(), node.status().progress_percent) == (WorkerPhase.STARTING, 60)
        node.engine.loading = False
        await node.clock.forward(1)
        assert (node.phase(), node.status().progress_percent) == (WorkerPhase.WARMING, 90)
        with pytest.raises(WorkerUnready, match="warming"):
            supervisor.target("w-1")
        node.engine.warm.set()
        await settle()
        assert (node.phase(), node.status().starts, node.status().adopted) == (WorkerPhase.READY, 1, False)
        assert supervisor.target("w-1").port == node.runtime.only("w-1").port
        (view,) = supervisor.views()
        assert (view.model, view.ready, view.endpoint) == ("tiny", True, supervisor.target("w-1"))


async def test_progress_never_falls_within_one_start() -> None:
    node = Node()
    seen: list[int] = []
    node.engine.loading = True

    async def look() -> None:
        while True:
            seen.extend(status.progress_percent for status in node.supervisor.statuses())
            await node.supervisor.wait_changed()

    async with node.agent() as supervisor, asyncio.TaskGroup() as group:
        watching = group.create_task(look())
        supervisor.apply([spec()])
        node.engine.warm.clear()
        await node.clock.forward(1)
        node.engine.loading = False
        await node.clock.forward(1)
        node.engine.warm.set()
        await settle()
        watching.cancel()
    assert seen == sorted(seen)
    assert {10, 60, 90, 100} <= set(seen)


async def test_news_since_a_version_is_told_at_once_and_other_news_when_it_comes() -> None:
    node = Node()
    async with node.agent() as supervisor:
        before = supervisor.version
        supervisor.apply([])
        await supervisor.wait_changed(before)
        assert supervisor.version > before
        await settle()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(supervisor.wait_changed())
            await settle()
            assert not waiting.done()
            supervisor.apply([spec()])


async def test_an_engine_that_ends_is_a_crash_even_with_exit_code_0_and_is_started_again() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        node.host.words["w-1"] = "cuda error"
        node.runtime.end(node.runtime.only("w-1"), "exit code 0")
        await settle()
        assert node.phase() is WorkerPhase.FAILED
        assert node.status().detail == "the engine ended (exit code 0): cuda error; tries again in 1 s"
        with pytest.raises(WorkerUnready, match="cuda error"):
            supervisor.target("w-1")
        await node.clock.forward(1.5)
        assert (node.phase(), node.status().starts) == (WorkerPhase.READY, 2)


async def test_an_engine_that_keeps_dying_is_started_with_growing_delays() -> None:
    node = Node()
    node.engine.cold = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(100)
        assert node.phase() in (WorkerPhase.FAILED, WorkerPhase.WARMING)
        assert node.status().starts == 7  # at 0, 1, 3, 7, 15, 31 and 63 seconds
        node.engine.cold = False
        await node.clock.forward(60)
        assert node.phase() is WorkerPhase.READY


async def test_an_engine_that_stops_answering_is_replaced_after_five_probes() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        node.engine.silent = True
        await node.clock.forward(9)
        assert node.phase() is WorkerPhase.READY
        await node.clock.forward(1)
        assert "5 probes in a row failed" in node.status().detail
        assert node.runtime.stopped == ["w-1"]


async def test_one_missed_probe_changes_nothing() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        node.engine.silent = True
        await node.clock.forward(5)
        node.engine.silent = False
        await node.clock.forward(60)
        assert (node.phase(), node.status().starts) == (WorkerPhase.READY, 1)


async def test_an_engine_that_never_finishes_loading_is_given_up_after_its_budget() -> None:
    node = Node()
    node.engine.loading = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(61)
        assert "did not become ready within 60 s: it is still loading" in node.status().detail


async def test_an_engine_that_never_listens_is_given_up_after_its_budget() -> None:
    node = Node()
    node.engine.silent = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert node.status().progress_percent == 10
        await node.clock.forward(61)
        assert "did not become ready within 60 s: nobody answers" in node.status().detail


async def test_an_engine_with_another_model_is_refused() -> None:
    node = Node()
    node.engine.lists = frozenset({"other"})
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(0.5)
        assert "the engine lists ['other'], not 'tiny'" in node.status().detail


async def test_a_stranger_on_the_engines_port_is_not_taken_for_it() -> None:
    node = Node()
    node.runtime.stolen.add(20000)
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(0.5)
        assert "port 20000 is answered by a process that is not the engine" in node.status().detail
        await node.clock.forward(2)
        assert node.phase() is WorkerPhase.READY


async def test_what_cannot_be_started_fails_in_words_and_heals_when_the_cause_is_gone() -> None:
    node = Node()
    node.runtime.refusal = "no space left on device"
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert node.status().detail == "no space left on device; tries again in 1 s"
        node.runtime.refusal = ""
        await node.clock.forward(2)
        assert node.phase() is WorkerPhase.READY


async def test_an_unknown_engine_fails_naming_those_that_are_known() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec(engine="warp")])
        await settle()
        assert "engine 'warp' is not known to this agent; it knows fake" in node.status().detail


async def test_the_engines_own_numbers_are_reported_and_absent_while_it_has_none() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        node.engine.running = 3
        assert node.status().requests_running is None
        await node.clock.forward(2)
        assert (node.status().requests_running, node.status().requests_waiting) == (3, 0)
        assert node.status().kv_cache_usage == 0.25
        node.engine.garbled = True
        await node.clock.forward(2)
        assert (node.phase(), node.status().requests_running) == (WorkerPhase.READY, None)
        assert node.status().kv_cache_usage is None


async def test_logs_are_kept_within_bounds_while_an_engine_lives() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(2 * PACE.probe_s * PACE.trim_every)
        assert node.runtime.trimmed >= 1


async def test_one_workers_trouble_is_not_its_neighbours() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec("bad", engine="warp"), spec("good")])
        await settle()
        assert (node.phase("bad"), node.phase("good")) == (WorkerPhase.FAILED, WorkerPhase.READY)
