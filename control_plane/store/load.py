"""The question of gateways that choose workers: how busy each is, and how far it has come."""

from dataclasses import dataclass
from typing import Any

from control_plane.core.fleet import WorkerPhase
from control_plane.store.db import Db
from mesh.kit.ids import WorkerId

# What an engine's metrics said counts only while its node is heard.
_LOAD = """
SELECT a.worker_id, a.phase, a.progress_percent, a.detail,
       said.requests_running, said.requests_waiting, said.kv_cache_usage
  FROM assignments AS a
  JOIN nodes AS n USING (node_id)
  LEFT JOIN LATERAL (
       SELECT * FROM jsonb_to_recordset(n.report -> 'workers')
           AS w (worker_id text, spec_hash text, requests_running integer, requests_waiting integer,
                 kv_cache_usage double precision)
        WHERE n.state = 'online' AND w.worker_id = a.worker_id AND w.spec_hash = a.spec_hash
        LIMIT 1) AS said ON true
 ORDER BY a.worker_id
"""


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What a node last said of one worker; None for what its engine does not tell."""

    worker_id: WorkerId
    phase: WorkerPhase
    progress_percent: int = 0
    detail: str = ""
    requests_running: int | None = None
    requests_waiting: int | None = None
    kv_cache_usage: float | None = None


async def list_(db: Db) -> list[WorkerLoad]:
    """That of all workers."""
    return [_load(row) for row in await db.fetch(_LOAD)]


def _load(row: Any) -> WorkerLoad:
    return WorkerLoad(
        worker_id=WorkerId(row["worker_id"]),
        phase=WorkerPhase(row["phase"]),
        progress_percent=row["progress_percent"],
        detail=row["detail"],
        requests_running=row["requests_running"],
        requests_waiting=row["requests_waiting"],
        kv_cache_usage=row["kv_cache_usage"],
    )
