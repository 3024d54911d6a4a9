"""The mailbox for the newest state, the roster of live sessions, and the line about a taken port."""

import asyncio
import socket

import pytest
from prometheus_client.exposition import generate_latest

from control_plane.core.fleet import NodeState, WorkerPhase
from control_plane.rpc.latest import Latest
from control_plane.rpc.metrics import Metrics
from control_plane.rpc.server import why_not
from control_plane.rpc.sessions import NodeSession, Sessions
from control_plane.store import nodes
from control_plane.store.db import Pool, open_pool, transaction
from mesh.kit.errors import StaleEpoch, Unavailable
from mesh.kit.ids import NodeId
from mesh.kit.settings import Address
from tests.fakes.clock import FakeClock

NODE = NodeId("n-1")


async def test_only_the_newest_is_taken() -> None:
    box: Latest[int] = Latest()
    box.put(1)
    box.put(2)
    assert await box.take() == 2
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(box.take())
        await asyncio.sleep(0)
        assert not taking.done()
        box.put(3)
    assert taking.result() == 3


async def nowhere() -> Pool:
    """A pool whose database does not exist."""
    return await open_pool("postgresql://nobody:x@127.0.0.1:1/none")


async def test_a_newer_session_cuts_the_older_and_its_place_outlives_the_older_ones_end() -> None:
    sessions = Sessions(await nowhere(), FakeClock())
    older, newer = NodeSession(NODE, 1), NodeSession(NODE, 2)
    with sessions.admitted(newer):
        with pytest.raises(StaleEpoch) as refused, sessions.admitted(older):
            raise AssertionError("admitted")
        assert (refused.value.epoch, refused.value.newest) == (1, 2)
    first, second = NodeSession(NODE, 3), NodeSession(NODE, 4)
    with sessions.admitted(first), sessions.admitted(second):
        with pytest.raises(StaleEpoch):
            await first.until_cut()
        second.cut(Unavailable("stopping"))
        second.cut(Unavailable("again"))  # the first reason stays
        with pytest.raises(Unavailable, match="stopping"):
            await second.until_cut()


async def test_sessions_that_end_while_the_database_is_away_are_left_to_the_sweeper() -> None:
    sessions = Sessions(await nowhere(), FakeClock())
    with sessions.admitted(NodeSession(NODE, 1)):
        pass
    await sessions.once()


async def test_closing_cuts_every_session_and_waits_for_its_end(pool: Pool) -> None:
    clock = FakeClock()
    sessions = Sessions(pool, clock)
    session = NodeSession(NODE, 1)

    async def talk() -> None:
        with sessions.admitted(session), pytest.raises(Unavailable, match="stopping"):
            await session.until_cut()

    async with asyncio.TaskGroup() as group:
        group.create_task(talk())
        await asyncio.sleep(0)
        closing = group.create_task(sessions.close(within_s=20))
        while not closing.done():
            await clock.forward(1)
    async with transaction(pool) as db:
        assert await nodes.list_(db) == []


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1])
        assert why_not(address) == f"cannot listen on {address}: address already in use"
    assert why_not(address) is None
    assert "cannot listen on 192.0.2.1:1: " in (why_not(Address("192.0.2.1", 1)) or "")
    assert "cannot listen on no.such.host.invalid:1: " in (why_not(Address("no.such.host.invalid", 1)) or "")


def test_states_and_phases_that_nobody_is_in_are_zero_not_absent() -> None:
    metrics = Metrics()
    metrics.fleet({NodeState.ONLINE: 2}, {WorkerPhase.READY: 3})
    metrics.fleet({NodeState.OFFLINE: 2}, {})
    with metrics.stream("Connect"):
        page = generate_latest(metrics.registry).decode()
    assert 'nodes{state="online"} 0.0' in page
    assert 'nodes{state="offline"} 2.0' in page
    assert 'workers{phase="ready"} 0.0' in page
    assert 'streams{method="Connect"} 1.0' in page
