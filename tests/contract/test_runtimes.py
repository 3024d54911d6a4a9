"""The fake runtime and the process runtime keep the same promises."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from node_agent.core.command import Command
from node_agent.workers.port import Compose, Running, Runtime
from node_agent.workers.process import ProcessRuntime
from node_agent.workers.supervisor import stop_every_engine
from tests.contract.runtime_contract import RuntimeContract
from tests.fakes.engine import ScriptEngine, spec
from tests.fakes.runtime import FakeRuntime


class TestFakeRuntime(RuntimeContract):
    """The one that tests of the supervisor use."""

    @pytest.fixture
    def runtime(self) -> FakeRuntime:
        return FakeRuntime()

    @pytest.fixture
    def again(self, runtime: FakeRuntime) -> Callable[[], Runtime]:
        return lambda: FakeRuntime(runtime.host)

    @pytest.fixture
    def compose(self) -> Compose:
        return lambda port: Command(("engine", str(port)), {})

    @pytest.fixture
    def crash(self, runtime: FakeRuntime) -> Callable[[Running], None]:
        return runtime.end


class TestProcessRuntime(RuntimeContract):
    """The one that nodes use, with a tiny real engine."""

    @pytest.fixture
    async def runtime(self, tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
        runtime = ProcessRuntime(tmp_path, {})
        yield runtime
        await stop_every_engine(runtime, grace_s=1)

    @pytest.fixture
    def again(self, tmp_path: Path) -> Callable[[], Runtime]:
        return lambda: ProcessRuntime(tmp_path, {})

    @pytest.fixture
    def compose(self) -> Compose:
        return lambda port: ScriptEngine().command(spec(), port=port)

    @pytest.fixture
    def crash(self) -> Callable[[Running], None]:
        return lambda running: os.kill(running.pid, signal.SIGKILL)
