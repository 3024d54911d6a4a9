"""Enums of the API in one lower-case word: a worker's phase, a key's priority, a routing policy."""

from mesh.gateway.v1 import gateway_pb2
from mesh.types.v1 import worker_pb2 as pb


def phase_of(phase: int) -> str:
    """``ready`` for WORKER_PHASE_READY; ``unknown`` for what a newer control plane may say."""
    try:
        name = pb.WorkerPhase.Name(phase)
    except ValueError:
        return "unknown"
    return name.removeprefix("WORKER_PHASE_").lower()


PRIORITIES = tuple(name.removeprefix("PRIORITY_").lower() for name in gateway_pb2.Priority.keys()[1:])
POLICIES = tuple(
    name.removeprefix("ROUTING_POLICY_").lower().replace("_", "-") for name in gateway_pb2.RoutingPolicy.keys()[1:]
)


def priority_of(word: str) -> str:
    """``PRIORITY_HIGH`` for ``high``."""
    return f"PRIORITY_{word.upper()}"


def policy_of(word: str) -> str:
    """``ROUTING_POLICY_ROUND_ROBIN`` for ``round-robin``."""
    return f"ROUTING_POLICY_{word.upper().replace('-', '_')}"


def word_for_priority(number: int) -> str:
    """``high`` for PRIORITY_HIGH."""
    return PRIORITIES[number - 1] if 0 < number <= len(PRIORITIES) else "unknown"


def word_for_policy(number: int) -> str:
    """``round-robin`` for ROUTING_POLICY_ROUND_ROBIN."""
    return POLICIES[number - 1] if 0 < number <= len(POLICIES) else "unknown"
