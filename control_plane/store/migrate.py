"""Brings the schema up to date: numbered plain-SQL files, in two halves, each applied once.

``NNNN_pre_*.sql`` runs before new code starts, while the old code goes on working; ``NNNN_post_*.sql`` when no old
code is left. A file that was applied is never edited. A new database gets every file, in order.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import asyncpg

from control_plane.store.db import Db, Pool, connection
from mesh.kit.errors import MeshError
from mesh.kit.logs import F

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "migrations"
_FILE = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql")
_LOCK_KEY = 0x6D657368  # "mesh": one migrator at a time per database
_PATIENCE_S = 600.0  # for another migrator to finish, and for one file to apply


class Half(StrEnum):
    """When a migration may run."""

    PRE = "pre"
    POST = "post"


class BadMigration(MeshError):
    """A migration file is misnamed, was edited after it was applied, or does not apply."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    half: Half
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


_LOCK = "SELECT pg_advisory_lock($1)"
_UNLOCK = "SELECT pg_advisory_unlock($1)"
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_APPLIED = "SELECT name, checksum FROM schema_migrations"
_RECORD = "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)"


def read(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """Every migration in the folder, in the order of application."""
    found = []
    for path in folder.glob("*.sql"):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise BadMigration(f"{path.name}: must be called NNNN_pre_<words>.sql or NNNN_post_<words>.sql")
        found.append(Migration(int(match[1]), Half(match[2]), path.stem, path.read_text()))
    return tuple(sorted(found, key=lambda one: (one.number, one.half is Half.POST, one.name)))


def due(migrations: Sequence[Migration], applied: Mapping[str, str], half: Half) -> tuple[Migration, ...]:
    """What is left to apply for that half. BadMigration when an applied file was edited since."""
    for one in migrations:
        if applied.get(one.name, one.checksum) != one.checksum:
            raise BadMigration(f"{one.name}: was edited after it was applied; write a new migration instead")
    return tuple(one for one in migrations if one.name not in applied and (not applied or one.half is half))


async def migrate(pool: Pool, half: Half = Half.PRE, *, folder: Path = FOLDER) -> list[str]:
    """Apply what is due and return its names. Replicas that start together wait for each other."""
    migrations = read(folder)
    async with connection(pool) as db:
        await db.execute("SET lock_timeout = 0; SET statement_timeout = 0")
        await db.fetchval(_LOCK, _LOCK_KEY, timeout=_PATIENCE_S)
        try:
            await db.execute(_TABLE)
            applied = {row["name"]: row["checksum"] for row in await db.fetch(_APPLIED)}
            pending = due(migrations, applied, half)
            for one in pending:
                await _apply(db, one)
        finally:
            await db.fetchval(_UNLOCK, _LOCK_KEY)
            await db.execute("RESET ALL")
    return [one.name for one in pending]


async def _apply(db: Db, migration: Migration) -> None:
    """One file, whole or not at all."""
    try:
        async with db.transaction():
            await db.execute(migration.sql, timeout=_PATIENCE_S)
            await db.execute(_RECORD, migration.name, migration.checksum)
    except (asyncpg.SyntaxOrAccessError, asyncpg.IntegrityConstraintViolationError) as exc:
        raise BadMigration(f"{migration.name}: {exc}") from exc
    log.info("migration applied", extra={F.PATH: migration.name})
