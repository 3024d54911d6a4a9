"""llama.cpp's own HTTP server as an engine: light, on the CPU, from the ``xllamacpp`` wheel."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from node_agent.core import command
from node_agent.core.command import Command, EngineRefuses
from node_agent.core.worker import LoopbackEndpoint, WorkerSpec
from node_agent.engines import openai_http
from node_agent.engines.port import Capabilities, EngineLoad
from node_agent.engines.source import Sources

SCRIPT = Path(__file__).with_name("llamacpp_server.py")


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """Implements ``Engine``."""

    sources: Sources
    python: str = sys.executable
    script: Path = SCRIPT

    @property
    def name(self) -> str:
        return "llamacpp"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(drains=False, cpu=True)

    def version(self) -> str | None:
        import importlib.metadata  # noqa: PLC0415  # with mail, CSV and ZIP it is 1.5 MB of an idle agent's 60

        try:
            return importlib.metadata.version("xllamacpp")
        except importlib.metadata.PackageNotFoundError:
            return None

    def command(self, spec: WorkerSpec, *, port: int) -> Command:
        if importlib.util.find_spec("xllamacpp") is None:
            raise EngineRefuses(
                "engine llamacpp is not installed on this node; install it beside the agent: pip install xllamacpp"
            )
        path = self.sources.locate(spec.source)
        return command.llamacpp(spec, python=self.python, script=str(self.script), model_path=str(path), port=port)

    async def alive(self, endpoint: LoopbackEndpoint) -> bool:
        return await openai_http.alive(endpoint)

    async def models(self, endpoint: LoopbackEndpoint) -> frozenset[str]:
        return await openai_http.models(endpoint)

    async def warm_up(self, endpoint: LoopbackEndpoint, model: str) -> None:
        await openai_http.warm_up(endpoint, model)

    async def load(self, endpoint: LoopbackEndpoint) -> EngineLoad:
        return await openai_http.load(endpoint)
