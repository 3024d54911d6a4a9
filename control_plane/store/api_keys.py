"""Questions about the keys of the OpenAI endpoint. Gateways hear of every change."""

from typing import Any

import asyncpg

from control_plane.core.access import ApiKey
from control_plane.store.changes import snapshot_changed
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, NotFound

_RECORD = """
INSERT INTO api_keys (key_id, organization_id, name, secret_mac, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""
_FIND = "SELECT key_id, organization_id, name, created_at, expires_at FROM api_keys WHERE key_id = $1"
_LIST = "SELECT key_id, organization_id, name, created_at, expires_at FROM api_keys ORDER BY created_at, key_id"
_DELETE = """
DELETE FROM api_keys WHERE key_id = $1
RETURNING key_id, organization_id, name, created_at, expires_at
"""


async def record(db: Db, key: ApiKey, *, mac: bytes) -> None:
    """Keep a new key with the HMAC of its secret; NotFound when its organization is gone."""
    try:
        await db.execute(_RECORD, key.key_id, key.organization_id, key.name, mac, key.created_at, key.expires_at)
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("API key", key.key_id) from exc
    except asyncpg.ForeignKeyViolationError as exc:
        raise NotFound("organization", key.organization_id) from exc
    await snapshot_changed(db)


async def get(db: Db, key_id: str) -> ApiKey:
    """That key, or NotFound."""
    row = await db.fetchrow(_FIND, key_id)
    if row is None:
        raise NotFound("API key", key_id)
    return _api_key(row)


async def list_(db: Db) -> list[ApiKey]:
    """All of them, oldest first."""
    return [_api_key(row) for row in await db.fetch(_LIST)]


async def delete(db: Db, key_id: str) -> ApiKey:
    """Remove it, or NotFound. What it used stays recorded."""
    row = await db.fetchrow(_DELETE, key_id)
    if row is None:
        raise NotFound("API key", key_id)
    await snapshot_changed(db)
    return _api_key(row)


def _api_key(row: Any) -> ApiKey:
    return ApiKey(row["key_id"], row["organization_id"], row["name"], row["created_at"], row["expires_at"])
