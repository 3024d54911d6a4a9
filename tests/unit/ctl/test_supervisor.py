"""The supervisor of `meshctl up`, with real processes: small scripts that live, die and disobey."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from control_plane.ctl.up import remains
from control_plane.ctl.up.layout import Layout
from control_plane.ctl.up.proc import started_at
from control_plane.ctl.up.supervisor import GaveUp, Process, Supervisor
from mesh.kit.clock import WallClock

pytestmark = pytest.mark.real

LIVES = """
import json, os, sys, time
json.dump({"http": f"127.0.0.1:{os.getpid()}"}, open("listening.new", "w"))
os.rename("listening.new", "listening")
print("up", flush=True)
time.sleep(600)
"""
DISOBEYS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LIVES


class QuickClock(WallClock):
    """Real time, short naps."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))


@dataclass
class Bench:
    supervisor: Supervisor
    layout: Layout
    notes: list[str] = field(default_factory=list)

    def process(self, script: str, *, stop_budget_s: float = 10.0) -> Process:
        return Process(
            name="worker",
            command=(sys.executable, "-S", "-E", "-c", script),
            environ=lambda: {"PATH": "/usr/bin:/bin"},
            listening=self.layout.root / "listening",
            stop_budget_s=stop_budget_s,
        )

    @property
    def row(self) -> dict[str, int]:
        return json.loads(self.layout.up.read_text())["processes"]["worker"]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await self.supervisor.clock.sleep(0.01)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    layout = Layout(tmp_path / "up")
    layout.make()
    notes: list[str] = []
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(layout, QuickClock(), group, notes.append)
        yield Bench(supervisor, layout, notes)
        await supervisor.stop("worker")


async def test_a_process_is_known_by_its_pid_and_what_it_listens_on(bench: Bench) -> None:
    (bench.layout.root / "listening").write_text('{"http": "of one that was killed"}')
    bench.supervisor.start(bench.process(LIVES))
    listening = await bench.supervisor.listening("worker")
    assert listening == {"http": f"127.0.0.1:{bench.row['pid']}"}
    assert started_at(bench.row["pid"]) == bench.row["started_at"]
    assert bench.layout.log("worker").read_text() == "up\n"


async def test_a_killed_process_is_started_again(bench: Bench) -> None:
    bench.supervisor.start(bench.process(LIVES))
    await bench.supervisor.listening("worker")
    first = bench.row["pid"]
    os.kill(first, signal.SIGKILL)
    await bench.until(lambda: bench.row["pid"] != first)
    assert bench.row["starts"] == 2
    assert bench.notes == ["worker was ended by SIGKILL; starting it again"]
    assert await bench.supervisor.listening("worker")


async def test_one_that_keeps_dying_is_given_up_with_its_last_words(bench: Bench) -> None:
    bench.supervisor.start(bench.process("import sys; sys.exit('no luck')"))
    with pytest.raises(GaveUp) as caught:
        async with asyncio.timeout(20):
            await bench.supervisor.listening("worker")
    assert bench.supervisor.failed.is_set()
    assert "ended 5 times within a minute: no luck" in str(caught.value)
    assert str(bench.layout.log("worker")) in str(caught.value)
    assert caught.value.tail == ["no luck"] * 5
    assert len(bench.notes) == 4


async def test_one_that_was_asked_the_impossible_is_given_up_at_once(bench: Bench) -> None:
    bench.supervisor.start(bench.process("import sys; print('port 7 is taken', file=sys.stderr); sys.exit(2)"))
    async with asyncio.timeout(20):
        await bench.supervisor.failed.wait()
    assert "cannot run: port 7 is taken" in str(bench.supervisor.failure)
    assert bench.notes == []


async def test_a_program_that_is_not_there_is_given_up(bench: Bench) -> None:
    process = Process(
        name="worker",
        command=("/no/such/program",),
        environ=dict,
        listening=bench.layout.root / "listening",
        stop_budget_s=1.0,
    )
    bench.supervisor.start(process)
    async with asyncio.timeout(20):
        await bench.supervisor.failed.wait()
    assert "cannot be started (No such file or directory)" in str(bench.supervisor.failure)


async def test_stopping_asks_first_and_then_does_not(bench: Bench) -> None:
    bench.supervisor.start(bench.process(LIVES))
    await bench.supervisor.listening("worker")
    obedient = bench.row["pid"]
    assert await bench.supervisor.stop("worker") is False  # it was ended by the signal, not by itself
    assert started_at(obedient) is None
    assert bench.notes == []

    bench.supervisor.start(bench.process(DISOBEYS, stop_budget_s=0.2))
    await bench.supervisor.listening("worker")
    stubborn = bench.row["pid"]
    await bench.supervisor.stop("worker")
    assert started_at(stubborn) is None
    assert bench.notes == ["worker does not stop; ending it"]


async def test_what_a_killed_run_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "up")
    layout.make()
    sleep = (sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)")
    left, stranger = [await asyncio.create_subprocess_exec(*sleep) for _ in range(2)]
    rows = {
        "gateway": {"pid": left.pid, "started_at": started_at(left.pid)},
        # Its number is used again by a process that started later.
        "agent": {"pid": stranger.pid, "started_at": 1},
        "control-plane": {"pid": "damaged"},
    }
    layout.up.write_text(json.dumps({"pid": 1, "processes": rows}))
    assert await remains.end_last_run(layout, QuickClock()) == ["gateway"]
    assert await left.wait() == -signal.SIGTERM
    assert stranger.returncode is None
    assert not layout.up.exists()
    stranger.kill()
    await stranger.wait()
