"""Who did what. Rows are only ever added; the database refuses anything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.store.db import Db

_RECORD = "INSERT INTO audit_log (at, actor, action, object, detail) VALUES ($1, $2, $3, $4, $5)"
_LIST = "SELECT entry_id, at, actor, action, object, detail FROM audit_log ORDER BY entry_id DESC LIMIT $1"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing someone did."""

    entry_id: int
    at: datetime
    actor: str
    action: str
    object_: str
    detail: Mapping[str, Any]


async def record(
    db: Db, *, actor: str, action: str, object_: str, detail: Mapping[str, Any] | None = None, at: datetime
) -> None:
    """Add a row. It stands or falls with the transaction around it."""
    await db.execute(_RECORD, at, actor, action, object_, dict(detail or {}))


async def list_(db: Db, *, limit: int) -> list[AuditEntry]:
    """The newest rows, newest first."""
    return [
        AuditEntry(row["entry_id"], row["at"], row["actor"], row["action"], row["object"], row["detail"])
        for row in await db.fetch(_LIST, limit)
    ]
