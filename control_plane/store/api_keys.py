"""Questions about the keys of the OpenAI endpoint. Gateways hear of every change."""

from typing import Any

import asyncpg

from control_plane.core.access import ApiKey
from control_plane.core.limits import KeyPolicy, Priority
from control_plane.store import limits
from control_plane.store.changes import snapshot_changed
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, NotFound

POLICY = f"scopes, allowed_models, weight, priority, {limits.COLUMNS}"  # columns

_ALL = f"key_id, organization_id, name, created_at, expires_at, project_id, {POLICY}"
_RECORD = f"""
INSERT INTO api_keys (key_id, organization_id, name, secret_mac, created_at, expires_at, project_id, {POLICY})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, {limits.places(12)})
"""  # noqa: S608 - names of columns
_FIND = f"SELECT {_ALL} FROM api_keys WHERE key_id = $1"  # noqa: S608 - names of columns
_LIST = f"SELECT {_ALL} FROM api_keys ORDER BY created_at, key_id"  # noqa: S608 - names of columns
_UPDATE = f"""
UPDATE api_keys SET ({POLICY}) = ROW ($2, $3, $4, $5, {limits.places(6)}) WHERE key_id = $1 RETURNING {_ALL}
"""  # noqa: S608 - names of columns
_DELETE = f"DELETE FROM api_keys WHERE key_id = $1 RETURNING {_ALL}"  # noqa: S608 - names of columns


async def record(db: Db, key: ApiKey, *, mac: bytes) -> None:
    """Keep a new key with the HMAC of its secret; NotFound when its organization or its project is gone."""
    try:
        await db.execute(
            _RECORD,
            key.key_id,
            key.organization_id,
            key.name,
            mac,
            key.created_at,
            key.expires_at,
            key.project_id,
            *_values(key.policy),
        )
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("API key", key.key_id) from exc
    except asyncpg.ForeignKeyViolationError as exc:
        if "project" in (exc.constraint_name or ""):
            raise NotFound("project", str(key.project_id)) from exc
        raise NotFound("organization", key.organization_id) from exc
    await snapshot_changed(db)


async def get(db: Db, key_id: str) -> ApiKey:
    """That key, or NotFound."""
    return _found(await db.fetchrow(_FIND, key_id), key_id)


async def list_(db: Db) -> list[ApiKey]:
    """All of them, oldest first."""
    return [_api_key(row) for row in await db.fetch(_LIST)]


async def update(db: Db, key_id: str, policy: KeyPolicy) -> ApiKey:
    """It may do that from now on, and nothing else; NotFound when there is none."""
    changed = _found(await db.fetchrow(_UPDATE, key_id, *_values(policy)), key_id)
    await snapshot_changed(db)
    return changed


async def delete(db: Db, key_id: str) -> ApiKey:
    """Remove it, or NotFound. What it used stays recorded."""
    gone = _found(await db.fetchrow(_DELETE, key_id), key_id)
    await snapshot_changed(db)
    return gone


def policy_of(row: Any) -> KeyPolicy:
    """What the key in a row may do."""
    return KeyPolicy(
        scopes=tuple(row["scopes"]),
        allowed_models=tuple(row["allowed_models"]),
        limits=limits.limits_of(row),
        weight=row["weight"],
        priority=Priority(row["priority"]),
    )


def _values(policy: KeyPolicy) -> list[object]:
    return [
        policy.scopes,
        policy.allowed_models,
        policy.weight,
        policy.priority,
        *limits.values(policy.limits),
    ]


def _found(row: Any, key_id: str) -> ApiKey:
    if row is None:
        raise NotFound("API key", key_id)
    return _api_key(row)


def _api_key(row: Any) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        organization_id=row["organization_id"],
        name=row["name"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        project_id=row["project_id"],
        policy=policy_of(row),
    )
