"""The gateway contract's messages as this gateway's values, and back. Nothing else here knows both."""

from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.core.snapshot import ApiKey, Model, Route, Snapshot, WorkerPhase
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
_OUTCOMES = {
    Outcome.COMPLETED: pb.USAGE_OUTCOME_COMPLETED,
    Outcome.FAILED: pb.USAGE_OUTCOME_FAILED,
    Outcome.CANCELLED: pb.USAGE_OUTCOME_CANCELLED,
    Outcome.INTERRUPTED: pb.USAGE_OUTCOME_INTERRUPTED,
}


def snapshot(message: pb.Snapshot) -> Snapshot:
    """The snapshot in the message. A phase that a newer control plane may know is UNKNOWN here."""
    return Snapshot(
        revision=message.revision,
        key_pepper=message.key_pepper,
        keys={key.key_id: _api_key(key) for key in message.api_keys},
        models={model.name: _model(model) for model in message.models},
        revoked=frozenset(message.revoked_nodes),
    )


def record(value: UsageRecord) -> pb.UsageRecord:
    """The message of a record."""
    started = Timestamp()
    started.FromDatetime(value.started_at)
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
    )


def _api_key(message: pb.ApiKey) -> ApiKey:
    ends = message.expires_at.ToDatetime(UTC) if message.HasField("expires_at") else None
    return ApiKey(message.key_id, message.secret_mac, message.organization_id, ends)


def _model(message: pb.Model) -> Model:
    return Model(
        name=message.name,
        organization_id=message.organization_id,
        created_at=message.created_at.ToDatetime(UTC),
        context_length=message.context_length,
        routes=tuple(_route(route) for route in message.routes),
    )


def _route(message: pb.Route) -> Route:
    return Route(
        worker_id=message.worker_id,
        node_id=message.node_id,
        deployment_id=message.deployment_id,
        engine=message.engine,
        slots=max(message.slots, 1),
        phase=_PHASES.get(message.phase, WorkerPhase.UNKNOWN),
    )
