"""Questions about join tokens. Spending one is part of joining (``joining.py``)."""

from datetime import datetime
from typing import Any

import asyncpg

from control_plane.core.access import JoinToken
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, NotFound

_RECORD = """
INSERT INTO join_tokens (token_id, organization_id, secret_mac, created_at, expires_at, uses_left)
VALUES ($1, $2, $3, $4, $5, $6)
"""
_FIND = """
SELECT token_id, organization_id, created_at, expires_at, uses_left, revoked_at
  FROM join_tokens
 WHERE token_id = $1
"""
_LIST = """
SELECT token_id, organization_id, created_at, expires_at, uses_left, revoked_at
  FROM join_tokens
 ORDER BY created_at, token_id
"""
_REVOKE = """
UPDATE join_tokens
   SET revoked_at = COALESCE(revoked_at, $2)
 WHERE token_id = $1
RETURNING token_id, organization_id, created_at, expires_at, uses_left, revoked_at
"""


async def record(db: Db, token: JoinToken, *, mac: bytes) -> None:
    """Keep a new token with the HMAC of its secret; NotFound when its organization is gone."""
    try:
        await db.execute(
            _RECORD,
            token.token_id,
            token.organization_id,
            mac,
            token.created_at,
            token.expires_at,
            token.uses_left,
        )
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("join token", token.token_id) from exc
    except asyncpg.ForeignKeyViolationError as exc:
        raise NotFound("organization", token.organization_id) from exc


async def get(db: Db, token_id: str) -> JoinToken:
    """That token, or NotFound."""
    row = await db.fetchrow(_FIND, token_id)
    if row is None:
        raise NotFound("join token", token_id)
    return _join_token(row)


async def list_(db: Db) -> list[JoinToken]:
    """All of them, oldest first."""
    return [_join_token(row) for row in await db.fetch(_LIST)]


async def revoke(db: Db, token_id: str, *, now: datetime) -> JoinToken:
    """It makes no more nodes; those it made stay. NotFound when there is no such token."""
    row = await db.fetchrow(_REVOKE, token_id, now)
    if row is None:
        raise NotFound("join token", token_id)
    return _join_token(row)


def _join_token(row: Any) -> JoinToken:
    return JoinToken(
        row["token_id"],
        row["organization_id"],
        row["created_at"],
        row["expires_at"],
        row["uses_left"],
        row["revoked_at"],
    )
