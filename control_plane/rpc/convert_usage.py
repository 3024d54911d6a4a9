"""Protobuf ↔ core values for what gateways say of use, limits and demand, and for what they are told of load.

As in ``convert_in``, what comes in is made fit to keep; only what has no sensible nearest value is refused.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from control_plane.core import demand, quota, usage
from control_plane.core.fleet import WorkerPhase
from control_plane.rpc.convert_in import text
from control_plane.store.load import WorkerLoad
from mesh.gateway.v1 import gateway_pb2
from mesh.kit.errors import InvalidInput

_MOST = 2**63 - 1  # what a bigint holds

_OUTCOMES = {
    number: usage.UsageOutcome(name.removeprefix("USAGE_OUTCOME_").lower())
    for name, number in gateway_pb2.UsageOutcome.items()
    if number
}
_KINDS = {
    number: quota.QuotaKind(name.removeprefix("QUOTA_KIND_").lower())
    for name, number in gateway_pb2.QuotaKind.items()
    if number
}
_PHASES = {phase: f"WORKER_PHASE_{phase.name}" for phase in WorkerPhase}


def usage_records(said: Iterable[gateway_pb2.UsageRecord]) -> list[usage.UsageRecord]:
    """What a gateway says was used. A bad record is named by its place."""
    records = list(said)
    if len(records) > usage.MAX_BATCH:
        raise InvalidInput("records", f"at most {usage.MAX_BATCH}, not {len(records)}")
    return [_usage_record(one, f"records[{place}]") for place, one in enumerate(records)]


def asks(said: Iterable[gateway_pb2.QuotaAsk]) -> list[quota.Ask]:
    """What a gateway wants of limits. A kind that we do not know is refused by its place."""
    return [_ask(one, f"asks[{place}]") for place, one in enumerate(said)]


def grants(given: Iterable[quota.Grant]) -> gateway_pb2.LeaseQuotaResponse:
    """What a gateway gets of them."""
    return gateway_pb2.LeaseQuotaResponse(
        grants=[
            gateway_pb2.QuotaGrant(
                granted=one.granted, left=one.left, lease_ms=int(one.lease.total_seconds() * 1000)
            )
            for one in given
        ]
    )


def model_demands(said: Iterable[gateway_pb2.ModelDemand]) -> list[demand.ModelDemand]:
    """What queues at a gateway. Of two that name one model, the later counts."""
    models = (_model_demand(one) for one in said)
    return list({one.model: one for one in models}.values())


def load(value: WorkerLoad) -> gateway_pb2.WorkerLoad:
    """How busy a worker is."""
    return gateway_pb2.WorkerLoad(
        worker_id=value.worker_id,
        requests_running=value.requests_running,
        requests_waiting=value.requests_waiting,
        kv_cache_usage=value.kv_cache_usage,
        phase=_PHASES[value.phase],
        progress_percent=value.progress_percent,
        detail=value.detail,
    )


def _usage_record(said: gateway_pb2.UsageRecord, where: str) -> usage.UsageRecord:
    record = usage.UsageRecord(
        request_id=said.request_id,
        key_id=text(said.key_id),
        organization_id=text(said.organization_id),
        model=text(said.model, usage.MAX_TEXT),
        worker_id=text(said.worker_id),
        node_id=text(said.node_id),
        outcome=_OUTCOMES.get(said.outcome, usage.UsageOutcome.FAILED),
        started_at=_moment(said.started_at, f"{where}.started_at"),
        duration_ms=_count(said.duration_ms),
        streamed=said.streamed,
        status=said.status if 100 <= said.status <= 599 else 0,
        first_token_ms=_count(said.first_token_ms) if said.HasField("first_token_ms") else None,
        prompt_tokens=_count(said.prompt_tokens) if said.HasField("prompt_tokens") else None,
        completion_tokens=_count(said.completion_tokens) if said.HasField("completion_tokens") else None,
        cached_tokens=_count(said.cached_tokens) if said.HasField("cached_tokens") else None,
        project_id=text(said.project_id),
        deployment_id=text(said.deployment_id),
        endpoint=text(said.endpoint),
        reserved_tokens=min(said.reserved_tokens, usage.MAX_TOKENS),
        reserved_money=min(said.reserved_money, usage.MAX_MONEY),
        charged_tokens=min(said.charged_tokens, usage.MAX_TOKENS),
        charged_money=min(said.charged_money, usage.MAX_MONEY),
        estimated=said.estimated,
        queue_ms=_count(said.queue_ms),
        inter_token_us=_count(said.inter_token_us) if said.HasField("inter_token_us") else None,
        continuations=_count(said.continuations),
    )
    try:
        usage.check(record)
    except InvalidInput as exc:
        raise InvalidInput(f"{where}.{exc.field}", exc.problem) from exc
    return record


def _ask(said: gateway_pb2.QuotaAsk, where: str) -> quota.Ask:
    kind = _KINDS.get(said.kind)
    if kind is None:
        raise InvalidInput(f"{where}.kind", f"{said.kind} is no kind of limit that is known here")
    return quota.Ask(
        quota.Window(text(said.subject), kind, said.window),
        wanted=min(said.wanted, _MOST),
        used=min(said.used, _MOST),
    )


def _model_demand(said: gateway_pb2.ModelDemand) -> demand.ModelDemand:
    return demand.ModelDemand(
        model=text(said.model, usage.MAX_TEXT),
        waiting=_count(said.waiting),
        active=_count(said.active),
        admitted=_count(said.admitted),
        refused=_count(said.refused),
        wait_mean_ms=_count(said.wait_mean_ms),
        wait_p95_ms=_count(said.wait_p95_ms),
        oldest_wait_ms=_count(said.oldest_wait_ms),
    )


def _count(said: int) -> int:
    return min(said, usage.MAX_COUNT)


def _moment(said: Timestamp, field: str) -> datetime:
    try:
        return said.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(field, "not a moment between the years 1 and 9999") from None
