"""A real Postgres for tests: one embedded server and one database per worker process, emptied before each test.

A plugin of ``conftest.py``, so every test can ask for ``pool`` or ``database``.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from control_plane.store.db import Pool, open_pool
from control_plane.store.migrate import migrate
from control_plane.store.postgres import EmbeddedPostgres
from mesh.kit.clock import WallClock

# Nothing of a test must survive a power cut.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "100"}
DATABASE = "test_mesh"

# Sessions that a test left open could hold locks. As a replica the server runs no triggers, those that keep the
# audit log from being emptied among them.
_EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables
                 WHERE schemaname = 'public' AND tablename NOT IN ('schema_migrations', 'revisions')
    LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    UPDATE revisions SET snapshot_revision = 1;
END
$$;
"""


@dataclass(frozen=True, slots=True)
class Server:
    """The worker's server."""

    admin_dsn: str

    def dsn(self, name: str) -> str:
        return self.admin_dsn.replace("/mesh?", f"/{name}?")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """An embedded Postgres in a folder that its user can reach, with the schema in one database."""
    folder = Path(tempfile.mkdtemp(prefix="mesh-test-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", WallClock(), options=FAST)
    try:
        yield asyncio.run(_prepare(postgres))
    finally:
        asyncio.run(postgres.stop())
        shutil.rmtree(folder)


async def _prepare(postgres: EmbeddedPostgres) -> Server:
    await postgres.start()
    server = Server(postgres.dsn)
    await _execute(server.admin_dsn, f"CREATE DATABASE {DATABASE}")
    pool = await open_pool(server.dsn(DATABASE))
    await migrate(pool)
    await pool.close()
    return server


async def _execute(dsn: str, statements: str) -> None:
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(statements)
    finally:
        await db.close()


@pytest_asyncio.fixture
async def database(postgres_server: Server) -> str:
    """The DSN of a database with the schema and nothing else."""
    dsn = postgres_server.dsn(DATABASE)
    await _execute(dsn, _EMPTY)
    return dsn


@pytest_asyncio.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """A pool on a database with the schema and nothing else."""
    opened = await open_pool(database)
    yield opened
    opened.terminate()
