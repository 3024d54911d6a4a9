"""Questions about models."""

from typing import Any

import asyncpg

from control_plane.core.model import Model
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, InUse, NotFound

_RECORD = """
INSERT INTO models (model_id, name, source, context_length, memory_bytes, vram_bytes, gpu_count, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_FIND = """
SELECT model_id, name, source, context_length, memory_bytes, vram_bytes, gpu_count, created_at
  FROM models
 WHERE model_id = $1 OR name = $1
 ORDER BY model_id = $1 DESC
 LIMIT 1
"""
_LIST = """
SELECT model_id, name, source, context_length, memory_bytes, vram_bytes, gpu_count, created_at
  FROM models
 ORDER BY name
"""
_DELETE = "DELETE FROM models WHERE model_id = $1"


async def record(db: Db, model: Model) -> None:
    """Keep a new model; AlreadyExists when the name is taken."""
    try:
        await db.execute(
            _RECORD,
            model.model_id,
            model.name,
            model.source,
            model.context_length,
            model.memory_bytes,
            model.vram_bytes,
            model.gpu_count,
            model.created_at,
        )
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("model", model.name) from exc


async def get(db: Db, id_or_name: str) -> Model:
    """That model, or NotFound."""
    row = await db.fetchrow(_FIND, id_or_name)
    if row is None:
        raise NotFound("model", id_or_name)
    return _model(row)


async def list_(db: Db) -> list[Model]:
    """All of them, by name."""
    return [_model(row) for row in await db.fetch(_LIST)]


async def delete(db: Db, id_or_name: str) -> Model:
    """Remove it; InUse while it is deployed."""
    found = await get(db, id_or_name)
    try:
        await db.execute(_DELETE, found.model_id)
    except asyncpg.ForeignKeyViolationError as exc:
        raise InUse("model", found.name, "a deployment") from exc
    return found


def _model(row: Any) -> Model:
    return Model(
        model_id=row["model_id"],
        name=row["name"],
        source=row["source"],
        context_length=row["context_length"],
        memory_bytes=row["memory_bytes"],
        vram_bytes=row["vram_bytes"],
        gpu_count=row["gpu_count"],
        created_at=row["created_at"],
    )
