"""A worker's phase in one lower-case word."""

from mesh.types.v1 import worker_pb2 as pb


def phase_of(phase: int) -> str:
    """``ready`` for WORKER_PHASE_READY; ``unknown`` for what a newer control plane may say."""
    try:
        name = pb.WorkerPhase.Name(phase)
    except ValueError:
        return "unknown"
    return name.removeprefix("WORKER_PHASE_").lower()
