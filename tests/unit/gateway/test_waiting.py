"""Requests that wait: called in fair order, never more than there is room for, and gone without a trace."""

import asyncio
import random

import pytest

from gateway.core.snapshot import Priority
from gateway.tunnel.patience import Patience
from gateway.tunnel.waiting import KEEP_ALIVE_S
from tests.fakes.clock import settle
from tests.unit.gateway.waiting_scene import INF, Scene


async def test_with_room_and_nobody_waiting_it_goes_straight_through() -> None:
    scene = Scene(slots=2)
    with Patience(scene.room) as patience:
        turn = scene.waiting.turn("m", patience, key_id="a")
        entering = turn.__aenter__()
        with pytest.raises(StopIteration):  # it never yields to the loop
            entering.send(None)
        assert scene.seen == (0, 1, 1, 0)
        turn.taken()
        assert scene.seen == (0, 0, 1, 0)
        await turn.__aexit__(None, None, None)
        assert (scene.seen, turn.waited_s, patience.due) == ((0, 0, 0, 0), 0.0, INF)


async def test_a_promise_not_taken_is_given_back() -> None:
    scene = Scene(slots=1)
    async with scene.ticking() as group:
        with Patience(scene.room) as patience:
            async with scene.waiting.turn("m", patience, key_id="a"):
                task = group.create_task(scene.request("b"))
                await settle()
                assert scene.seen == (1, 1, 1, 0)  # the slot is free, but promised
        await settle()
        assert scene.log == ["b@0"]
        await scene.clock.forward(1)
        await task


async def test_no_more_are_called_than_there_is_room_for() -> None:
    scene = Scene(slots=3)
    async with scene.ticking() as group:
        for n in range(20):
            group.create_task(scene.request(f"k{n % 4}"))
        await settle()
        assert scene.seen == (17, 0, 3, 3)
        scene.waiting.room_made("m")
        scene.waiting.room_made("m")
        await settle()
        assert scene.seen == (17, 0, 3, 3)
        scene.slots = 6  # another worker became ready
        scene.waiting.room_made("m")
        scene.waiting.room_made("m")
        assert scene.seen == (14, 3, 6, 3)
        await scene.clock.forward(4)
        assert (scene.seen, scene.most_used, len(scene.log)) == ((0, 0, 0, 0), 6, 20)


async def test_nobody_overtakes_those_who_wait() -> None:
    scene = Scene(slots=0)
    async with scene.ticking() as group:
        group.create_task(scene.request("a"))
        await settle()
        scene.slots = 1  # and nobody said so
        group.create_task(scene.request("b"))
        await settle()
        assert scene.log == ["a@0"]
        await scene.clock.forward(2)
        assert scene.log == ["a@0", "b@1"]


async def test_a_wake_that_was_forgotten_is_made_up_for() -> None:
    scene = Scene(slots=0)
    async with scene.ticking() as group:
        group.create_task(scene.request("a"))
        await settle()
        scene.slots = 1
        await scene.clock.forward(KEEP_ALIVE_S + 2)
        assert scene.log == ["a@10"]


@pytest.mark.parametrize("workers", [1, 4])
async def test_a_thousand_waiting_requests_delay_another_keys_one_by_no_more_than_a_service_time(
    workers: int,
) -> None:
    scene = Scene(slots=workers)
    async with scene.ticking() as group:
        flood = [group.create_task(scene.request("a")) for _ in range(1000 + workers)]
        await scene.clock.forward(2.5)
        assert scene.waiting.waiting("m") == 1000 - 2 * workers
        single = group.create_task(scene.request("b"))
        await scene.clock.forward(1)
        assert "b@3" in scene.log
        await scene.clock.forward(1)
        await single
        for task in flood:
            task.cancel()
    assert scene.seen == (0, 0, 0, 0)


async def test_priorities_go_first() -> None:
    scene = Scene()
    async with scene.ticking() as group:
        for key, priority in (("first", 2), ("low", 1), ("normal", 2), ("high", 3)):
            group.create_task(scene.request(key, priority=Priority(priority)))
        await scene.clock.forward(5)
    assert scene.log == ["first@0", "high@1", "normal@2", "low@3"]


async def test_who_waits_too_long_is_told_so_and_when_to_come_again() -> None:
    scene = Scene(slots=0)
    async with scene.ticking() as group:
        group.create_task(scene.request("default"))
        group.create_task(scene.request("short", max_wait_s=5))
        group.create_task(scene.request("deadline", deadline=7))
        group.create_task(scene.request("over", deadline=0))
        await settle()
        assert scene.log == ["over queue_timeout 60"]
        await scene.clock.forward(8)
        assert scene.log[1:] == ["short queue_timeout 60", "deadline queue_timeout 60"]
        await scene.clock.forward(53)
        assert scene.log[3:] == ["default queue_timeout 60"]
    assert scene.seen == (0, 0, 0, 0)
    assert scene.waiting.demand("m").refused == 4


async def test_an_expired_request_is_sent_away_when_room_comes_and_not_served() -> None:
    scene = Scene(slots=0)
    async with asyncio.TaskGroup() as group:  # no ticks: its own limit is not noticed in time
        group.create_task(scene.request("late", max_wait_s=5))
        group.create_task(scene.request("in time", max_wait_s=50))
        await scene.clock.forward(6)
        scene.slots = 1
        scene.waiting.room_made("m")
        await scene.clock.forward(1)
    assert scene.log == ["late queue_timeout 60", "in time@6"]


async def test_a_waiting_client_hears_something_every_ten_seconds() -> None:
    scene = Scene(slots=0)
    heard: list[float] = []

    async def keep_alive() -> None:
        heard.append(scene.clock.monotonic())

    async with scene.ticking() as group:
        group.create_task(scene.request("a", keep_alive=keep_alive))
        await scene.clock.forward(35)
        assert heard == [10, 20, 30]
        scene.slots = 1
        scene.waiting.room_made("m")
        await scene.clock.forward(1)
    assert scene.log == ["a@35"]


async def test_who_is_called_or_sent_away_while_it_is_kept_alive_knows_afterwards() -> None:
    scene = Scene(slots=0, capacity=2)
    slow = asyncio.Event()

    async def keep_alive() -> None:
        await slow.wait()

    async with scene.ticking() as group:
        group.create_task(scene.request("a", keep_alive=keep_alive))
        group.create_task(scene.request("a", keep_alive=keep_alive))
        await scene.clock.forward(KEEP_ALIVE_S)
        other = group.create_task(scene.request("b"))  # takes the newest one's place
        await settle()
        scene.slots = 1
        scene.waiting.room_made("m")
        assert scene.seen == (1, 1, 1, 0)
        slow.set()
        await settle()
        assert sorted(line.rsplit(" ", 1)[0] for line in scene.log) == ["a queue_full", "a@10"]
        await scene.clock.forward(2)
        await other
    assert scene.seen == (0, 0, 0, 0)


async def test_a_client_that_fails_while_it_is_kept_alive_leaves() -> None:
    scene = Scene(slots=0)

    async def keep_alive() -> None:
        raise ConnectionResetError

    async with scene.ticking() as group:

        async def leaves() -> None:
            with pytest.raises(ConnectionResetError):
                await scene.request("a", keep_alive=keep_alive)

        group.create_task(leaves())
        await scene.clock.forward(KEEP_ALIVE_S + 1)
    assert scene.seen == (0, 0, 0, 0)


async def test_a_limit_noticed_in_the_moment_of_the_call_does_not_undo_it() -> None:
    scene = Scene(slots=0)

    async def keep_alive() -> None:
        pytest.fail("it goes on at once")

    async with asyncio.TaskGroup() as group:
        group.create_task(scene.request("a", max_wait_s=5, keep_alive=keep_alive))
        group.create_task(scene.request("b", max_wait_s=5, keep_alive=keep_alive))
        await settle()
        one, other = scene.room.waiting
        scene.slots = 2
        one.wake()  # woken, then called
        scene.waiting.room_made("m")
        other.wake()  # called, then woken
        await settle()
        assert sorted(scene.log) == ["a@0", "b@0"]
        await scene.clock.forward(1)
    assert scene.seen == (0, 0, 0, 0)


async def test_who_leaves_in_the_moment_of_the_call_passes_it_on() -> None:
    scene = Scene(slots=0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(scene.request(key)) for key in "abc"]
        await settle()
        scene.slots = 1
        tasks[0].cancel()  # left, then called
        scene.waiting.room_made("m")
        assert scene.seen == (2, 1, 1, 0)
        await settle()
        assert scene.log == ["b@0"]
        scene.slots = 2
        scene.waiting.room_made("m")
        tasks[2].cancel()  # called, then left
        await scene.clock.forward(1)
    assert (scene.log, scene.seen) == (["b@0"], (0, 0, 0, 0))


async def test_ten_thousand_who_leave_at_any_moment_leave_nothing_behind() -> None:
    scene = Scene(slots=5, capacity=700)
    chance = random.Random(7)
    tasks: list[asyncio.Task[None]] = []
    cancelled = 0

    async def keep_alive() -> None:
        await asyncio.sleep(0)

    async with scene.ticking() as group:
        while cancelled < 10_000:
            for _ in range(chance.randrange(400)):
                key, patience = f"k{chance.randrange(9)}", chance.choice([0.5, 3.0, 30.0])
                service, priority = chance.choice([0.0, 0.1, 0.7]), Priority(chance.randint(1, 3))
                alive = chance.choice([None, keep_alive])
                request = scene.request(key, service, priority=priority, max_wait_s=patience, keep_alive=alive)
                tasks.append(group.create_task(request))
            await settle(chance.randrange(3))
            chance.shuffle(tasks)
            for task in tasks[: chance.randrange(300)]:
                cancelled += task.cancel()
                if chance.random() < 0.1:
                    await asyncio.sleep(0)
            if chance.random() < 0.3:
                scene.slots = chance.randrange(9)
                scene.waiting.room_made("m")
            if chance.random() < 0.3:
                await scene.clock.forward(chance.choice([0.3, 1.0]))
            tasks = [task for task in tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await settle()
        assert scene.seen == (0, 0, 0, 0)
    line = scene.waiting._lines["m"]
    assert [*line.queue._waiting, *line.queue._accounts, *line.queue._deadlines, *scene.room.waiting] == []
    assert len(scene.log) > 1000


async def test_a_full_queue_refuses_the_many_and_lets_in_the_few() -> None:
    scene = Scene(slots=1, capacity=3)
    async with scene.ticking() as group:
        for _ in range(6):
            group.create_task(scene.request("a"))
        await settle()
        assert scene.log == ["a@0", "a queue_full 60", "a queue_full 60"]
        await scene.clock.forward(2)
        assert scene.log[3:] == ["a@1", "a@2"]
        for _ in range(3):
            group.create_task(scene.request("a"))
        group.create_task(scene.request("b"))
        await settle()
        # Three wait, and one was called each second.
        assert scene.log[5:] == ["a queue_full 3", "a queue_full 3"]
        await scene.clock.forward(4)
        assert scene.log[7] == "b@3"
    assert scene.waiting.demand("m").refused == 4


async def test_a_change_for_who_knows_which_models_is_looked_at_for_all_that_have_waiters() -> None:
    scene = Scene(slots=0)
    async with scene.ticking() as group:
        with Patience(scene.room) as patience:
            scene.slots = 1
            async with scene.waiting.turn("quiet", patience, key_id="a"):
                scene.slots = 0
            group.create_task(scene.request("a"))
            await settle()
            scene.slots, scene.asked = 1, 0
            scene.waiting.look_again()
            await settle()
            assert (scene.log, scene.asked) == (["a@0"], 1)
        await scene.clock.forward(1)
