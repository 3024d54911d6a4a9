"""Models with their names, prices and adapters; how deployments are routed."""

from dataclasses import replace

import asyncpg
import pytest

from control_plane.core.model import Adapter, Engine, Model, Price, RoutingPolicy
from control_plane.store import deployments, models
from control_plane.store.db import Db, Pool, connection, transaction
from mesh.kit.errors import AlreadyExists, InUse, NotFound
from mesh.kit.ids import ModelId
from tests.store.rows import a_deployment, a_model

BASE = replace(
    a_model("base"),
    aliases=("Best", "gpt"),
    price=Price(150_000_000, 75_000_000, 2**53),
    adapters=(Adapter("base-de", "file:///lora/de"), Adapter("base-fr", "package:lora/fr")),
)


async def keep(pool: Pool, *wanted: Model) -> None:
    async with transaction(pool) as db:
        for one in wanted:
            await models.record(db, one)


async def names(db: Db) -> set[str]:
    return {row["name"] for row in await db.fetch("SELECT name FROM model_names")}


async def test_a_model_is_kept_whole_and_goes_with_all_its_names(pool: Pool) -> None:
    await keep(pool, BASE)
    async with transaction(pool) as db:
        assert await models.get(db, "base") == await models.get(db, BASE.model_id) == BASE
        assert await models.list_(db) == [BASE]
        assert await names(db) == {"base", "Best", "gpt", "base-de", "base-fr"}
        assert await models.delete(db, "base") == BASE
        assert await names(db) == set()


@pytest.mark.parametrize(
    "other",
    [
        replace(a_model("base"), model_id=ModelId("id-2")),
        a_model("gpt"),
        a_model("base-fr"),
        replace(a_model("other"), aliases=("base",)),
        replace(a_model("other"), aliases=("gpt",)),
        replace(a_model("other"), aliases=("base-de",)),
        replace(a_model("other"), adapters=(Adapter("base", "file:///x"),)),
        replace(a_model("other"), adapters=(Adapter("Best", "file:///x"),)),
        replace(a_model("other"), adapters=(Adapter("base-fr", "file:///x"),)),
    ],
    ids=lambda one: f"{one.name} {one.aliases} {[adapter.name for adapter in one.adapters]}",
)
async def test_no_name_is_given_twice_whatever_it_is_a_name_of(pool: Pool, other: Model) -> None:
    await keep(pool, BASE)
    with pytest.raises(AlreadyExists):
        await keep(pool, other)
    async with connection(pool) as db:
        assert await models.list_(db) == [BASE]


async def test_the_name_that_is_taken_is_named(pool: Pool) -> None:
    await keep(pool, BASE)
    with pytest.raises(AlreadyExists, match="model 'gpt' exists already"):
        await keep(pool, replace(a_model("other"), aliases=("fine", "gpt")))


async def test_aliases_and_price_are_replaced_and_adapters_stay(pool: Pool) -> None:
    await keep(pool, BASE, a_model("other"))
    changed = replace(BASE, aliases=("gpt", "new"), price=Price(1))
    async with transaction(pool) as db:
        await models.update(db, changed)
        assert await models.get(db, "base") == changed
    with pytest.raises(AlreadyExists, match="'other'"):
        async with transaction(pool) as db:
            await models.update(db, replace(BASE, aliases=("other",)))
    with pytest.raises(NotFound):
        async with transaction(pool) as db:
            await models.update(db, a_model("gone"))
    async with connection(pool) as db:
        assert await models.get(db, "base") == changed


async def test_a_deployed_model_stays_with_its_names(pool: Pool) -> None:
    await keep(pool, BASE)
    async with transaction(pool) as db:
        await deployments.record(db, a_deployment(BASE))
    with pytest.raises(InUse, match="a deployment"):
        async with transaction(pool) as db:
            await models.delete(db, "base")
    async with connection(pool) as db:
        assert "gpt" in await names(db)


async def test_only_an_adapter_has_a_source_of_its_own(pool: Pool) -> None:
    await keep(pool, BASE)
    async with connection(pool) as db:
        for change in ("source = NULL WHERE name = 'base-fr'", "source = 'x' WHERE name = 'gpt'"):
            with pytest.raises(asyncpg.CheckViolationError):
                await db.execute(f"UPDATE model_names SET {change}")


async def test_how_a_deployment_is_routed_is_kept_and_changed(pool: Pool) -> None:
    await keep(pool, BASE)
    made = replace(
        a_deployment(BASE),
        engine=Engine.SIMULATOR,
        policy=RoutingPolicy.ROUND_ROBIN,
        pass_through=("/v1/a", "/v1/b"),
    )
    async with transaction(pool) as db:
        await deployments.record(db, made)
        assert await deployments.get(db, "chat") == made
        kept = await deployments.update(db, made, policy=None, pass_through=())
        assert kept == replace(made, pass_through=())
        changed = await deployments.update(db, made, policy=RoutingPolicy.SESSION, pass_through=("/x",))
        assert (changed.policy, changed.pass_through) == (RoutingPolicy.SESSION, ("/x",))
        assert await deployments.list_(db) == [changed]
        await deployments.delete(db, "chat")
        with pytest.raises(NotFound):
            await deployments.update(db, made, policy=None, pass_through=())
