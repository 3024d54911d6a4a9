"""Questions about gateways, which are the hubs that nodes keep tunnels to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.store.changes import hubs_changed
from control_plane.store.db import Db
from mesh.kit.ids import GatewayId

_FIND = """
SELECT gateway_id, tunnel_endpoint, server_name, version
  FROM gateways
 WHERE gateway_id = $1
"""
_LIST = "SELECT gateway_id, tunnel_endpoint, server_name, version FROM gateways ORDER BY gateway_id"
_RECORD = """
INSERT INTO gateways (gateway_id, tunnel_endpoint, server_name, version, first_seen_at, last_seen_at)
VALUES ($1, $2, $3, $4, $5, $5)
    ON CONFLICT (gateway_id) DO UPDATE
   SET tunnel_endpoint = excluded.tunnel_endpoint, server_name = excluded.server_name,
       version = excluded.version, last_seen_at = excluded.last_seen_at
"""
_TOUCH = "UPDATE gateways SET last_seen_at = $2 WHERE gateway_id = $1"
_SILENT = "SELECT EXISTS (SELECT FROM gateways WHERE last_seen_at < $1)"
_DELETE_SILENT = "DELETE FROM gateways WHERE last_seen_at < $1 RETURNING gateway_id"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway as it last presented itself."""

    gateway_id: GatewayId
    tunnel_endpoint: str
    server_name: str
    version: str = ""


async def record_seen(db: Db, gateway: Gateway, *, now: datetime) -> bool:
    """A gateway is here. True when nodes must hear of it: it is new, or is to be reached elsewhere."""
    row = await db.fetchrow(_FIND, gateway.gateway_id)
    known = None if row is None else _gateway(row)
    changed = known is None or (known.tunnel_endpoint, known.server_name) != (
        gateway.tunnel_endpoint,
        gateway.server_name,
    )
    if changed:
        await hubs_changed(db)
    await db.execute(
        _RECORD, gateway.gateway_id, gateway.tunnel_endpoint, gateway.server_name, gateway.version, now
    )
    return changed


async def touch(db: Db, gateway_id: GatewayId, *, now: datetime) -> bool:
    """It is still here. False when it was forgotten meanwhile: record it again."""
    return await db.execute(_TOUCH, gateway_id, now) == "UPDATE 1"


async def list_(db: Db) -> list[Gateway]:
    """All of them."""
    return [_gateway(row) for row in await db.fetch(_LIST)]


async def delete_silent(db: Db, *, seen_before: datetime) -> list[GatewayId]:
    """Forget, and return, the gateways not heard of since then; nodes stop dialling them."""
    if not await db.fetchval(_SILENT, seen_before):
        return []
    await hubs_changed(db)  # first: node rows are locked before all others (changes.py)
    rows = await db.fetch(_DELETE_SILENT, seen_before)
    return [GatewayId(row["gateway_id"]) for row in rows]


def _gateway(row: Any) -> Gateway:
    return Gateway(row["gateway_id"], row["tunnel_endpoint"], row["server_name"], row["version"])
