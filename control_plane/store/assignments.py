"""Questions about who runs what."""

from datetime import datetime
from typing import Any

from control_plane.core.desired import DesiredState, Hub, WorkerSpec, make_spec
from control_plane.core.fleet import WorkerPhase
from control_plane.core.model import Assignment, Engine
from control_plane.core.placement import Plan
from control_plane.store import deployments, models
from control_plane.store.changes import desired_changed, lock_placement, snapshot_changed
from control_plane.store.db import Db
from control_plane.store.models import adapters_of
from mesh.kit.errors import NotFound
from mesh.kit.ids import NodeId, WorkerId, uuid7

_LIST = """
SELECT worker_id, deployment_id, node_id, gpu_uuids, spec_hash, phase, progress_percent, detail
  FROM assignments
 WHERE $1::text IS NULL OR deployment_id = $1
 ORDER BY worker_id
"""
_COUNT_BY_PHASE = "SELECT phase, count(*) AS workers FROM assignments GROUP BY phase"
_NODES = "SELECT node_id FROM assignments WHERE worker_id = ANY($1::text[])"
_RELEASE = "DELETE FROM assignments WHERE worker_id = ANY($1::text[])"
_ASSIGN = """
INSERT INTO assignments (worker_id, deployment_id, node_id, gpu_uuids, spec_hash, assigned_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""
_PENDING = """
UPDATE deployments AS d
   SET pending_reason = said.why
  FROM (SELECT e.deployment_id, COALESCE($1::jsonb ->> e.deployment_id, '') AS why FROM deployments AS e) AS said
 WHERE d.deployment_id = said.deployment_id AND d.pending_reason <> said.why
"""
_REVISION = "SELECT desired_revision FROM nodes WHERE node_id = $1"
_SPECS = """
SELECT a.worker_id, a.deployment_id, a.gpu_uuids, a.spec_hash, d.engine, d.slots,
       m.name, m.source, m.context_length, m.memory_bytes, m.gpu_count,
       ARRAY(SELECT ARRAY[n.name, n.source] FROM model_names AS n
              WHERE n.model_id = m.model_id AND n.kind = 'adapter' ORDER BY n.name COLLATE "C") AS adapters
  FROM assignments AS a
  JOIN deployments AS d USING (deployment_id)
  JOIN models AS m USING (model_id)
 WHERE a.node_id = $1
 ORDER BY a.worker_id
"""
_HUBS = "SELECT gateway_id, tunnel_endpoint, server_name FROM gateways ORDER BY gateway_id"

lock = lock_placement  # first in the placer's transaction: load, place and apply are one step


async def list_(db: Db, *, deployment_id: str | None = None) -> list[Assignment]:
    """All of them, or one deployment's, oldest first."""
    return [_assignment(row) for row in await db.fetch(_LIST, deployment_id)]


async def apply(db: Db, plan: Plan, *, now: datetime) -> list[Assignment]:
    """Carry out the plan and return what was assigned. Only nodes that it touches get a new revision."""
    await lock(db)
    released = [one.worker_id for one in plan.release]
    touched = {NodeId(row["node_id"]) for row in await db.fetch(_NODES, released)}
    touched |= {one.node_id for one in plan.assign}
    await db.execute(_PENDING, dict(plan.pending))
    if not touched:
        return []
    await desired_changed(db, touched)
    await db.execute(_RELEASE, released)
    assigned = await _assign(db, plan, now)
    await snapshot_changed(db)
    return assigned


async def count_by_phase(db: Db) -> dict[WorkerPhase, int]:
    """How many placed replicas are in each phase that any is in."""
    return {WorkerPhase(row["phase"]): row["workers"] for row in await db.fetch(_COUNT_BY_PHASE)}


async def desired_for(db: Db, node_id: NodeId) -> DesiredState:
    """What that node should be; NotFound when there is no such node."""
    # The revision is read first: if a change comes between the statements, this state is newer than it says, and
    # the next one says the same again. The other order could hide a change behind its own revision.
    revision: int | None = await db.fetchval(_REVISION, node_id)
    if revision is None:
        raise NotFound("node", node_id)
    workers = tuple(_spec(row) for row in await db.fetch(_SPECS, node_id))
    hubs = tuple(
        Hub(row["gateway_id"], row["tunnel_endpoint"], row["server_name"]) for row in await db.fetch(_HUBS)
    )
    return DesiredState(revision, workers, hubs)


async def _assign(db: Db, plan: Plan, now: datetime) -> list[Assignment]:
    by_deployment = {one.deployment_id: one for one in await deployments.list_(db)}
    by_model = {one.model_id: one for one in await models.list_(db)}
    assigned = []
    for one in plan.assign:
        deployment = by_deployment[one.deployment_id]
        spec = make_spec(
            WorkerId(uuid7(now)),
            deployment=deployment,
            model=by_model[deployment.model_id],
            gpu_uuids=one.gpu_uuids,
        )
        await db.execute(
            _ASSIGN, spec.worker_id, one.deployment_id, one.node_id, one.gpu_uuids, spec.spec_hash, now
        )
        assigned.append(Assignment(spec.worker_id, one.deployment_id, one.node_id, one.gpu_uuids, spec.spec_hash))
    return assigned


def _spec(row: Any) -> WorkerSpec:
    return WorkerSpec(
        worker_id=row["worker_id"],
        deployment_id=row["deployment_id"],
        model=row["name"],
        engine=row["engine"],
        source=row["source"],
        context_length=row["context_length"],
        slots=row["slots"],
        memory_bytes=0 if row["gpu_count"] else row["memory_bytes"],
        gpu_uuids=tuple(row["gpu_uuids"]),
        spec_hash=row["spec_hash"],
        adapters=adapters_of(row) if Engine(row["engine"]).serves_adapters else (),
    )


def _assignment(row: Any) -> Assignment:
    return Assignment(
        worker_id=row["worker_id"],
        deployment_id=row["deployment_id"],
        node_id=row["node_id"],
        gpu_uuids=tuple(row["gpu_uuids"]),
        spec_hash=row["spec_hash"],
        phase=WorkerPhase(row["phase"]),
        progress_percent=row["progress_percent"],
        detail=row["detail"],
    )
