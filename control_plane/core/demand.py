"""What queues at gateways, as they last said: the signal that scaling works from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mesh.kit.errors import InvalidInput

MAX_MODELS = 1_000  # of one report
FRESH = timedelta(seconds=60)  # a report older than this says nothing of now


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """What one process of a gateway saw of one model. Times are in milliseconds."""

    model: str
    waiting: int = 0
    """Requests, now."""
    active: int = 0
    admitted: int = 0
    """Requests, since the report before."""
    refused: int = 0
    wait_mean_ms: int = 0
    wait_p95_ms: int = 0
    oldest_wait_ms: int = 0
    """Of the request that waits longest now."""


def check_report(models: Sequence[ModelDemand]) -> None:
    """Raise InvalidInput unless it could be stored: so many models and no more, each once."""
    if len(models) > MAX_MODELS:
        raise InvalidInput("models", f"at most {MAX_MODELS}, not {len(models)}")
    if len({one.model for one in models}) < len(models):
        raise InvalidInput("models", "each model once")
