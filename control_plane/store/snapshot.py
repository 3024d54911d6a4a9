"""The question a gateway asks: everything, at one revision."""

from datetime import datetime, timedelta
from typing import Any

from control_plane.core import capability
from control_plane.core.fleet import WorkerPhase
from control_plane.core.snapshot import KeyEntry, Peer, Route, Snapshot, model_entries
from control_plane.store import api_keys, deployments, gateways, models, projects
from control_plane.store.db import Db

CLOCKS = timedelta(days=1)  # an ended certificate stays named this long, for gateways whose clock is behind

_REVISION = "SELECT snapshot_revision FROM revisions"
_KEYS = f"""
SELECT key_id, secret_mac, organization_id, expires_at, project_id, {api_keys.POLICY}
  FROM api_keys
 WHERE expires_at IS NULL OR expires_at > $1
 ORDER BY key_id
"""  # noqa: S608 - names of columns
_ROUTES = """
SELECT a.worker_id, a.node_id, a.deployment_id, d.engine, d.slots, a.phase,
       ARRAY(SELECT gpu.card ->> 'name'
               FROM nodes AS n, jsonb_array_elements(n.hardware -> 'gpus') AS gpu (card)
              WHERE n.node_id = a.node_id AND gpu.card ->> 'uuid' = ANY (a.gpu_uuids)) AS gpu_names
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
            routes.setdefault(row["deployment_id"], []).append(_route(row))
        return Snapshot(
            revision=at,
            api_keys=tuple(_key(row) for row in await db.fetch(_KEYS, now)),
            models=model_entries(await models.list_(db), await deployments.list_(db), routes),
            revoked_nodes=tuple(row["id"] for row in await db.fetch(_REVOKED, now - CLOCKS)),
            projects=tuple(await projects.list_(db)),
            peers=tuple(Peer(one.hub_id, one.peer_endpoint, one.server_name) for one in await gateways.list_(db)),
        )


def _key(row: Any) -> KeyEntry:
    return KeyEntry(
        key_id=row["key_id"],
        secret_mac=row["secret_mac"],
        organization_id=row["organization_id"],
        expires_at=row["expires_at"],
        project_id=row["project_id"],
        policy=api_keys.policy_of(row),
    )


def _route(row: Any) -> Route:
    return Route(
        worker_id=row["worker_id"],
        node_id=row["node_id"],
        deployment_id=row["deployment_id"],
        engine=row["engine"],
        slots=row["slots"],
        phase=WorkerPhase(row["phase"]),
        weight=capability.weight(row["gpu_names"]),
    )
