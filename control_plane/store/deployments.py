"""Questions about deployments. Placing their replicas is the placer's duty; here it only hears that it should."""

from dataclasses import replace
from typing import Any

import asyncpg

from control_plane.core.model import Deployment, Engine, RoutingPolicy
from control_plane.store.changes import (
    desired_changed,
    lock_placement,
    placement_changed,
    snapshot_changed,
)
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, NotFound

_RECORD = """
INSERT INTO deployments (deployment_id, name, model_id, engine, replicas, slots, created_at, policy, pass_through)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_FIND = """
SELECT d.*, m.name AS model_name
  FROM deployments AS d JOIN models AS m USING (model_id)
 WHERE d.deployment_id = $1 OR d.name = $1
 ORDER BY d.deployment_id = $1 DESC
 LIMIT 1
"""
_LIST = """
SELECT d.*, m.name AS model_name
  FROM deployments AS d JOIN models AS m USING (model_id)
 ORDER BY d.name
"""
_NODES = "SELECT DISTINCT node_id FROM assignments WHERE deployment_id = $1"
_UPDATE = """
UPDATE deployments SET policy = COALESCE($2, policy), pass_through = $3 WHERE deployment_id = $1 RETURNING policy
"""
_DELETE = "DELETE FROM deployments WHERE deployment_id = $1"


async def record(db: Db, deployment: Deployment) -> None:
    """Keep a new deployment. AlreadyExists when the name is taken, NotFound when its model is gone."""
    try:
        await db.execute(
            _RECORD,
            deployment.deployment_id,
            deployment.name,
            deployment.model_id,
            deployment.engine,
            deployment.replicas,
            deployment.slots,
            deployment.created_at,
            deployment.policy,
            deployment.pass_through,
        )
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("deployment", deployment.name) from exc
    except asyncpg.ForeignKeyViolationError as exc:
        raise NotFound("model", deployment.model_name) from exc
    await placement_changed(db)
    await snapshot_changed(db)


async def get(db: Db, id_or_name: str) -> Deployment:
    """That deployment, or NotFound."""
    row = await db.fetchrow(_FIND, id_or_name)
    if row is None:
        raise NotFound("deployment", id_or_name)
    return _deployment(row)


async def list_(db: Db) -> list[Deployment]:
    """All of them, by name."""
    return [_deployment(row) for row in await db.fetch(_LIST)]


async def update(
    db: Db, found: Deployment, *, policy: RoutingPolicy | None, pass_through: tuple[str, ...]
) -> Deployment:
    """Its requests are routed so from now on (None: as before); its workers stay. NotFound when it is gone."""
    row = await db.fetchrow(_UPDATE, found.deployment_id, policy, pass_through)
    if row is None:
        raise NotFound("deployment", found.name)
    await snapshot_changed(db)
    return replace(found, policy=RoutingPolicy(row["policy"]), pass_through=pass_through)


async def delete(db: Db, id_or_name: str) -> Deployment:
    """Remove it, and its workers with it; NotFound when there is none."""
    await lock_placement(db)
    found = await get(db, id_or_name)
    await desired_changed(db, [row["node_id"] for row in await db.fetch(_NODES, found.deployment_id)])
    await db.execute(_DELETE, found.deployment_id)
    await placement_changed(db)
    await snapshot_changed(db)
    return found


def _deployment(row: Any) -> Deployment:
    return Deployment(
        deployment_id=row["deployment_id"],
        name=row["name"],
        model_id=row["model_id"],
        model_name=row["model_name"],
        engine=Engine(row["engine"]),
        replicas=row["replicas"],
        slots=row["slots"],
        created_at=row["created_at"],
        pending_reason=row["pending_reason"],
        policy=RoutingPolicy(row["policy"]),
        pass_through=tuple(row["pass_through"]),
    )
