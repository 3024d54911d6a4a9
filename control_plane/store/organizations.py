"""Questions about organizations."""

from typing import Any

import asyncpg

from control_plane.core.access import Organization
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, InUse, NotFound

_RECORD = "INSERT INTO organizations (organization_id, name, created_at) VALUES ($1, $2, $3)"
_FIND = """
SELECT organization_id, name, created_at
  FROM organizations
 WHERE organization_id = $1 OR name = $1
 ORDER BY organization_id = $1 DESC
 LIMIT 1
"""
_LIST = "SELECT organization_id, name, created_at FROM organizations ORDER BY name"
_DELETE = "DELETE FROM organizations WHERE organization_id = $1"

_OWNED = {"api_keys": "an API key", "nodes": "a node", "projects": "a project"}


async def record(db: Db, organization: Organization) -> None:
    """Keep a new organization; AlreadyExists when the name is taken."""
    try:
        await db.execute(_RECORD, organization.organization_id, organization.name, organization.created_at)
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("organization", organization.name) from exc


async def get(db: Db, id_or_name: str) -> Organization:
    """That organization, or NotFound."""
    row = await db.fetchrow(_FIND, id_or_name)
    if row is None:
        raise NotFound("organization", id_or_name)
    return _organization(row)


async def list_(db: Db) -> list[Organization]:
    """All of them, by name."""
    return [_organization(row) for row in await db.fetch(_LIST)]


async def delete(db: Db, id_or_name: str) -> Organization:
    """Remove it, and its join tokens with it; InUse while it has keys, projects or nodes."""
    found = await get(db, id_or_name)
    try:
        await db.execute(_DELETE, found.organization_id)
    except asyncpg.ForeignKeyViolationError as exc:
        raise InUse("organization", found.name, _OWNED.get(exc.table_name, exc.table_name)) from exc
    return found


def _organization(row: Any) -> Organization:
    return Organization(row["organization_id"], row["name"], row["created_at"])
