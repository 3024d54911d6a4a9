"""Clients that read nothing: they cost a bounded piece of memory, and the others do not notice them."""

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack

import pytest

from mesh.gateway.v1 import gateway_pb2 as pb
from tests.fault.fleet import LONG, Fleet, chat, fleet, say, until
from tests.fault.spine import SSE_HEAD, event, framed, upstream

pytestmark = [pytest.mark.real, pytest.mark.timeout(600 if LONG else 120)]

CLIENTS, HEALTHY = (1000, 100) if LONG else (100, 10)
WATCHED_S = 10.0 if LONG else 2.0
MAY_GROW_MIB = 250
STALL_S = 60.0  # the gateway's own
RECEIVE = 4096  # octets that a slow client's kernel takes in
PIECE = framed(event("x" * 1000) * 50)


async def healthy(made: Fleet, got: list[int], at: int) -> None:
    """Read a steady answer; count its chunks."""
    reader, writer = await made.connect()
    try:
        writer.write(made.octets(chat(f"steady {at}", stream=True, max_tokens=100_000, ignore_eos=True)))
        while await reader.readuntil(b"\n\n"):
            got[at] += 1
    finally:
        writer.transport.abort()


async def every_one(got: list[int]) -> bool:
    return all(got)


async def chunks_of_the_healthy(made: Fleet) -> int:
    """What all of them get in the time we watch, from when each has its first."""
    got = [0] * HEALTHY
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(healthy(made, got, at)) for at in range(HEALTHY)]
        assert await until(lambda: every_one(got))
        before = sum(got)
        await asyncio.sleep(WATCHED_S)
        after = sum(got)
        for task in tasks:
            task.cancel()
    return after - before


async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _body: bytes) -> None:
    """An answer without an end, as fast as it is taken."""
    writer.write(SSE_HEAD)
    while True:
        writer.write(PIECE)
        await writer.drain()


def slow_client(made: Fleet, at: int) -> socket.socket:
    """One that asks for a flood and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
    client.connect(("127.0.0.1", made.spine.plan.http_port))
    client.sendall(made.octets({**chat(f"flood {at}", stream=True), "model": "flood"}))
    return client


async def test_clients_that_read_nothing_harm_nobody() -> None:
    async with (
        upstream(flood) as port,
        fleet("seed=1,token_ms=20", "seed=2", models=("mock", "flood"), reach={1: port}) as made,
        AsyncExitStack() as held,
    ):
        alone = await chunks_of_the_healthy(made)
        before = made.rss_mib()
        slow = CLIENTS - HEALTHY
        for at in range(slow):
            held.enter_context(contextlib.closing(await asyncio.to_thread(slow_client, made, at)))
        await made.until_has("mesh_gateway_live_requests", slow)
        beside = await chunks_of_the_healthy(made)
        grown = made.rss_mib() - before
        share = beside / alone
        say(
            f"{slow} of {CLIENTS} read nothing: the others get {beside} chunks instead of {alone} ({share:.0%}), "
            f"gateway {grown:+.1f} MiB"
        )
        assert grown <= MAY_GROW_MIB
        assert share >= 0.8
        if not LONG:
            await held.aclose()
        await made.until_quiet(2 * STALL_S)
        records = [one for one in await made.until_recorded(slow + 2 * HEALTHY) if one.model == "flood"]
        assert len(records) == slow
        assert {(one.outcome, one.status) for one in records} == {(pb.USAGE_OUTCOME_CANCELLED, 499)}
