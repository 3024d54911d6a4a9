"""Questions about usage. A record is kept once, by its request id, however often it is handed in."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from control_plane.core.usage import UsageOutcome, UsageRecord, check_batch
from control_plane.store import ledger
from control_plane.store.db import Db
from mesh.kit.ids import GatewayId

_RECORD = """
INSERT INTO usage_records (
    request_id, gateway_id, key_id, organization_id, model, worker_id, node_id, outcome, started_at,
    recorded_at, first_token_ms, duration_ms, prompt_tokens, completion_tokens, cached_tokens, streamed, status,
    project_id, deployment_id, endpoint, reserved_tokens, reserved_money, charged_tokens, charged_money, estimated,
    queue_ms, inter_token_us, continuations)
SELECT r.request_id, $2, r.key_id, r.organization_id, r.model, r.worker_id, r.node_id, r.outcome, r.started_at,
       $3, r.first_token_ms, r.duration_ms, r.prompt_tokens, r.completion_tokens, r.cached_tokens, r.streamed,
       r.status, r.project_id, r.deployment_id, r.endpoint, r.reserved_tokens, r.reserved_money * 0.000000001,
       r.charged_tokens, r.charged_money * 0.000000001, r.estimated, r.queue_ms, r.inter_token_us, r.continuations
  FROM jsonb_to_recordset($1) AS r (
       request_id uuid, key_id text, organization_id text, model text, worker_id text, node_id text,
       outcome text, started_at timestamptz, first_token_ms integer, duration_ms integer,
       prompt_tokens integer, completion_tokens integer, cached_tokens integer, streamed boolean, status integer,
       project_id text, deployment_id text, endpoint text, reserved_tokens bigint, reserved_money numeric,
       charged_tokens bigint, charged_money numeric, estimated boolean, queue_ms integer, inter_token_us integer,
       continuations integer)
 ORDER BY r.request_id
    ON CONFLICT (request_id) DO NOTHING
RETURNING request_id::text AS id
"""
_STORED = "SELECT request_id::text AS id FROM usage_records WHERE request_id = ANY($1::uuid[]) ORDER BY request_id"
_LIST = "SELECT * FROM usage_records ORDER BY started_at DESC, request_id DESC LIMIT $1"
_COUNT = "SELECT count(*) FROM usage_records"


async def record_batch(
    db: Db, records: Sequence[UsageRecord], *, gateway_id: GatewayId, now: datetime
) -> list[str]:
    """Keep what is not kept yet, and post it to the ledger with it; return the ids of all that are kept now.

    The first record of a request stays: what a gateway says of it later changes nothing. InvalidInput refuses the
    whole batch.
    """
    check_batch(records)
    first = {one.request_id: one for one in reversed(records)}
    async with db.transaction():
        new = await db.fetch(_RECORD, [_json(one) for one in first.values()], gateway_id, now)
        await ledger.record(db, [first[row["id"]] for row in new], now=now)
        return [row["id"] for row in await db.fetch(_STORED, list(first))]


async def list_(db: Db, *, limit: int) -> list[UsageRecord]:
    """The latest, newest first."""
    return [_record(row) for row in await db.fetch(_LIST, limit)]


async def count_(db: Db) -> int:
    """How many there are."""
    count: int = await db.fetchval(_COUNT)
    return count


def _json(record: UsageRecord) -> dict[str, Any]:
    return {
        "request_id": record.request_id,
        "key_id": record.key_id,
        "organization_id": record.organization_id,
        "model": record.model,
        "worker_id": record.worker_id,
        "node_id": record.node_id,
        "outcome": record.outcome,
        "started_at": record.started_at.isoformat(),
        "first_token_ms": record.first_token_ms,
        "duration_ms": record.duration_ms,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "streamed": record.streamed,
        "status": record.status,
        "project_id": record.project_id,
        "deployment_id": record.deployment_id,
        "endpoint": record.endpoint,
        "reserved_tokens": record.reserved_tokens,
        "reserved_money": record.reserved_money,
        "charged_tokens": record.charged_tokens,
        "charged_money": record.charged_money,
        "estimated": record.estimated,
        "queue_ms": record.queue_ms,
        "inter_token_us": record.inter_token_us,
        "continuations": record.continuations,
    }


def _record(row: Any) -> UsageRecord:
    return UsageRecord(
        request_id=str(row["request_id"]),
        key_id=row["key_id"],
        organization_id=row["organization_id"],
        model=row["model"],
        worker_id=row["worker_id"],
        node_id=row["node_id"],
        outcome=UsageOutcome(row["outcome"]),
        started_at=row["started_at"],
        duration_ms=row["duration_ms"],
        streamed=row["streamed"],
        status=row["status"],
        first_token_ms=row["first_token_ms"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cached_tokens=row["cached_tokens"],
        project_id=row["project_id"],
        deployment_id=row["deployment_id"],
        endpoint=row["endpoint"],
        reserved_tokens=row["reserved_tokens"],
        reserved_money=int(row["reserved_money"] * ledger.NANO),
        charged_tokens=row["charged_tokens"],
        charged_money=int(row["charged_money"] * ledger.NANO),
        estimated=row["estimated"],
        queue_ms=row["queue_ms"],
        inter_token_us=row["inter_token_us"],
        continuations=row["continuations"],
    )
