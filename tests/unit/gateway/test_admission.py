"""Keys: who is let in, and what the others are told."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.core import admission
from gateway.core.admission import Admission, Caller, key_of
from gateway.core.errors import NotReady
from gateway.core.snapshot import Cell, Limits, Project
from mesh.kit.errors import PermissionDenied, Unauthenticated
from tests.unit.gateway.values import NOW, key, model, snapshot


def test_a_valid_key_names_its_caller() -> None:
    text, entry = key()
    shown = snapshot(keys=[entry])
    at = Admission(Cell(shown))
    caller, at_once = at.admit(text.reveal(), now=NOW)
    assert (caller.key_id, caller.organization_id, at_once) == (text.id, "org-1", shown)
    assert caller == Caller(entry, ())
    assert at.admit(text.reveal(), now=NOW)[0] is caller, "from memory"


def test_limits_are_the_keys_and_its_projects() -> None:
    text, entry = key()
    limits = Limits(requests_per_minute=5)
    entry = replace(entry, limits=limits, project_id="p-1")
    shown = replace(snapshot(keys=[entry]), projects={"p-1": Project("p-1", "org-1", limits)})
    caller, _ = Admission(Cell(shown)).admit(text.reveal(), now=NOW)
    assert [(one.id, one.what) for one in caller.subjects] == [(text.id, "key"), ("p-1", "project")]


def test_a_key_is_for_what_it_is_for() -> None:
    _, entry = key()
    anything = Caller(entry, ())
    anything.check_scope("chat")
    assert anything.may_use(model("m"))
    narrow = Caller(replace(entry, scopes=frozenset({"chat"}), allowed_models=frozenset({"nick"})), ())
    narrow.check_scope("chat")
    with pytest.raises(PermissionDenied, match="embeddings"):
        narrow.check_scope("embeddings")
    assert narrow.may_use(replace(model("m"), aliases=("nick",)))
    assert narrow.may_use(model("nick"))
    assert not narrow.may_use(model("m"))


@pytest.mark.parametrize("wrong", ["", "inv-x", "sk-123", "inv-" + "a" * 12 + "-" + "b" * 43, "x" * 9000])
def test_wrong_keys_are_refused_with_one_text(wrong: str) -> None:
    _, entry = key()
    with pytest.raises(Unauthenticated) as caught:
        Admission(Cell(snapshot(keys=[entry]))).admit(wrong, now=NOW)
    assert caught.value.reason == "invalid_api_key"
    assert str(caught.value) == "the API key is not valid"


def test_the_secret_of_another_key_does_not_open() -> None:
    (one, entry), (other, _) = key(), key()
    forged = f"inv-{one.id}-{other.secret}"
    with pytest.raises(Unauthenticated):
        Admission(Cell(snapshot(keys=[entry]))).admit(forged, now=NOW)


def test_a_key_ends_at_its_end_even_when_it_was_just_used() -> None:
    text, entry = key(expires_at=NOW + timedelta(seconds=1))
    at = Admission(Cell(snapshot(keys=[entry])))
    at.admit(text.reveal(), now=NOW)
    with pytest.raises(Unauthenticated, match="expired"):
        at.admit(text.reveal(), now=NOW + timedelta(seconds=1))


def test_a_deleted_key_is_refused_from_the_next_snapshot_on() -> None:
    text, entry = key()
    cell = Cell(snapshot(keys=[entry]))
    at = Admission(cell)
    at.admit(text.reveal(), now=NOW)
    cell.replace(snapshot())
    with pytest.raises(Unauthenticated):
        at.admit(text.reveal(), now=NOW)


def test_without_a_snapshot_nobody_can_be_known() -> None:
    with pytest.raises(NotReady):
        Admission(Cell()).admit("inv-x", now=NOW)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "KNOWN", 2)
    pairs = [key() for _ in range(5)]
    at = Admission(Cell(snapshot(keys=[entry for _, entry in pairs])))
    for text, _ in pairs:
        assert at.admit(text.reveal(), now=NOW)[0].key_id == text.id


@pytest.mark.parametrize(
    ("authorization", "api_key", "expected"),
    [
        ("Bearer k", None, "k"),
        ("bearer  k ", None, "k"),
        (None, " k", "k"),
        ("Bearer k", "other", "k"),
    ],
)
def test_a_key_comes_as_bearer_or_as_x_api_key(
    authorization: str | None, api_key: str | None, expected: str
) -> None:
    assert key_of(authorization, api_key) == expected


@pytest.mark.parametrize(
    ("authorization", "api_key"), [(None, None), (None, ""), ("Basic abc", None), ("Bearer ", "k"), ("k", None)]
)
def test_anything_else_is_no_key(authorization: str | None, api_key: str | None) -> None:
    with pytest.raises(Unauthenticated):
        key_of(authorization, api_key)
