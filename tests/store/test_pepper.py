"""A pepper that is not the database's own is noticed."""

import asyncio
import secrets

from control_plane.store import pepper
from control_plane.store.db import Pool, connection, transaction


async def agrees(pool: Pool, ours: bytes) -> bool:
    async with transaction(pool) as db:
        return await pepper.agrees(db, ours)


async def test_the_first_pepper_becomes_the_databases_own(pool: Pool) -> None:
    ours, another = secrets.token_bytes(32), secrets.token_bytes(32)
    assert [await agrees(pool, one) for one in (ours, ours, another, ours)] == [True, True, False, True]


async def test_of_two_replicas_that_start_together_one_is_right(pool: Pool) -> None:
    assert sorted(await asyncio.gather(*(agrees(pool, secrets.token_bytes(32)) for _ in range(2)))) == [
        False,
        True,
    ]


async def test_the_pepper_itself_is_not_kept(pool: Pool) -> None:
    ours = secrets.token_bytes(32)
    await agrees(pool, ours)
    async with connection(pool) as db:
        assert await db.fetchval("SELECT fingerprint FROM pepper") != ours
