"""Limits of waiting, told apart from a client that leaves."""

import asyncio

import pytest

from gateway.tunnel.patience import Patience, WaitingRoom
from tests.fakes.clock import FakeClock, settle


async def waits(room: WaitingRoom, log: list[str], seconds: float) -> None:
    with Patience(room) as patience:
        patience.allow(seconds)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not patience.is_up():
                log.append("left")
                raise
            log.append("up")
        patience.allow(seconds)
        try:
            await asyncio.sleep(0)
        finally:
            log.append("went on")


async def test_who_waits_too_long_is_woken_and_goes_on() -> None:
    clock = FakeClock()
    room = WaitingRoom(clock)
    log: list[str] = []
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(room.run())
        task = group.create_task(waits(room, log, 10))
        await clock.forward(9)
        assert log == []
        await clock.forward(2)
        await task
        ticking.cancel()
    assert log == ["up", "went on"]
    assert not room.waiting


async def test_a_client_that_leaves_is_not_mistaken_for_a_limit() -> None:
    clock = FakeClock()
    room = WaitingRoom(clock)
    log: list[str] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(waits(room, log, 10))
        await settle()
        task.cancel()
    assert log == ["left"]


async def test_who_leaves_at_the_very_moment_has_left() -> None:
    clock = FakeClock()
    room = WaitingRoom(clock)
    log: list[str] = []
    async with asyncio.TaskGroup() as group:
        task = group.create_task(waits(room, log, 10))
        await settle()
        next(iter(room.waiting)).wake()
        task.cancel()
    assert log == ["left"]


async def test_a_limit_can_be_lifted() -> None:
    clock = FakeClock()
    room = WaitingRoom(clock)
    with Patience(room) as patience:
        patience.allow(1)
        patience.forever()
        await clock.forward(1000)
        room.once()
        await asyncio.sleep(0)


async def test_a_cancellation_outside_is_no_limit() -> None:
    patience = Patience(WaitingRoom(FakeClock()))
    assert not patience.is_up()
    with pytest.raises(AssertionError):
        patience.wake()
