"""`meshctl up` with everything real, Postgres and model included: what a person sees, what is left after it."""

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from mesh.kit.clock import WallClock

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

MODEL = "smollm2-135m-instruct"
PATIENCE_S = 150.0  # first start on two busy cores
QUESTION = "Write one sentence about the sea."


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class State:
    """A state folder, and meshctl on it as a program of its own."""

    folder: Path

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder.parent),
            "PYTHONPATH": ":".join(filter(None, sys.path)),
            "MESHCTL_STATE": str(self.folder),
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "control_plane.ctl", *arguments),
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def meshctl(self, *arguments: str) -> Ended:
        child = await self.start(*arguments)
        try:
            async with asyncio.timeout(PATIENCE_S):
                out, err = await child.communicate()
        finally:
            if child.returncode is None:
                child.send_signal(signal.SIGTERM)
                await child.wait()
        return Ended(child.returncode or 0, out.decode(), err.decode())

    @asynccontextmanager
    async def up(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`meshctl up`, once it says that it is; Ctrl-C at the end, and what that left is looked at."""
        child = await self.start("up", "--http-port", "0", *arguments)
        assert child.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (line := await child.stdout.readline()) and b"Ctrl-C" not in line:
                    pass
            if not line:
                raise AssertionError((await child.communicate())[1].decode())
            yield child
        finally:
            if child.returncode is None:
                child.send_signal(signal.SIGINT)
                await child.communicate()
        assert child.returncode == 0
        assert self.left_running() == []

    def pid(self, process: str) -> int:
        return int(json.loads((self.folder / "up.json").read_text())["processes"][process]["pid"])

    def left_running(self) -> list[str]:
        """Every process that has anything to do with the folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            if int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                told = command + (entry / "environ").read_bytes() if command else b""
            except OSError:
                continue
            if str(self.folder).encode() + b"/" in told:
                found.append(command.replace(b"\0", b" ").decode("utf-8", "replace"))
        return found


@pytest.fixture(scope="module")
def state() -> Iterator[State]:
    """One folder for the module, which another user may walk through: root's Postgres does not run as root."""
    with tempfile.TemporaryDirectory(prefix="mesh-up-") as folder:
        Path(folder).chmod(0o711)
        yield State(Path(folder) / "state")


async def test_once_brings_everything_up_answers_and_takes_everything_down(state: State) -> None:
    first = await state.meshctl("up", "--once", "--http-port", "0", "--ask", QUESTION)
    assert first.code == 0, first.err
    assert len(first.out.split()) > 3
    assert "ok  control plane and database" in first.err
    assert "ok  join this machine" in first.err
    assert "tokens/s" in first.err
    assert "Traceback" not in first.err
    assert state.left_running() == []
    assert not (state.folder / "up.json").exists()
    assert not (state.folder / "meshctl.json").exists()
    key = (state.folder / "api-key").read_text()
    assert stat.S_IMODE((state.folder / "api-key").stat().st_mode) == 0o600

    again = await state.meshctl("up", "--once", "--http-port", "0")
    assert again.code == 0, again.err
    assert "those of the last run" in again.err
    assert "joined before" in again.err
    assert (state.folder / "api-key").read_text() == key
    assert state.left_running() == []


async def test_the_mesh_is_used_and_looked_at_with_meshctl(state: State) -> None:
    async with state.up("--ask", ""):
        asked = await state.meshctl("chat", MODEL, "What is 7 times 8?", "--max-tokens", "40")
        assert (asked.code, asked.out != "") == (0, True)
        assert "tokens/s" in asked.err
        [node] = json.loads((await state.meshctl("node", "list", "--json")).out)["nodes"]
        assert node["state"] == "NODE_STATE_ONLINE"
        waited = await state.meshctl("deployment", "wait", MODEL, "--json")
        assert [worker["phase"] for worker in json.loads(waited.out)["workers"]] == ["WORKER_PHASE_READY"]
        unknown = await state.meshctl("chat", "no-such-model", "hello")
        assert (unknown.code, unknown.out, unknown.err.count("\n")) == (1, "", 1)
        refused = await state.meshctl("organization", "create", "demo")
        assert (refused.code, refused.err) == (1, "meshctl: organization 'demo' exists already\n")
        twice = await state.meshctl("up", "--http-port", "0")
        assert (twice.code, twice.err.count("\n")) == (1, 1)
        assert "runs already on" in twice.err
        # No secret is in an argument or in the environment of any process.
        secret = (state.folder / "api-key").read_text().strip().encode()
        for process in ("control-plane", "gateway", "agent"):
            folder = Path(f"/proc/{state.pid(process)}")
            assert secret not in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


async def test_killed_processes_come_back_and_the_engine_is_adopted(state: State) -> None:
    async with state.up("--ask", ""):
        for process in ("agent", "gateway", "control-plane"):
            pid = state.pid(process)
            os.kill(pid, signal.SIGKILL)
            await until(partial(is_another, state, process, pid))
        await until(partial(answers, state))
        [node] = json.loads((await state.meshctl("node", "list", "--json")).out)["nodes"]
        assert [worker["adopted"] for worker in node["workers"]] == [True]


async def test_a_killed_up_is_cleaned_up_by_the_next_one(state: State) -> None:
    child = await state.start("up", "--http-port", "0", "--ask", "")
    assert child.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while (line := await child.stdout.readline()) and b"Ctrl-C" not in line:
            pass
    child.kill()
    await child.communicate()
    assert state.left_running() != []
    again = await state.meshctl("up", "--once", "--http-port", "0")
    assert again.code == 0, again.err
    assert "ended what was left of the last run: control-plane, gateway, agent" in again.err
    assert state.left_running() == []


async def is_another(state: State, process: str, pid: int) -> bool:
    return state.pid(process) != pid


async def answers(state: State) -> bool:
    return (await state.meshctl("chat", MODEL, "Hello", "--max-tokens", "4")).code == 0


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    clock = WallClock()
    async with asyncio.timeout(PATIENCE_S):
        while not await true():
            await clock.sleep(0.1)
