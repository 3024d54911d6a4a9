"""What an agent does with engines that another left."""

from node_agent.core.worker import WorkerPhase
from node_agent.workers.supervisor import stop_every_engine
from tests.fakes.clock import settle
from tests.fakes.engine import spec
from tests.fakes.worker_node import Node


async def test_an_engine_left_by_an_agent_before_is_adopted_without_a_start() -> None:
    node = Node()
    left = node.runtime.leave("w-1", "hash-1")
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert (node.phase(), node.status().starts, node.status().adopted) == (WorkerPhase.READY, 1, True)
        assert supervisor.target("w-1").port == left.port
        assert node.runtime.stopped == []


async def test_an_adopted_engine_that_had_answered_takes_requests_before_it_has_drawn_another_token() -> None:
    node = Node()
    node.runtime.leave("w-1", "hash-1")
    node.engine.warm.clear()  # its queue is full of the requests it has
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert (node.phase(), node.status().adopted) == (WorkerPhase.READY, True)


async def test_an_adopted_engine_that_had_not_answered_yet_is_asked_for_a_token() -> None:
    node = Node()
    node.runtime.leave("w-1", "hash-1", was_ready=False)
    node.engine.warm.clear()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert node.phase() is WorkerPhase.WARMING
        node.engine.warm.set()
        await settle()
        assert node.phase() is WorkerPhase.READY


async def test_engines_outlive_the_agent_and_the_same_part_run_again_adopts_them() -> None:
    node = Node()
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
    before = node.runtime.only("w-1").pid
    async with node.agent():
        await settle()
        assert (node.phase(), node.status().adopted) == (WorkerPhase.READY, True)
        assert node.runtime.only("w-1").pid == before


async def test_an_adopted_engine_that_does_not_answer_is_replaced_soon() -> None:
    node = Node()
    node.runtime.leave("w-1", "hash-1")
    node.engine.silent = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(11)
        assert "did not become ready within 10 s" in node.status().detail
        node.engine.silent = False
        await node.clock.forward(2)
        assert (node.phase(), node.status().starts, node.status().adopted) == (WorkerPhase.READY, 2, False)


async def test_an_engine_adopted_while_it_loads_gets_the_whole_budget() -> None:
    node = Node()
    node.runtime.leave("w-1", "hash-1", was_ready=False)
    node.engine.loading = True
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await node.clock.forward(50)
        assert (node.phase(), node.status().adopted) == (WorkerPhase.STARTING, True)


async def test_an_adopted_engine_of_an_unknown_kind_is_stopped() -> None:
    node = Node()
    node.runtime.leave("w-1", "hash-1")
    async with node.agent() as supervisor:
        supervisor.apply([spec(engine="warp")])
        await node.clock.forward(5)
        assert node.runtime.stopped == ["w-1"]


async def test_leftovers_that_nobody_wants_or_nobody_can_trust_are_stopped() -> None:
    node = Node()
    node.runtime.leave("old", "hash-9")
    node.runtime.leave("w-1", "", adoptable=False)
    async with node.agent() as supervisor:
        supervisor.apply([spec()])
        await settle()
        assert sorted(node.runtime.stopped) == ["old", "w-1"]
        assert (node.phase(), node.status().adopted) == (WorkerPhase.READY, False)


async def test_an_agent_that_is_lost_at_any_moment_leaves_one_engine_for_the_next() -> None:
    for turns in range(25):
        node = Node()
        async with node.agent() as supervisor:
            supervisor.apply([spec()])
            await settle(turns)
        async with node.agent():
            await node.clock.forward(60)
            assert node.phase() is WorkerPhase.READY
            assert (len(node.host.processes), node.status().starts) == (1, 1), turns


async def test_an_owner_who_leaves_can_end_every_engine() -> None:
    node = Node()
    node.runtime.leave("a", "1")
    node.runtime.leave("b", "", adoptable=False)
    assert await stop_every_engine(node.runtime, grace_s=1) == 2
    assert node.host.processes == {}
