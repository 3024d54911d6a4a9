"""Engines for tests: one that answers from a table, and one that is a tiny real HTTP server in a process."""

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.core.command import Command
from node_agent.core.worker import LoopbackEndpoint, WorkerSpec
from node_agent.engines import openai_http
from node_agent.engines.port import Capabilities, EngineLoad, EngineUnreachable, EngineWrong
from tests.fakes.runtime import Host

SCRIPT = Path(__file__).with_name("engine_script.py")


def spec(
    worker_id: str = "w-1", *, spec_hash: str = "hash-1", engine: str = "fake", model: str = "tiny"
) -> WorkerSpec:
    """A specification for one of these engines."""
    return WorkerSpec(
        worker_id=worker_id,
        deployment_id="d-1",
        model=model,
        engine=engine,
        source="package:nowhere/tiny.gguf",
        context_length=512,
        slots=2,
        memory_bytes=1 << 28,
        spec_hash=spec_hash,
    )


@dataclass(eq=False)
class FakeEngine:
    """Implements ``Engine`` over the processes of a fake host: whoever lives there answers."""

    host: Host
    name: str = "fake"
    loading: bool = False
    silent: bool = False
    garbled: bool = False
    """Its metrics cannot be had."""

    lists: frozenset[str] | None = None
    """Other models than the one asked for."""

    warm: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from the start; cleared, the first token takes until it is set."""

    cold: bool = False
    """The first token never comes."""

    running: int = 0
    drains: bool = False

    def __post_init__(self) -> None:
        self.warm.set()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(drains=self.drains, cpu=True)

    def version(self) -> str | None:
        return "1.0"

    def command(self, spec: WorkerSpec, *, port: int) -> Command:
        return Command(("fake-engine", spec.model, str(port)), {})

    def _answer(self, endpoint: LoopbackEndpoint) -> str:
        """The model of whoever listens there."""
        process = self.host.at(endpoint.port)
        if process is None or self.silent:
            raise EngineUnreachable("nobody answers")
        return process.command.argv[1] if len(process.command.argv) > 1 else "tiny"

    async def alive(self, endpoint: LoopbackEndpoint) -> bool:
        self._answer(endpoint)
        return not self.loading

    async def models(self, endpoint: LoopbackEndpoint) -> frozenset[str]:
        model = self._answer(endpoint)
        return self.lists if self.lists is not None else frozenset({model})

    async def warm_up(self, endpoint: LoopbackEndpoint, model: str) -> None:
        await self.warm.wait()
        if self.cold:
            raise EngineWrong("the first token did not come")
        self._answer(endpoint)

    async def load(self, endpoint: LoopbackEndpoint) -> EngineLoad:
        self._answer(endpoint)
        if self.garbled:
            raise EngineUnreachable("no metrics")
        return EngineLoad(running=self.running, waiting=0, kv_cache_usage=0.25)


@dataclass(frozen=True)
class ScriptEngine:
    """Implements ``Engine`` with ``engine_script.py``; ``options`` are its further arguments."""

    options: tuple[str, ...] = ()
    name: str = "script"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(drains=False, cpu=True)

    def version(self) -> str | None:
        return "1.0"

    def command(self, spec: WorkerSpec, *, port: int) -> Command:
        return Command(
            (sys.executable, "-I", "-S", str(SCRIPT), "--port", str(port), "--model", spec.model, *self.options),
            {},
        )

    async def alive(self, endpoint: LoopbackEndpoint) -> bool:
        return await openai_http.alive(endpoint)

    async def models(self, endpoint: LoopbackEndpoint) -> frozenset[str]:
        return await openai_http.models(endpoint)

    async def warm_up(self, endpoint: LoopbackEndpoint, model: str) -> None:
        await openai_http.warm_up(endpoint, model)

    async def load(self, endpoint: LoopbackEndpoint) -> EngineLoad:
        return await openai_http.load(endpoint)
