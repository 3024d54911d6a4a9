"""Questions about demand. Of each hub only the latest report is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from control_plane.core.demand import FRESH, ModelDemand, check_report
from control_plane.store.db import Db

_FORGOTTEN = timedelta(hours=1)  # reports stay for people this long after they stopped to count

_RECORD = """
INSERT INTO model_demand (hub_id, model, waiting, active, admitted, refused, wait_mean_ms, wait_p95_ms,
                          oldest_wait_ms, reported_at)
SELECT $2, d.model, d.waiting, d.active, d.admitted, d.refused, d.wait_mean_ms, d.wait_p95_ms,
       d.oldest_wait_ms, $3
  FROM jsonb_to_recordset($1) AS d (
       model text, waiting integer, active integer, admitted integer, refused integer, wait_mean_ms integer,
       wait_p95_ms integer, oldest_wait_ms integer)
 ORDER BY d.model
    ON CONFLICT (hub_id, model) DO UPDATE
   SET waiting = excluded.waiting, active = excluded.active, admitted = excluded.admitted,
       refused = excluded.refused, wait_mean_ms = excluded.wait_mean_ms, wait_p95_ms = excluded.wait_p95_ms,
       oldest_wait_ms = excluded.oldest_wait_ms, reported_at = excluded.reported_at
"""
_UNSAID = "DELETE FROM model_demand WHERE hub_id = $1 AND model <> ALL($2::text[])"
_LIST = """
SELECT hub_id, reported_at, model, waiting, active, admitted, refused, wait_mean_ms, wait_p95_ms, oldest_wait_ms
  FROM model_demand
 WHERE reported_at >= $1
 ORDER BY model, hub_id
"""
_DELETE_OLD = "DELETE FROM model_demand WHERE reported_at < $1"


@dataclass(frozen=True, slots=True)
class HubDemand:
    """What one process of a gateway said of one model, and when."""

    hub_id: str
    reported_at: datetime
    demand: ModelDemand


async def record(db: Db, models: Sequence[ModelDemand], *, hub_id: str, now: datetime) -> None:
    """This is what queues at that hub now, and nothing else does. InvalidInput when there are too many models.

    Call it in a transaction.
    """
    check_report(models)
    await db.execute(_RECORD, [_json(one) for one in models], hub_id, now)
    await db.execute(_UNSAID, hub_id, [one.model for one in models])


async def list_(db: Db, now: datetime) -> list[HubDemand]:
    """What all hubs said that still counts, by model."""
    return [_demand(row) for row in await db.fetch(_LIST, now - FRESH)]


async def delete_old(db: Db, *, now: datetime) -> None:
    """Forget what hubs said that have long been silent."""
    await db.execute(_DELETE_OLD, now - _FORGOTTEN)


def _json(one: ModelDemand) -> dict[str, Any]:
    return {
        "model": one.model,
        "waiting": one.waiting,
        "active": one.active,
        "admitted": one.admitted,
        "refused": one.refused,
        "wait_mean_ms": one.wait_mean_ms,
        "wait_p95_ms": one.wait_p95_ms,
        "oldest_wait_ms": one.oldest_wait_ms,
    }


def _demand(row: Any) -> HubDemand:
    return HubDemand(
        hub_id=row["hub_id"],
        reported_at=row["reported_at"],
        demand=ModelDemand(
            model=row["model"],
            waiting=row["waiting"],
            active=row["active"],
            admitted=row["admitted"],
            refused=row["refused"],
            wait_mean_ms=row["wait_mean_ms"],
            wait_p95_ms=row["wait_p95_ms"],
            oldest_wait_ms=row["oldest_wait_ms"],
        ),
    )
