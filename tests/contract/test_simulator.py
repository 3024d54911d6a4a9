"""The simulator as a process: how it dies, hangs up and drains, seen from the other end of a socket."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.core.worker import LoopbackEndpoint
from node_agent.engines import openai_http
from node_agent.engines.port import EngineUnreachable
from node_agent.engines.simulator import Simulator
from node_agent.workers.port import Running
from node_agent.workers.process import ProcessRuntime
from node_agent.workers.supervisor import stop_every_engine
from tests.fakes.engine import spec
from tests.fakes.patience import eventually
from tests.fakes.simulator import World, octets

CHAT = "/v1/chat/completions"
QUESTION: dict[str, object] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
Start = Callable[[str], Awaitable[Running]]


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path, {"PATH": os.environ["PATH"]})
    yield runtime
    await stop_every_engine(runtime, grace_s=5)


@pytest.fixture
def start(runtime: ProcessRuntime) -> Start:
    async def start(options: str) -> Running:
        wanted = replace(spec(engine="simulator"), source=f"simulator:{options}")
        running = await runtime.start("w-1", "hash-1", lambda port: Simulator().command(wanted, port=port))
        await eventually(lambda: runtime.owns_port(running))
        return running

    return start


async def connected(endpoint: LoopbackEndpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def all_of(endpoint: LoopbackEndpoint, question: dict[str, object]) -> bytes:
    """Every octet until the other side closes."""
    reader, writer = await connected(endpoint)
    writer.write(octets("POST", CHAT, question, {"x-request-id": "r", "connection": "close"}))
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


def body(answer: bytes) -> bytes:
    """What of it is the body, chunks put together as far as they came."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    whole = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return whole


def sound(stream: bool) -> bytes:
    return World().answer(CHAT, {**QUESTION, "stream": stream}, x_request_id="r").body


def timeless(answer: bytes) -> bytes:
    """As many octets, with zeros for the time of birth."""
    return re.sub(rb"(?<=ted\":)\d+", lambda match: b"0" * len(match[0]), answer)


async def until_running(endpoint: LoopbackEndpoint, count: int) -> None:
    async with asyncio.timeout(20):
        while (await openai_http.load(endpoint)).running != count:
            pass


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [0, 1, 137, 300])
async def test_it_dies_after_exactly_so_many_octets(
    start: Start, runtime: ProcessRuntime, stream: bool, after: int
) -> None:
    running = await start("")
    question = {**QUESTION, "stream": stream, "simulator_fault": {"die_after_bytes": after}}
    answer = body(await all_of(running.endpoint, question))
    assert len(answer) == after
    assert timeless(answer) == timeless(sound(stream)[:after])
    assert await runtime.exited(running) == "exit code 9"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [0, 137])
async def test_it_hangs_up_after_exactly_so_many_octets_and_lives(start: Start, stream: bool, after: int) -> None:
    running = await start("")
    question = {**QUESTION, "stream": stream, "simulator_fault": {"close_after_bytes": after}}
    assert len(body(await all_of(running.endpoint, question))) == after
    assert (await openai_http.ask(running.endpoint, CHAT, body=QUESTION)).status == 200


async def test_noise_in_place_of_framing_is_no_http(start: Start) -> None:
    running = await start("")
    question = {**QUESTION, "stream": True, "simulator_fault": "unframed_after_bytes:50"}
    assert b"<garbage>" in await all_of(running.endpoint, question)
    with pytest.raises(EngineUnreachable, match="not HTTP"):
        await openai_http.ask(running.endpoint, CHAT, body=question)


async def test_a_client_that_leaves_is_noticed_at_once(start: Start) -> None:
    running = await start("token_ms=60000")
    reader, writer = await connected(running.endpoint)
    writer.write(octets("POST", CHAT, {**QUESTION, "stream": True}))
    await reader.readuntil(b"\r\n\r\n")
    assert (await openai_http.load(running.endpoint)).running == 1
    writer.close()
    await until_running(running.endpoint, 0)
    page = (await openai_http.ask(running.endpoint, "/metrics")).body.decode()
    assert 'simulator:aborted_requests_total{engine="0",model_name="tiny"} 1.0' in page


async def test_asked_to_stop_it_finishes_what_it_has_and_takes_nothing_more(
    start: Start, runtime: ProcessRuntime
) -> None:
    running = await start("ttft_ms=300,token_ms=1")
    idle, idle_writer = await connected(running.endpoint)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(openai_http.ask(running.endpoint, CHAT, body=QUESTION))
        await until_running(running.endpoint, 1)
        os.kill(running.pid, signal.SIGTERM)
        assert await idle.read() == b""
        idle_writer.close()
        with pytest.raises(ConnectionRefusedError):
            await connected(running.endpoint)
    assert json.loads(asked.result().body)["usage"]["completion_tokens"] == 9
    assert await runtime.exited(running) == "exit code 0"


async def test_a_second_signal_ends_it_at_once(start: Start, runtime: ProcessRuntime) -> None:
    running = await start("token_ms=60000")
    reader, writer = await connected(running.endpoint)
    writer.write(octets("POST", CHAT, {**QUESTION, "stream": True}))
    await reader.readuntil(b"\r\n\r\n")
    os.kill(running.pid, signal.SIGTERM)
    await eventually(lambda: runtime.last_line("w-1") == "stopping")
    os.kill(running.pid, signal.SIGTERM)
    assert await runtime.exited(running) == "exit code 143"
    writer.close()


async def test_a_taken_port_ends_it_with_3_and_words(start: Start, runtime: ProcessRuntime) -> None:
    running = await start("")
    wanted = replace(spec(engine="simulator"), source="simulator:")
    command = Simulator().command(wanted, port=running.endpoint.port)
    second = await runtime.start("w-2", "hash-2", lambda port: command)
    assert await runtime.exited(second) == "exit code 3"
    assert "address already in use" in runtime.last_line("w-2").lower()
