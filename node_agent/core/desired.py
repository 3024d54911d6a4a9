"""What the node should be, as the control plane last said it, and its form on disk. Pure."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from node_agent.core.worker import WorkerSpec

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """One gateway that accepts tunnels."""

    hub_id: str
    endpoint: str
    server_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """The whole of it. ``revision`` only grows."""

    revision: int = 0
    workers: tuple[WorkerSpec, ...] = ()
    hubs: tuple[Hub, ...] = ()


def to_json(state: DesiredState) -> str:
    """The state as text that a person can read; ``from_json`` gives it back."""
    return json.dumps({"format": FORMAT, **asdict(state)}, indent=1, ensure_ascii=False)


def from_json(text: str) -> DesiredState:
    """The state in a text. ValueError when the text holds none, or one of another format."""
    try:
        row = json.loads(text)
        if row["format"] != FORMAT:
            raise ValueError(f"desired state of format {row['format']}, not {FORMAT}")
        return DesiredState(
            revision=int(row["revision"]),
            workers=tuple(_spec(worker) for worker in row["workers"]),
            hubs=tuple(Hub(**hub) for hub in row["hubs"]),
        )
    except (KeyError, TypeError) as exc:
        raise ValueError(f"not a desired state: {exc}") from exc


def _spec(row: dict[str, Any]) -> WorkerSpec:
    adapters = tuple((name, source) for name, source in row.get("adapters", ()))  # an older agent wrote none
    return WorkerSpec(**{**row, "gpu_uuids": tuple(row["gpu_uuids"]), "adapters": adapters})
