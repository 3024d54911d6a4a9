"""The gateway contract's messages as this gateway's values, and back. Nothing else here knows both."""

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.core.snapshot import (
    UNLIMITED,
    ApiKey,
    Limits,
    Model,
    Peer,
    Policy,
    Price,
    Priority,
    Project,
    Route,
    Snapshot,
    WorkerPhase,
)
from gateway.core.usage import Outcome, UsageRecord
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.types.v1 import worker_pb2

_PHASES = {
    worker_pb2.WORKER_PHASE_PENDING: WorkerPhase.PENDING,
    worker_pb2.WORKER_PHASE_STARTING: WorkerPhase.STARTING,
    worker_pb2.WORKER_PHASE_WARMING: WorkerPhase.WARMING,
    worker_pb2.WORKER_PHASE_READY: WorkerPhase.READY,
    worker_pb2.WORKER_PHASE_DRAINING: WorkerPhase.DRAINING,
    worker_pb2.WORKER_PHASE_FAILED: WorkerPhase.FAILED,
}
_POLICIES = {
    pb.ROUTING_POLICY_BALANCED: Policy.BALANCED,
    pb.ROUTING_POLICY_PREFIX: Policy.PREFIX,
    pb.ROUTING_POLICY_SESSION: Policy.SESSION,
    pb.ROUTING_POLICY_ROUND_ROBIN: Policy.ROUND_ROBIN,
    pb.ROUTING_POLICY_CHEAPEST: Policy.CHEAPEST,
}
_PRIORITIES = {
    pb.PRIORITY_LOW: Priority.LOW,
    pb.PRIORITY_NORMAL: Priority.NORMAL,
    pb.PRIORITY_HIGH: Priority.HIGH,
}
_OUTCOMES = {
    Outcome.COMPLETED: pb.USAGE_OUTCOME_COMPLETED,
    Outcome.FAILED: pb.USAGE_OUTCOME_FAILED,
    Outcome.CANCELLED: pb.USAGE_OUTCOME_CANCELLED,
    Outcome.INTERRUPTED: pb.USAGE_OUTCOME_INTERRUPTED,
}


def snapshot(message: pb.Snapshot) -> Snapshot:
    """The snapshot in the message. A phase that a newer control plane may know is UNKNOWN here."""
    models = [_model(model) for model in message.models]
    named = {alias: model for model in models for alias in model.aliases}
    named.update((model.name, model) for model in models)  # a name goes before an alias
    return Snapshot(
        revision=message.revision,
        key_pepper=message.key_pepper,
        keys={key.key_id: _api_key(key) for key in message.api_keys},
        models=named,
        revoked=frozenset(message.revoked_nodes),
        projects={
            one.project_id: Project(one.project_id, one.organization_id, _limits(one.limits))
            for one in message.projects
        },
        peers=tuple(Peer(one.hub_id, one.endpoint, one.server_name) for one in message.peers),
    )


def phase_of(number: worker_pb2.WorkerPhase) -> WorkerPhase:
    """One that a newer control plane may know is UNKNOWN here."""
    return _PHASES.get(number, WorkerPhase.UNKNOWN)


def record(value: UsageRecord) -> pb.UsageRecord:
    """The message of a record."""
    at = value.started_at.timestamp()
    started = Timestamp(seconds=int(at), nanos=value.started_at.microsecond * 1000)
    return pb.UsageRecord(
        request_id=value.request_id,
        key_id=value.key_id,
        organization_id=value.organization_id,
        model=value.model,
        worker_id=value.worker_id,
        node_id=value.node_id,
        outcome=_OUTCOMES[value.outcome],
        started_at=started,
        first_token_ms=value.first_token_ms,
        duration_ms=value.duration_ms,
        prompt_tokens=value.prompt_tokens,
        completion_tokens=value.completion_tokens,
        cached_tokens=value.cached_tokens,
        streamed=value.streamed,
        status=value.status,
        project_id=value.project_id,
        deployment_id=value.deployment_id,
        endpoint=value.endpoint,
        reserved_tokens=value.reserved_tokens,
        reserved_money=value.reserved_money,
        charged_tokens=value.charged_tokens,
        charged_money=value.charged_money,
        estimated=value.estimated,
        queue_ms=value.queue_ms,
        inter_token_us=value.inter_token_us,
        continuations=value.continuations,
    )


def _api_key(message: pb.ApiKey) -> ApiKey:
    return ApiKey(
        key_id=message.key_id,
        secret_mac=message.secret_mac,
        organization_id=message.organization_id,
        expires_at=message.expires_at.ToDatetime(UTC) if message.HasField("expires_at") else None,
        project_id=message.project_id,
        scopes=frozenset(message.scopes),
        allowed_models=frozenset(message.allowed_models),
        limits=_limits(message.limits),
        weight=max(message.weight, 1),
        priority=_PRIORITIES.get(message.priority, Priority.NORMAL),
    )


def _limits(message: pb.Limits) -> Limits:
    found = {name.name: value for name, value in message.ListFields()}
    return Limits(**found) if found else UNLIMITED


def _model(message: pb.Model) -> Model:
    return Model(
        name=message.name,
        organization_id=message.organization_id,
        created_at=message.created_at.ToDatetime(UTC),
        context_length=message.context_length,
        routes=tuple(_route(route) for route in message.routes),
        aliases=tuple(message.aliases),
        engine_name=message.engine_name,
        base_model=message.base_model,
        policy=_POLICIES.get(message.policy, Policy.BALANCED),
        price=Price(message.price.prompt, message.price.cached, message.price.completion),
        pass_through=frozenset(message.pass_through),
        can_start=message.can_start,
    )


def _route(message: pb.Route) -> Route:
    return Route(
        worker_id=message.worker_id,
        node_id=message.node_id,
        deployment_id=message.deployment_id,
        engine=message.engine,
        slots=max(message.slots, 1),
        phase=phase_of(message.phase),
        weight=(message.weight or 1000) / 1000,
        cost_per_hour=message.cost_per_hour,
    )
