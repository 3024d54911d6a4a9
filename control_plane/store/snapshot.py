"""The question a gateway asks: everything, at one revision."""

from datetime import datetime, timedelta
from typing import Any

from control_plane.core.fleet import WorkerPhase
from control_plane.core.snapshot import KeyEntry, ModelEntry, Route, Snapshot
from control_plane.store.db import Db

CLOCKS = timedelta(days=1)  # an ended certificate stays named this long, for gateways whose clock is behind

_REVISION = "SELECT snapshot_revision FROM revisions"
_KEYS = """
SELECT key_id, secret_mac, organization_id, expires_at
  FROM api_keys
 WHERE expires_at IS NULL OR expires_at > $1
 ORDER BY key_id
"""
_MODELS = """
SELECT m.model_id, m.name, m.created_at, m.context_length
  FROM models AS m
 WHERE EXISTS (SELECT FROM deployments AS d WHERE d.model_id = m.model_id)
 ORDER BY m.name
"""
_ROUTES = """
SELECT d.model_id, a.worker_id, a.node_id, a.deployment_id, d.engine, d.slots, a.phase
  FROM assignments AS a
  JOIN deployments AS d USING (deployment_id)
 ORDER BY a.worker_id
"""
_REVOKED = """
SELECT node_id AS id FROM nodes WHERE state = 'revoked'
UNION
SELECT serial AS id FROM certificates WHERE revoked_at IS NOT NULL AND not_after > $1
 ORDER BY id
"""


async def revision(db: Db) -> int:
    """The revision that ``load`` would give now."""
    found: int = await db.fetchval(_REVISION)
    return found


async def load(db: Db, *, now: datetime) -> Snapshot:
    """All of it as of one moment. Call it outside a transaction: it opens its own.

    What time alone has ended (keys, certificates) is left out, without a new revision.
    """
    async with db.transaction(isolation="repeatable_read", readonly=True):
        at = await revision(db)
        routes: dict[str, list[Route]] = {}
        for row in await db.fetch(_ROUTES):
            routes.setdefault(row["model_id"], []).append(_route(row))
        return Snapshot(
            revision=at,
            api_keys=tuple(_key(row) for row in await db.fetch(_KEYS, now)),
            models=tuple(_model(row, routes.get(row["model_id"], [])) for row in await db.fetch(_MODELS)),
            revoked_nodes=tuple(row["id"] for row in await db.fetch(_REVOKED, now - CLOCKS)),
        )


def _key(row: Any) -> KeyEntry:
    return KeyEntry(row["key_id"], row["secret_mac"], row["organization_id"], row["expires_at"])


def _model(row: Any, routes: list[Route]) -> ModelEntry:
    return ModelEntry(row["name"], row["created_at"], row["context_length"], tuple(routes))


def _route(row: Any) -> Route:
    return Route(
        worker_id=row["worker_id"],
        node_id=row["node_id"],
        deployment_id=row["deployment_id"],
        engine=row["engine"],
        slots=row["slots"],
        phase=WorkerPhase(row["phase"]),
    )
