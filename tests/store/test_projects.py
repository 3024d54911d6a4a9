"""Projects, what keys may do, and that the database lets no key into another organization's project."""

import asyncpg
import pytest

from control_plane.core.access import ApiKey, Organization
from control_plane.core.limits import KeyPolicy, Limits, Priority
from control_plane.core.projects import Project
from control_plane.store import api_keys, organizations, projects
from control_plane.store.db import Pool, transaction
from mesh.kit.errors import AlreadyExists, InUse, NotFound
from mesh.kit.ids import OrganizationId
from tests.store.rows import MAC, NOW, ORG, make_organization

OTHER = Organization(OrganizationId("org-2"), "other", NOW)
LIMITS = Limits(1, 2, 3, 4, 5, 6, 2**60)
APPS = Project("p-apps", ORG.organization_id, "apps", NOW, LIMITS)
POLICY = KeyPolicy(("chat", "models"), ("small", "base-fr"), LIMITS, 7, Priority.HIGH)


@pytest.fixture
async def db(pool: Pool):
    await make_organization(pool)
    async with transaction(pool) as db:
        await organizations.record(db, OTHER)
        yield db


async def test_a_project_is_found_by_id_and_by_owner_and_name(db) -> None:
    await projects.record(db, APPS)
    for wanted in ("p-apps", "acme/apps", "org-1/apps"):
        assert await projects.get(db, wanted) == APPS
    for wanted in ("apps", "other/apps", "acme/", "/apps", "p-nope"):
        with pytest.raises(NotFound, match="no project"):
            await projects.get(db, wanted)
    for wanted in ("p-apps", "apps"):
        assert await projects.get_of(db, ORG.organization_id, wanted) == APPS
        with pytest.raises(NotFound, match="no project"):
            await projects.get_of(db, OTHER.organization_id, wanted)


async def test_a_name_is_given_once_within_an_organization(pool: Pool) -> None:
    await make_organization(pool)
    theirs = Project("p-2", OTHER.organization_id, "apps", NOW)
    async with transaction(pool) as db:
        await organizations.record(db, OTHER)
        await projects.record(db, APPS)
        await projects.record(db, theirs)
        assert await projects.list_(db) == [APPS, theirs]
    with pytest.raises(AlreadyExists, match="apps"):
        async with transaction(pool) as db:
            await projects.record(db, Project("p-3", ORG.organization_id, "apps", NOW))
    with pytest.raises(NotFound, match="organization"):
        async with transaction(pool) as db:
            await projects.record(db, Project("p-4", OrganizationId("nobody"), "apps", NOW))


async def test_limits_are_replaced_as_a_whole(db) -> None:
    await projects.record(db, APPS)
    changed = await projects.update(db, "acme/apps", Limits(tokens_per_day=0))
    assert changed.limits == Limits(tokens_per_day=0)
    assert await projects.get(db, "p-apps") == changed
    with pytest.raises(NotFound):
        await projects.update(db, "nope", LIMITS)


async def test_a_project_stays_while_it_has_keys_and_its_organization_stays_with_it(pool: Pool) -> None:
    await make_organization(pool)
    key = ApiKey("k1", ORG.organization_id, "ci", NOW, None, APPS.project_id)
    async with transaction(pool) as db:
        await projects.record(db, APPS)
        await api_keys.record(db, key, mac=MAC)
    with pytest.raises(InUse, match="an API key"):
        async with transaction(pool) as db:
            await projects.delete(db, "acme/apps")
    async with transaction(pool) as db:
        await api_keys.delete(db, "k1")
    with pytest.raises(InUse, match="a project"):
        async with transaction(pool) as db:
            await organizations.delete(db, "acme")
    async with transaction(pool) as db:
        assert await projects.delete(db, "p-apps") == APPS
        with pytest.raises(NotFound):
            await projects.delete(db, "p-apps")
        await organizations.delete(db, "acme")


async def test_a_key_is_of_no_project_of_another_organization(pool: Pool) -> None:
    await make_organization(pool)
    async with transaction(pool) as db:
        await organizations.record(db, OTHER)
        await projects.record(db, APPS)
    with pytest.raises(NotFound, match="project"):
        async with transaction(pool) as db:
            await api_keys.record(
                db, ApiKey("k1", OTHER.organization_id, "ci", NOW, None, APPS.project_id), mac=MAC
            )


async def test_what_a_key_may_do_is_kept_and_replaced_as_a_whole(db) -> None:
    await projects.record(db, APPS)
    key = ApiKey("k1", ORG.organization_id, "ci", NOW, None, APPS.project_id, POLICY)
    await api_keys.record(db, key, mac=MAC)
    assert await api_keys.get(db, "k1") == key
    changed = await api_keys.update(db, "k1", KeyPolicy())
    assert changed == ApiKey("k1", ORG.organization_id, "ci", NOW, None, APPS.project_id)
    assert await api_keys.list_(db) == [changed]
    with pytest.raises(NotFound, match="no API key 'nope'"):
        await api_keys.update(db, "nope", POLICY)


@pytest.mark.parametrize(
    "change",
    [
        "weight = 0",
        "weight = 1001",
        "priority = 'top'",
        "tokens_per_day = -1",
        "money_per_month = -1",
        "allowed_models = array_fill('m'::text, ARRAY[201])",
    ],
)
async def test_the_database_holds_no_policy_beyond_its_bounds(db, change: str) -> None:
    await api_keys.record(db, ApiKey("k1", ORG.organization_id, "ci", NOW), mac=MAC)
    with pytest.raises(asyncpg.CheckViolationError):
        await db.execute(f"UPDATE api_keys SET {change}")
