"""Questions about models. Of all their names, aliases and adapters the database holds each but once."""

from typing import Any

import asyncpg

from control_plane.core.model import Adapter, Model, Price
from control_plane.store.changes import snapshot_changed
from control_plane.store.db import Db
from mesh.kit.errors import AlreadyExists, InUse, NotFound

_RECORD = """
INSERT INTO models (
       model_id, name, source, context_length, memory_bytes, vram_bytes, gpu_count, created_at,
       price_prompt, price_cached, price_completion)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_NAME = "INSERT INTO model_names (name, model_id, kind, source) VALUES ($1, $2, $3, $4)"
_FORGET_ALIASES = "DELETE FROM model_names WHERE model_id = $1 AND kind = 'alias'"
_ALL = """
SELECT m.*,
       ARRAY(SELECT n.name FROM model_names AS n
              WHERE n.model_id = m.model_id AND n.kind = 'alias' ORDER BY n.name COLLATE "C") AS aliases,
       ARRAY(SELECT ARRAY[n.name, n.source] FROM model_names AS n
              WHERE n.model_id = m.model_id AND n.kind = 'adapter' ORDER BY n.name COLLATE "C") AS adapters
  FROM models AS m
"""
_FIND = f"{_ALL} WHERE m.model_id = $1 OR m.name = $1 ORDER BY m.model_id = $1 DESC LIMIT 1"
_LIST = f"{_ALL} ORDER BY m.name"
_UPDATE = "UPDATE models SET price_prompt = $2, price_cached = $3, price_completion = $4 WHERE model_id = $1"
_DELETE = "DELETE FROM models WHERE model_id = $1"


async def record(db: Db, model: Model) -> None:
    """Keep a new model; AlreadyExists when one of its names is taken."""
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
            *_price(model.price),
        )
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("model", model.name) from exc
    await _claim(db, model)
    for one in model.adapters:
        await _name(db, one.name, model, "adapter", one.source)


async def get(db: Db, id_or_name: str) -> Model:
    """That model, or NotFound."""
    row = await db.fetchrow(_FIND, id_or_name)
    if row is None:
        raise NotFound("model", id_or_name)
    return _model(row)


async def list_(db: Db) -> list[Model]:
    """All of them, by name."""
    return [_model(row) for row in await db.fetch(_LIST)]


async def update(db: Db, model: Model) -> None:
    """Its aliases and its price are those from now on. NotFound when it is gone, AlreadyExists as ``record``."""
    # The row first: whoever changes it at the same time waits here.
    if await db.execute(_UPDATE, model.model_id, *_price(model.price)) != "UPDATE 1":
        raise NotFound("model", model.name)
    await db.execute(_FORGET_ALIASES, model.model_id)
    await _claim(db, model)
    await snapshot_changed(db)


async def delete(db: Db, id_or_name: str) -> Model:
    """Remove it; InUse while it is deployed."""
    found = await get(db, id_or_name)
    try:
        await db.execute(_DELETE, found.model_id)
    except asyncpg.ForeignKeyViolationError as exc:
        raise InUse("model", found.name, "a deployment") from exc
    return found


def adapters_of(row: Any) -> tuple[Adapter, ...]:
    """The adapters in a row that has name and source of each."""
    return tuple(Adapter(name, source) for name, source in row["adapters"])


async def _claim(db: Db, model: Model) -> None:
    for alias in model.aliases:
        await _name(db, alias, model, "alias", None)


async def _name(db: Db, name: str, model: Model, kind: str, source: str | None) -> None:
    try:
        await db.execute(_NAME, name, model.model_id, kind, source)
    except asyncpg.UniqueViolationError as exc:
        raise AlreadyExists("model", name) from exc


def _price(price: Price) -> tuple[int, int, int]:
    return price.prompt, price.cached, price.completion


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
        aliases=tuple(row["aliases"]),
        price=Price(row["price_prompt"], row["price_cached"], row["price_completion"]),
        adapters=adapters_of(row),
    )
