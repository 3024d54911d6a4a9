"""Which engines this node knows, by name."""

import sys
from collections.abc import Mapping
from pathlib import Path

from mesh.kit.errors import MeshError
from node_agent.engines.llamacpp import LlamaCpp
from node_agent.engines.port import Engine
from node_agent.engines.simulator import Simulator
from node_agent.engines.source import Sources

Engines = Mapping[str, Engine]


class EngineUnknown(MeshError):
    """The specification names an engine that this agent has no adapter for."""

    code = "engine_unknown"

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"engine {name!r} is not known to this agent; it knows {', '.join(known) or 'none'}")
        self.name = name


def build(*, models_dir: Path | None, python: str = sys.executable) -> Engines:
    """Every engine this agent has an adapter for."""
    engines: tuple[Engine, ...] = (LlamaCpp(Sources(models_dir), python), Simulator(python))
    return {engine.name: engine for engine in engines}


def choose(engines: Engines, name: str) -> Engine:
    """The engine of that name. EngineUnknown otherwise."""
    try:
        return engines[name]
    except KeyError:
        raise EngineUnknown(name, tuple(engines)) from None
