"""Readings are of now, or there are none; and what ``status`` makes of what an agent says."""

import asyncio
import errno
import json
import threading
from pathlib import Path

import pytest

from mesh.kit.settings import Address
from node_agent.control.readings import EVERY_S, FIRST_S, STALE_S, Readings
from node_agent.core.report import HostSample
from node_agent.probes.gpu import GpuProbe
from node_agent.probes.host import HostProbe
from node_agent.status import ask, shown, where
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import Visit, until, upstream

INFO = {
    "agent_version": "0.1.0",
    "build_date": "2026-11-23",
    "checksum": "ab",
    "node_id": "n-1",
    "connected": False,
    "trouble": "no answer",
    "tunnels": ["g-1", "g-2"],
    "requests": 3,
    "workers": [
        {"worker_id": "w-1", "model": "smol", "phase": "failed", "progress_percent": 10, "detail": "exit code 1"}
    ],
}


class StuckProbe(HostProbe):
    """A probe whose second reading hangs, as an ill driver's does."""

    readings = 0
    release = threading.Event()

    def sample(self) -> HostSample:
        type(self).readings += 1
        if self.readings > 1:
            self.release.wait(10)
        return super().sample()


async def test_readings_are_of_now_or_there_are_none(tmp_path: Path) -> None:
    clock = FakeClock()
    readings = Readings(StuckProbe(tmp_path), GpuProbe(), clock)
    assert readings.host() is None
    async with asyncio.TaskGroup() as group:
        task = group.create_task(readings.run())
        await until(lambda: readings.host() is not None)
        assert readings.gpus() == ()  # without a driver there are none
        await clock.forward(FIRST_S)
        await until(lambda: StuckProbe.readings == 2)
        assert readings.host() is not None
        await clock.forward(STALE_S)
        assert readings.host() is None
        StuckProbe.release.set()
        await until(lambda: readings.host() is not None)
        task.cancel()


class IllProbe(HostProbe):
    """A probe that cannot read for a while, as when there are no file descriptors left."""

    readings = 0

    def sample(self) -> HostSample:
        type(self).readings += 1
        if 1 < self.readings < 10:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().sample()


async def test_a_machine_that_cannot_be_read_for_a_while_is_read_again(tmp_path: Path) -> None:
    clock = FakeClock()
    readings = Readings(IllProbe(tmp_path), GpuProbe(), clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(readings.run())
        while IllProbe.readings < 9:
            await clock.forward(EVERY_S)
            await asyncio.sleep(0.001)  # readings are taken in a thread
        assert readings.host() is None
        while readings.host() is None:
            await clock.forward(EVERY_S)
            await asyncio.sleep(0.001)
        task.cancel()


async def test_the_machine_is_described(tmp_path: Path) -> None:
    hardware = await Readings(HostProbe(tmp_path), GpuProbe(), FakeClock()).hardware()
    assert hardware.cpu_count > 0
    assert hardware.memory_bytes > 0


def test_status_asks_where_the_agent_said_it_listens(tmp_path: Path) -> None:
    configured = Address("127.0.0.1", 7460)
    assert where(tmp_path, configured) == configured
    for text in ("{", "[]", '{"http": 1}', '{"http": "nowhere"}'):
        (tmp_path / "listening.json").write_text(text)
        assert where(tmp_path, configured) == configured
    (tmp_path / "listening.json").write_text('{"http": "127.0.0.1:4711"}')
    assert where(tmp_path, configured) == Address("127.0.0.1", 4711)


def test_status_is_words() -> None:
    text = shown(INFO)
    assert "control plane  not connected: no answer" in text
    assert "tunnels        g-1, g-2" in text
    assert "worker         w-1  smol  failed 10 %  exit code 1" in text
    bare = shown({**INFO, "connected": True, "tunnels": [], "workers": []})
    assert "control plane  connected" in bare
    assert "tunnels        none" in bare
    assert "worker         none" in bare


@pytest.mark.parametrize("body", [b"[]", b'{"ok": 1}', b"<html>"])
async def test_whoever_else_listens_there_is_no_agent(body: bytes) -> None:
    async def other(visit: Visit) -> None:
        await visit.request()
        await visit.answer(body)

    async with upstream(other) as server:
        with pytest.raises(OSError, match="no agent"):
            await asyncio.to_thread(ask, Address("127.0.0.1", server.endpoint.port))


async def test_an_agents_answer_is_taken_as_it_is() -> None:
    async def agent(visit: Visit) -> None:
        await visit.request()
        await visit.answer(json.dumps(INFO).encode())

    async with upstream(agent) as server:
        assert await asyncio.to_thread(ask, Address("127.0.0.1", server.endpoint.port)) == INFO
