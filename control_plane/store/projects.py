"""Questions about projects. Gateways hear of every change."""

from dataclasses import replace
from typing import Any

import asyncpg

from control_plane.core.limits import Limits
from control_plane.core.projects import Project
from control_plane.store import limits
from control_plane.store.changes import snapshot_changed
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, InUse, NotFound
from mesh.kit.ids import OrganizationId

_ALL = f"project_id, organization_id, name, created_at, {limits.COLUMNS}"
_RECORD = f"""
INSERT INTO projects ({_ALL}) VALUES ($1, $2, $3, $4, {limits.places(5)})
"""  # noqa: S608 - names of columns
_FIND = """
SELECT p.*
  FROM projects AS p JOIN organizations AS o USING (organization_id)
 WHERE p.project_id = $1 OR (p.name = $3 AND (p.organization_id = $2 OR o.name = $2))
 ORDER BY p.project_id = $1 DESC, p.organization_id = $2 DESC
 LIMIT 1
"""
_FIND_IN = """
SELECT *
  FROM projects
 WHERE organization_id = $1 AND (project_id = $2 OR name = $2)
 ORDER BY project_id = $2 DESC
 LIMIT 1
"""
_LIST = "SELECT * FROM projects ORDER BY organization_id, name"
_UPDATE = f"""
UPDATE projects SET ({limits.COLUMNS}) = ROW ({limits.places(2)}) WHERE project_id = $1
"""  # noqa: S608 - names of columns
_DELETE = "DELETE FROM projects WHERE project_id = $1"


async def record(db: Db, project: Project) -> None:
    """Keep a new project. AlreadyExists when its organization has one of that name, NotFound when that is gone."""
    try:
        await db.execute(
            _RECORD,
            project.project_id,
            project.organization_id,
            project.name,
            project.created_at,
            *limits.values(project.limits),
        )
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("project", project.name) from exc
    except asyncpg.ForeignKeyViolationError as exc:
        raise NotFound("organization", project.organization_id) from exc
    await snapshot_changed(db)


async def get(db: Db, wanted: str) -> Project:
    """That project, by its id or as "<organization>/<name>"; or NotFound."""
    owner, _, name = wanted.partition("/")
    row = await db.fetchrow(_FIND, wanted, owner, name)
    if row is None:
        raise NotFound("project", wanted)
    return _project(row)


async def get_of(db: Db, organization_id: OrganizationId, id_or_name: str) -> Project:
    """That project of that organization, or NotFound."""
    row = await db.fetchrow(_FIND_IN, organization_id, id_or_name)
    if row is None:
        raise NotFound("project", id_or_name)
    return _project(row)


async def list_(db: Db) -> list[Project]:
    """All of them, by organization and name."""
    return [_project(row) for row in await db.fetch(_LIST)]


async def update(db: Db, wanted: str, to: Limits) -> Project:
    """Those are its limits from now on, and no others; NotFound when there is none."""
    found = await get(db, wanted)
    if await db.execute(_UPDATE, found.project_id, *limits.values(to)) != "UPDATE 1":
        raise NotFound("project", wanted)  # it went in between
    await snapshot_changed(db)
    return replace(found, limits=to)


async def delete(db: Db, wanted: str) -> Project:
    """Remove it; InUse while it has keys. What it used stays recorded."""
    found = await get(db, wanted)
    try:
        await db.execute(_DELETE, found.project_id)
    except asyncpg.ForeignKeyViolationError as exc:
        raise InUse("project", found.name, "an API key") from exc
    await snapshot_changed(db)
    return found


def _project(row: Any) -> Project:
    return Project(
        project_id=row["project_id"],
        organization_id=row["organization_id"],
        name=row["name"],
        created_at=row["created_at"],
        limits=limits.limits_of(row),
    )
