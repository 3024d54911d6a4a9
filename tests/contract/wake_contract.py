"""What every source of hints promises. Subclasses supply a ``hints`` fixture."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from control_plane.store.wake import ANY, PENDING_MAX, Subscription, Wake
from tests.fakes.clock import FakeClock, settle

LONG_S = 3600.0  # of the fake clock: nothing here waits for it to pass, unless it says so


@dataclass(frozen=True, slots=True)
class Hints:
    """A source, its clock, and the two things that can happen to it from outside."""

    wake: Wake
    clock: FakeClock
    send: Callable[..., Awaitable[None]]
    lose_connection: Callable[[], Awaitable[None]]


async def gather_topics(hints: Subscription, wanted: set[str]) -> set[str]:
    """Wait until all of them came; what came beside them comes too."""
    seen: set[str] = set()
    async with asyncio.timeout(30):
        while not wanted <= seen:
            seen |= await hints.wait(LONG_S)
    return seen


class WakeContract:
    """The promises."""

    async def test_a_hint_reaches_those_whose_prefix_it_has(self, hints: Hints) -> None:
        with hints.wake.subscribe("node:a", "hubs") as mine, hints.wake.subscribe("node:") as all_nodes:
            await hints.send("node:a", "node:b", "hubs")
            assert await gather_topics(mine, {"node:a", "hubs"}) == {"node:a", "hubs"}
            assert await gather_topics(all_nodes, {"node:a", "node:b"}) == {"node:a", "node:b"}

    async def test_a_hint_that_came_before_the_wait_is_not_lost(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as early, hints.wake.subscribe("x") as late:
            await hints.send("x")
            await gather_topics(early, {"x"})
            await settle()
            assert await late.wait(LONG_S) == {"x"}

    async def test_a_storm_of_one_topic_is_one_hint(self, hints: Hints) -> None:
        with hints.wake.subscribe("x", "end") as mine, hints.wake.subscribe("end") as end:
            for _ in range(50):
                await hints.send("x")
            await hints.send("end")
            await gather_topics(end, {"end"})
            assert await mine.wait(LONG_S) == {"x", "end"}

    async def test_without_a_hint_the_wait_ends_with_nothing_after_its_time(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as mine:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(mine.wait(10))
                await hints.clock.forward(9)
                assert not waiting.done()
                await hints.clock.forward(1)
            assert waiting.result() == frozenset()

    async def test_a_wait_that_timed_out_spoils_no_later_one(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as mine:
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(mine.wait(1))
                await hints.clock.forward(1)
            assert waiting.result() == frozenset()
            await hints.send("x")
            assert await gather_topics(mine, {"x"}) == {"x"}

    async def test_a_cancelled_wait_loses_no_hint(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as mine:
            waiting = asyncio.ensure_future(mine.wait(LONG_S))
            await settle()
            waiting.cancel()
            await hints.send("x")
            assert await gather_topics(mine, {"x"}) == {"x"}

    async def test_after_a_loss_everybody_is_told_to_look_at_everything(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as mine, hints.wake.subscribe("y") as other:
            await hints.lose_connection()
            assert ANY in await gather_topics(mine, {ANY})
            assert ANY in await gather_topics(other, {ANY})
            await hints.send("x")
            assert "x" in await gather_topics(mine, {"x"})

    async def test_who_unsubscribed_hears_nothing_more(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as still:
            with hints.wake.subscribe("x") as gone:
                pass
            await hints.send("x")
            await gather_topics(still, {"x"})
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(gone.wait(1))
                await hints.clock.forward(1)
            assert waiting.result() == frozenset()

    async def test_more_topics_than_one_can_hold_become_look_at_everything(self, hints: Hints) -> None:
        with hints.wake.subscribe("n", "end") as mine, hints.wake.subscribe("end") as end:
            await hints.send(*(f"n{i}" for i in range(PENDING_MAX + 1)))
            await hints.send("end")
            await gather_topics(end, {"end"})
            topics = await mine.wait(LONG_S)
        assert ANY in topics
        assert len(topics) < PENDING_MAX
