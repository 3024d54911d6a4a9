"""The contract of hints, on Postgres and on the fake; and what only Postgres can show."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from control_plane.store.db import Pool, connection, transaction
from control_plane.store.wake import PROBE_S, PostgresWake, notify
from tests.contract.wake_contract import LONG_S, Hints, WakeContract, gather_topics
from tests.fakes.clock import FakeClock, settle
from tests.fakes.wake import FakeWake

_CUT = """
SELECT pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE query LIKE 'LISTEN%' AND datname = current_database()
"""


class Regret(Exception):
    """Rolls back."""


class TestFakeWake(WakeContract):
    @pytest.fixture
    async def hints(self) -> Hints:
        clock = FakeClock()
        wake = FakeWake(clock)

        async def send(*topics: str) -> None:
            wake.hint(*topics)

        async def lose_connection() -> None:
            wake.lose_connection()

        return Hints(wake, clock, send, lose_connection)


class TestPostgresWake(WakeContract):
    @pytest.fixture
    async def hints(self, database: str, pool: Pool) -> AsyncIterator[Hints]:
        clock = FakeClock()
        wake = PostgresWake(database, clock)

        async def send(*topics: str) -> None:
            async with transaction(pool) as db:
                await notify(db, *topics)

        async def lose_connection() -> None:
            async with connection(pool) as db:
                await db.execute(_CUT)
            await until_listening_again(wake, clock)

        running = asyncio.ensure_future(wake.run())
        await wake.listening.wait()
        yield Hints(wake, clock, send, lose_connection)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_a_hint_comes_only_when_its_transaction_commits(self, hints: Hints, pool: Pool) -> None:
        async def change_and_regret() -> None:
            async with transaction(pool) as db:
                await notify(db, "regretted")
                raise Regret

        with hints.wake.subscribe("") as mine:
            with pytest.raises(Regret):
                await change_and_regret()
            await hints.send("meant")
            assert await gather_topics(mine, {"meant"}) == {"meant"}

    async def test_repeats_within_a_transaction_are_one_and_no_topic_is_none(
        self, hints: Hints, pool: Pool
    ) -> None:
        async with transaction(pool) as db:
            await notify(db)
            await notify(db, "x", "x")

    async def test_the_listening_connection_is_tried_now_and_then(self, hints: Hints) -> None:
        with hints.wake.subscribe("x") as mine:
            for _ in range(3):
                await hints.clock.forward(PROBE_S)
            await hints.send("x")
            assert await gather_topics(mine, {"x"}) == {"x"}

    async def test_it_waits_for_a_database_that_is_not_there_yet(self, database: str) -> None:
        clock = FakeClock()
        later = database.replace("/test_mesh?", "/not_yet?")
        wake = PostgresWake(later, clock)
        running = asyncio.ensure_future(wake.run())
        for _ in range(3):
            await clock.forward(10)
        admin = await asyncpg.connect(database)
        await admin.execute("CREATE DATABASE not_yet")
        try:
            await until_listening_again(wake, clock)
            with wake.subscribe("x") as mine:
                db = await asyncpg.connect(later)
                await db.execute("SELECT pg_notify('mesh', 'x')")
                await db.close()
                assert await mine.wait(LONG_S) == {"x"}
        finally:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await admin.execute("DROP DATABASE not_yet WITH (FORCE)")
            await admin.close()


async def until_listening_again(wake: PostgresWake, clock: FakeClock) -> None:
    """Let the fake clock pass the back-off while the real connection comes up."""
    async with asyncio.timeout(30):
        while wake.listening.is_set():  # noqa: ASYNC110  # the loss is noticed by the event loop, not by us
            await asyncio.sleep(0.01)
        while not wake.listening.is_set():
            await clock.forward(1)
            await asyncio.sleep(0.01)
    await settle()
