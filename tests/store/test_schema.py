"""The migrations and ``schema.sql`` say the same; migrating is safe to repeat and refuses edited files."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from control_plane.store import migrate
from control_plane.store.db import Pool, open_pool
from tests.fakes.database import Server

_CATALOG = """
SELECT 'column' AS kind, table_name || '.' || column_name AS name,
       concat_ws(' ', data_type, udt_name, is_nullable, column_default, is_identity, identity_generation) AS what
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid)
  FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, pg_get_functiondef(oid)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'rows', 'revisions', (SELECT string_agg(r::text, ';') FROM revisions AS r)
 ORDER BY 1, 2, 3
"""


async def catalog(dsn: str) -> list[tuple[str, str, str]]:
    db = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await db.fetch(_CATALOG)]
    finally:
        await db.close()


async def test_the_migrations_make_what_the_schema_file_says(database: str, postgres_server: Server) -> None:
    admin = await asyncpg.connect(postgres_server.admin_dsn)
    try:
        await admin.execute("CREATE DATABASE from_schema_file")
        whole = await asyncpg.connect(postgres_server.dsn("from_schema_file"))
        await whole.execute((migrate.FOLDER.parent / "schema.sql").read_text())
        await whole.close()
        assert await catalog(database) == await catalog(postgres_server.dsn("from_schema_file"))
    finally:
        await admin.execute("DROP DATABASE IF EXISTS from_schema_file WITH (FORCE)")
        await admin.close()


async def test_migrating_again_changes_nothing(pool: Pool) -> None:
    assert await migrate.migrate(pool) == []
    assert await migrate.migrate(pool, migrate.Half.POST) == []


async def test_the_migrations_folder_is_in_order_and_well_named() -> None:
    found = migrate.read()
    assert [one.number for one in found] == sorted(one.number for one in found)
    assert all("SET lock_timeout" in one.sql for one in found)


def write(folder: Path, **files: str) -> Path:
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(sql)
    return folder


@pytest.fixture
async def empty(postgres_server: Server) -> AsyncIterator[Pool]:
    """A pool on a database without any schema."""
    admin = await asyncpg.connect(postgres_server.admin_dsn)
    await admin.execute("CREATE DATABASE empty")
    opened = await open_pool(postgres_server.dsn("empty"))
    yield opened
    opened.terminate()
    await admin.execute("DROP DATABASE empty WITH (FORCE)")
    await admin.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, **{"0001_pre_a": "CREATE TABLE a (x int)", "0001_post_b": "CREATE TABLE b (x int)"})


async def test_a_new_database_gets_both_halves_in_order(empty: Pool, folder: Path) -> None:
    write(folder, **{"0002_pre_c": "ALTER TABLE b ADD COLUMN y int"})
    assert await migrate.migrate(empty, folder=folder) == ["0001_pre_a", "0001_post_b", "0002_pre_c"]


async def test_an_old_database_gets_the_second_half_only_when_asked(empty: Pool, folder: Path) -> None:
    await migrate.migrate(empty, folder=folder)
    write(folder, **{"0002_pre_c": "CREATE TABLE c (x int)", "0002_post_d": "DROP TABLE a"})
    assert await migrate.migrate(empty, folder=folder) == ["0002_pre_c"]
    assert await migrate.migrate(empty, folder=folder) == []
    assert await migrate.migrate(empty, migrate.Half.POST, folder=folder) == ["0002_post_d"]


async def test_replicas_that_start_together_apply_each_file_once(empty: Pool, folder: Path) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(migrate.migrate(empty, folder=folder)) for _ in range(5)]
    assert sorted(len(one.result()) for one in calls) == [0, 0, 0, 0, 2]


async def test_a_file_that_fails_leaves_nothing_of_itself(empty: Pool, folder: Path) -> None:
    await migrate.migrate(empty, folder=folder)
    write(folder, **{"0002_pre_c": "CREATE TABLE c (x int); CREATE TABLE a (x int)"})
    with pytest.raises(migrate.BadMigration, match='0002_pre_c: relation "a" already exists'):
        await migrate.migrate(empty, folder=folder)
    write(folder, **{"0002_pre_c": "CREATE TABLE c (x int)"})
    assert await migrate.migrate(empty, folder=folder) == ["0002_pre_c"]


async def test_an_applied_file_must_not_be_edited(empty: Pool, folder: Path) -> None:
    await migrate.migrate(empty, folder=folder)
    write(folder, **{"0001_pre_a": "CREATE TABLE a (x text)"})
    with pytest.raises(migrate.BadMigration, match="0001_pre_a: was edited"):
        await migrate.migrate(empty, folder=folder)


async def test_a_database_ahead_of_the_code_is_left_alone(empty: Pool, folder: Path) -> None:
    await migrate.migrate(empty, folder=folder)
    (folder / "0001_post_b.sql").unlink()
    assert await migrate.migrate(empty, folder=folder) == []


@pytest.mark.parametrize("name", ["1_pre_a", "0001_mid_a", "0001_pre_", "0001_pre_A"])
def test_a_misnamed_file_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(migrate.BadMigration, match="must be called"):
        migrate.read(write(tmp_path, **{name: ""}))


async def test_models_of_an_old_database_keep_their_names_to_themselves(empty: Pool, tmp_path: Path) -> None:
    old = {path.stem: path.read_text() for path in sorted(migrate.FOLDER.glob("000[12]_*.sql"))}
    await migrate.migrate(empty, folder=write(tmp_path, **old))
    insert = (
        "INSERT INTO models"
        " (model_id, name, source, context_length, memory_bytes, vram_bytes, gpu_count, created_at)"
        " VALUES ('m1', 'small', 'file:///m', 4096, 1, 0, 0, now())"
    )
    async with empty.acquire() as db:
        await db.execute(insert)
    assert (await migrate.migrate(empty))[0].startswith("0003_pre_")
    async with empty.acquire() as db:
        assert await db.fetchrow("SELECT name, model_id, kind FROM model_names") == ("small", "m1", "name")
