"""Models and who may use them; the cell that holds the newest snapshot."""

from gateway.core.snapshot import Cell, Snapshot
from tests.unit.gateway.values import model, snapshot


def test_a_model_without_an_organization_is_everyones() -> None:
    shown = snapshot(models=[model("open"), model("private", organization="org-1")])
    assert shown.model_for("org-2", "open") is not None
    assert shown.model_for("org-1", "private") is not None
    assert shown.model_for("org-2", "private") is None
    assert shown.model_for("org-2", "absent") is None


def test_the_list_is_sorted_and_holds_only_what_may_be_used() -> None:
    shown = snapshot(models=[model("b"), model("a"), model("private", organization="org-1")])
    assert [one.name for one in shown.models_for("org-2")] == ["a", "b"]
    assert [one.name for one in shown.models_for("org-1")] == ["a", "b", "private"]


def test_a_snapshot_is_swapped_whole_and_told_to_those_who_watch() -> None:
    cell, told = Cell(), list[Snapshot]()
    cell.watchers.append(told.append)
    first, second = snapshot(revision=1), snapshot(revision=2)
    cell.replace(first)
    cell.replace(second)
    assert cell.current is second
    assert told == [first, second]


def test_secrets_do_not_show_in_a_repr() -> None:
    assert "pppp" not in repr(snapshot())


def test_the_cell_knows_models_once_it_has_a_snapshot() -> None:
    cell = Cell()
    assert cell.model("m") is None
    cell.replace(snapshot(models=[model("m")]))
    assert cell.model("m") == model("m")
    assert cell.model("x") is None
