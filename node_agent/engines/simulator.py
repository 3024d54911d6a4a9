"""A simulator as an engine: real HTTP with nothing behind it, for tests and benchmarks. Never the default.

A source reads ``simulator:`` with options after the colon, e.g. ``simulator:seed=7,ttft_ms=10,token_ms=5``.
"""

import sys
from dataclasses import dataclass

from mesh.kit.errors import InvalidInput
from node_agent.core import command
from node_agent.core.command import Command, EngineRefuses
from node_agent.core.worker import LoopbackEndpoint, WorkerSpec
from node_agent.engines import openai_http, simulator_options
from node_agent.engines.port import Capabilities, EngineLoad

SCHEME = "simulator"
VERSION = "1 (simulator)"


@dataclass(frozen=True, slots=True)
class Simulator:
    """Implements ``Engine``."""

    python: str = sys.executable

    @property
    def name(self) -> str:
        return "simulator"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(drains=True, cpu=True)

    def version(self) -> str | None:
        return VERSION

    def command(self, spec: WorkerSpec, *, port: int) -> Command:
        scheme, colon, options = spec.source.partition(":")
        if scheme != SCHEME or not colon:
            raise EngineRefuses(
                "engine simulator has no weights; write the source as simulator:seed=7,token_ms=5, "
                f"not {spec.source!r}"
            )
        try:
            simulator_options.parse(options)
        except InvalidInput as exc:
            raise EngineRefuses(f"model source {spec.source!r}: {exc}") from exc
        return command.simulator(spec, python=self.python, options=options, port=port)

    async def alive(self, endpoint: LoopbackEndpoint) -> bool:
        return await openai_http.alive(endpoint)

    async def models(self, endpoint: LoopbackEndpoint) -> frozenset[str]:
        return await openai_http.models(endpoint)

    async def warm_up(self, endpoint: LoopbackEndpoint, model: str) -> None:
        await openai_http.warm_up(endpoint, model)

    async def load(self, endpoint: LoopbackEndpoint) -> EngineLoad:
        return await openai_http.load(endpoint)
