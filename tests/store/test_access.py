"""Organizations, API keys, join tokens and the audit log."""

from datetime import timedelta

import asyncpg
import pytest

from control_plane.core.access import ApiKey, JoinToken, Organization
from control_plane.store import api_keys, audit, join_tokens, organizations
from control_plane.store.db import Pool, connection, transaction
from mesh.kit.errors import AlreadyExists, InUse, NotFound
from mesh.kit.ids import OrganizationId
from tests.store.rows import MAC, NOW, ORG, later, make_node, make_organization, make_token

KEY = ApiKey("k1", ORG.organization_id, "laptop", NOW, None)


@pytest.fixture
async def db(pool: Pool):
    await make_organization(pool)
    async with transaction(pool) as db:
        yield db


async def test_an_organization_is_found_by_id_and_by_name(db) -> None:
    assert await organizations.get(db, "org-1") == ORG
    assert await organizations.get(db, "acme") == ORG
    with pytest.raises(NotFound, match="no organization 'nobody'"):
        await organizations.get(db, "nobody")


async def test_an_id_wins_over_a_name_of_the_same_text(db) -> None:
    trickster = Organization(OrganizationId("org-0"), "org-1", NOW)
    await organizations.record(db, trickster)
    assert await organizations.get(db, "org-1") == ORG
    assert await organizations.list_(db) == [ORG, trickster]


async def test_a_name_is_given_once(pool: Pool, db) -> None:
    with pytest.raises(AlreadyExists, match="acme"):
        await organizations.record(db, Organization(OrganizationId("org-2"), "acme", NOW))


async def test_an_organization_goes_with_its_tokens_but_not_while_it_has_keys(pool: Pool) -> None:
    await make_organization(pool)
    await make_token(pool)
    async with transaction(pool) as db:
        await api_keys.record(db, KEY, mac=MAC)
    with pytest.raises(InUse, match="an API key"):
        async with transaction(pool) as db:
            await organizations.delete(db, "acme")
    async with transaction(pool) as db:
        await api_keys.delete(db, "k1")
        assert await organizations.delete(db, "acme") == ORG
        assert await organizations.list_(db) == []
        assert await join_tokens.list_(db) == []
        with pytest.raises(NotFound):
            await organizations.delete(db, "acme")


async def test_an_organization_stays_while_it_has_nodes(pool: Pool) -> None:
    await make_organization(pool)
    await make_node(pool)
    with pytest.raises(InUse, match="a node"):
        async with transaction(pool) as db:
            await organizations.delete(db, "acme")


async def test_a_key_is_kept_listed_and_removed(db) -> None:
    brief = ApiKey("k2", ORG.organization_id, "ci", later(seconds=1), later(hours=1))
    await api_keys.record(db, KEY, mac=MAC)
    await api_keys.record(db, brief, mac=MAC)
    assert await api_keys.get(db, "k2") == brief
    assert await api_keys.list_(db) == [KEY, brief]
    assert await api_keys.delete(db, "k1") == KEY
    for missing in (api_keys.get, api_keys.delete):
        with pytest.raises(NotFound, match="no API key 'k1'"):
            await missing(db, "k1")


async def test_a_key_id_is_given_once(db) -> None:
    await api_keys.record(db, KEY, mac=MAC)
    with pytest.raises(AlreadyExists):
        await api_keys.record(db, KEY, mac=MAC)


async def test_keys_and_tokens_need_an_organization(pool: Pool) -> None:
    with pytest.raises(NotFound, match="organization"):
        async with transaction(pool) as db:
            await api_keys.record(db, KEY, mac=MAC)
    with pytest.raises(NotFound, match="organization"):
        await make_token(pool)


async def test_a_token_is_kept_listed_and_revoked_once(pool: Pool) -> None:
    await make_organization(pool)
    token = await make_token(pool)
    async with transaction(pool) as db:
        assert await join_tokens.get(db, "t1") == token
        assert await join_tokens.list_(db) == [token]
        revoked = await join_tokens.revoke(db, "t1", now=later(minutes=1))
        assert revoked == JoinToken("t1", ORG.organization_id, NOW, token.expires_at, 1, later(minutes=1))
        assert await join_tokens.revoke(db, "t1", now=later(minutes=2)) == revoked
        with pytest.raises(NotFound, match="no join token 'nope'"):
            await join_tokens.get(db, "nope")
        with pytest.raises(NotFound, match="no join token 'nope'"):
            await join_tokens.revoke(db, "nope", now=NOW)
    with pytest.raises(AlreadyExists):
        await make_token(pool)


async def test_the_database_holds_no_token_that_ends_before_it_begins(db) -> None:
    backwards = JoinToken("t9", ORG.organization_id, NOW, NOW - timedelta(seconds=1), 1)
    with pytest.raises(asyncpg.CheckViolationError):
        await join_tokens.record(db, backwards, mac=MAC)


async def test_the_audit_log_is_listed_newest_first(db) -> None:
    await audit.record(db, actor="operator/ann", action="key_created", object_="key/k1", at=NOW)
    await audit.record(
        db, actor="operator/ann", action="key_deleted", object_="key/k1", detail={"name": "x"}, at=later(seconds=1)
    )
    newest, oldest = await audit.list_(db, limit=10)
    assert (newest.action, newest.detail, newest.at) == ("key_deleted", {"name": "x"}, later(seconds=1))
    assert (oldest.actor, oldest.object_, oldest.detail) == ("operator/ann", "key/k1", {})
    assert await audit.list_(db, limit=1) == [newest]


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_the_audit_log_only_grows(pool: Pool, statement: str) -> None:
    async with connection(pool) as db:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="audit_log only grows"):
            await db.execute(statement)
