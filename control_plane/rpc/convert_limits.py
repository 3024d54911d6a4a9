"""Protobuf ↔ core values, both ways: limits, what keys may do, prices, adapters and routing policies.

What operators say is only read here; ``control_plane.core.bounds`` checks it. A number of an enum that this
version does not know is refused, with InvalidInput naming the field.
"""

from collections.abc import Iterable

from control_plane.core.limits import LIMITS, KeyPolicy, Limits, Priority
from control_plane.core.model import Adapter, Price, RoutingPolicy
from mesh.admin.v1 import api_key_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.kit.errors import InvalidInput
from mesh.types.v1 import worker_pb2

_PRIORITIES = {number: name.removeprefix("PRIORITY_").lower() for name, number in gateway_pb2.Priority.items()}
_POLICIES = {
    number: name.removeprefix("ROUTING_POLICY_").lower() for name, number in gateway_pb2.RoutingPolicy.items()
}


def limits_in(said: gateway_pb2.Limits) -> Limits:
    """What is absent is unlimited."""
    return Limits(**{name: getattr(said, name) for name in LIMITS if said.HasField(name)})


def limits_out(value: Limits) -> gateway_pb2.Limits:
    """Limits, as everybody sees them."""
    return gateway_pb2.Limits(**{name: getattr(value, name) for name in LIMITS})


def key_policy_in(said: api_key_pb2.ApiKeyPolicy) -> KeyPolicy:
    """What a key should be allowed."""
    return KeyPolicy(
        scopes=tuple(said.scopes),
        allowed_models=tuple(said.allowed_models),
        limits=limits_in(said.limits),
        weight=said.weight,
        priority=_priority_in(said.priority),
    )


def key_policy_out(value: KeyPolicy) -> api_key_pb2.ApiKeyPolicy:
    """What a key may do, as operators see it."""
    return api_key_pb2.ApiKeyPolicy(
        scopes=value.scopes,
        allowed_models=value.allowed_models,
        limits=limits_out(value.limits),
        weight=value.weight,
        priority=priority_out(value.priority),
    )


def _priority_in(said: int) -> Priority:
    if not said:
        return Priority.NORMAL
    if said not in _PRIORITIES:
        raise InvalidInput("policy.priority", f"must be one of: {', '.join(Priority)}")
    return Priority(_PRIORITIES[said])


def priority_out(value: Priority) -> str:
    """Who goes first, by the name of the schema."""
    return f"PRIORITY_{value.name}"


def routing_policy_in(said: int) -> RoutingPolicy | None:
    """How workers should be chosen; None when nothing is said of it."""
    if not said:
        return None
    if said not in _POLICIES:
        raise InvalidInput("policy", f"must be one of: {', '.join(RoutingPolicy)}")
    return RoutingPolicy(_POLICIES[said])


def routing_policy_out(value: RoutingPolicy) -> str:
    """How workers are chosen, by the name of the schema."""
    return f"ROUTING_POLICY_{value.name}"


def price_in(said: gateway_pb2.Price) -> Price:
    """What a model should cost."""
    return Price(said.prompt, said.cached, said.completion)


def price_out(value: Price) -> gateway_pb2.Price:
    """What a model costs."""
    return gateway_pb2.Price(prompt=value.prompt, cached=value.cached, completion=value.completion)


def adapters_in(said: Iterable[worker_pb2.Adapter]) -> tuple[Adapter, ...]:
    """The adapters that a model should have."""
    return tuple(Adapter(one.name, one.source) for one in said)


def adapters_out(values: Iterable[Adapter]) -> list[worker_pb2.Adapter]:
    """The adapters of a model, as operators and nodes see them."""
    return [worker_pb2.Adapter(name=one.name, source=one.source) for one in values]
