"""A database that is gone, busy or restarting makes callers wait a bounded time and then say so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from control_plane.store import db as store_db
from control_plane.store.db import Pool, connection, open_pool, ping, transaction
from mesh.kit.errors import NotFound, Unavailable

_CUT_ALL = """
SELECT pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(database)
    yield opened
    await opened.close()


async def raises_unavailable(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(Unavailable) as caught:
        await call()
    return str(caught.value)


async def test_a_pool_opens_although_nobody_is_there() -> None:
    pool = await open_pool("postgresql://mesh:x@/mesh?host=/nonexistent&port=5432")
    assert "unavailable" in await raises_unavailable(lambda: ping(pool))
    await pool.close()


async def test_a_wrong_password_and_a_missing_database_are_unavailable(database: str) -> None:
    for wrong in (database.replace("mesh:", "mesh:x", 1), database.replace("/test_mesh?", "/nothing?")):
        pool = await open_pool(wrong)
        await raises_unavailable(lambda pool=pool: ping(pool))
        await pool.close()


async def test_the_pool_dials_again_after_its_connections_were_cut(pool: Pool, admin: asyncpg.Connection) -> None:
    await ping(pool)
    await admin.execute(_CUT_ALL)
    async with asyncio.timeout(30):
        while True:
            try:
                await ping(pool)
                break
            except Unavailable:
                await asyncio.sleep(0)


async def test_a_connection_cut_in_the_middle_is_unavailable(pool: Pool, admin: asyncpg.Connection) -> None:
    async def cut_off() -> None:
        async with transaction(pool) as db:
            await db.execute("SELECT 1")
            await admin.execute(_CUT_ALL)
            await db.execute("SELECT 1")

    await raises_unavailable(cut_off)
    await ping(pool)


async def test_a_busy_pool_says_so_in_time(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_db, "ACQUIRE_S", 0.05)
    pool = await open_pool(database, max_size=1)
    async with connection(pool):
        assert "unavailable" in await raises_unavailable(lambda: ping(pool))
    await ping(pool)
    await pool.close()


async def test_waiting_for_a_lock_ends_in_time(pool: Pool, admin: asyncpg.Connection) -> None:
    async def ask() -> None:
        async with transaction(pool) as db:
            await db.execute("SET LOCAL lock_timeout = '50ms'")
            await db.execute("UPDATE revisions SET snapshot_revision = 2")

    async with admin.transaction():
        await admin.execute("UPDATE revisions SET snapshot_revision = 3")
        assert "lock timeout" in await raises_unavailable(ask)
    await ask()


async def test_what_the_caller_raises_passes_through_and_rolls_back(pool: Pool) -> None:
    async def change_and_fail() -> None:
        async with transaction(pool) as db:
            await db.execute("UPDATE revisions SET snapshot_revision = 99")
            raise NotFound("thing", "x")

    with pytest.raises(NotFound):
        await change_and_fail()
    async with connection(pool) as db:
        assert await db.fetchval("SELECT snapshot_revision FROM revisions") == 1


async def test_a_read_only_database_is_unavailable(pool: Pool) -> None:
    async def write() -> None:
        async with transaction(pool) as db:
            await db.execute("SET TRANSACTION READ ONLY")
            await db.execute("UPDATE revisions SET snapshot_revision = 2")

    assert await raises_unavailable(write) == "the database is read-only"


async def test_a_mistake_of_ours_is_not_called_an_outage(pool: Pool) -> None:
    async with connection(pool) as db:
        with pytest.raises(asyncpg.UndefinedTableError):
            await db.execute("SELECT * FROM no_such_table")


async def test_a_closed_pool_is_unavailable(pool: Pool) -> None:
    await pool.close()
    await raises_unavailable(lambda: ping(pool))


async def test_a_caller_that_gives_up_leaves_the_pool_usable(database: str) -> None:
    pool = await open_pool(database, max_size=1)

    async def sleep() -> None:
        async with transaction(pool) as db:
            await db.execute("SELECT pg_sleep(30)")

    waiting = asyncio.ensure_future(sleep())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ping(pool)
    await pool.close()
