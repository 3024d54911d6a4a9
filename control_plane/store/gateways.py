"""Questions about gateways, whose processes are the hubs that nodes keep tunnels to."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.core.desired import hub_id
from control_plane.store.changes import hubs_changed, snapshot_changed
from control_plane.store.db import Db
from mesh.kit.ids import GatewayId

_ALL = "gateway_id, tunnel_endpoint, server_name, version, process, peer_endpoint"
_FIND = f"SELECT {_ALL} FROM gateways WHERE gateway_id = $1"  # noqa: S608 - names of columns
_LIST = f"SELECT {_ALL} FROM gateways ORDER BY gateway_id"  # noqa: S608 - names of columns
_RECORD = f"""
INSERT INTO gateways ({_ALL}, first_seen_at, last_seen_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
    ON CONFLICT (gateway_id) DO UPDATE
   SET tunnel_endpoint = excluded.tunnel_endpoint, server_name = excluded.server_name,
       version = excluded.version, peer_endpoint = excluded.peer_endpoint, last_seen_at = excluded.last_seen_at
"""  # noqa: S608 - names of columns
_TOUCH = "UPDATE gateways SET last_seen_at = $2 WHERE gateway_id = $1"
_SILENT = "SELECT EXISTS (SELECT FROM gateways WHERE last_seen_at < $1)"
_DELETE_SILENT = "DELETE FROM gateways WHERE last_seen_at < $1 RETURNING gateway_id"


@dataclass(frozen=True, slots=True)
class Gateway:
    """One process of a gateway as it last presented itself."""

    gateway_id: GatewayId
    tunnel_endpoint: str
    server_name: str
    version: str = ""
    process: int = 0
    peer_endpoint: str = ""
    """Where other gateways reach it; empty when they do not."""

    @property
    def hub_id(self) -> str:
        """What it is called as a hub and as a peer; its row's id."""
        return hub_id(self.gateway_id, self.process)


async def record_seen(db: Db, gateway: Gateway, *, now: datetime) -> bool:
    """A gateway is here. True when nodes must hear of it: it is new, or is to be reached elsewhere."""
    row = await db.fetchrow(_FIND, gateway.hub_id)
    known = None if row is None else _gateway(row)
    changed = known is None or (known.tunnel_endpoint, known.server_name) != (
        gateway.tunnel_endpoint,
        gateway.server_name,
    )
    if changed:
        await hubs_changed(db)
    await db.execute(
        _RECORD,
        gateway.hub_id,
        gateway.tunnel_endpoint,
        gateway.server_name,
        gateway.version,
        gateway.process,
        gateway.peer_endpoint,
        now,
    )
    if known is None or (known.peer_endpoint, known.server_name) != (gateway.peer_endpoint, gateway.server_name):
        await snapshot_changed(db)
    return changed


async def touch(db: Db, hub: str, *, now: datetime) -> bool:
    """That hub is still here. False when it was forgotten meanwhile: record it again."""
    return await db.execute(_TOUCH, hub, now) == "UPDATE 1"


async def list_(db: Db) -> list[Gateway]:
    """All of them, each process by itself."""
    return [_gateway(row) for row in await db.fetch(_LIST)]


async def delete_silent(db: Db, *, seen_before: datetime) -> list[GatewayId]:
    """Forget, and return the hub ids of, those not heard of since then; nodes and gateways stop dialling them."""
    if not await db.fetchval(_SILENT, seen_before):
        return []
    await hubs_changed(db)  # first: node rows are locked before all others (changes.py)
    rows = await db.fetch(_DELETE_SILENT, seen_before)
    await snapshot_changed(db)
    return [GatewayId(row["gateway_id"]) for row in rows]


def _gateway(row: Any) -> Gateway:
    return Gateway(
        gateway_id=GatewayId(row["gateway_id"].partition("~")[0]),
        tunnel_endpoint=row["tunnel_endpoint"],
        server_name=row["server_name"],
        version=row["version"],
        process=row["process"],
        peer_endpoint=row["peer_endpoint"],
    )
