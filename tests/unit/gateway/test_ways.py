"""Through whom a node is reached: its own session, or a peer's."""

from dataclasses import dataclass
from typing import Any

from gateway.tunnel.registry import Registry
from tests.fakes.clock import FakeClock


@dataclass(slots=True, eq=False)
class Session:
    closed: bool = False
    draining: bool = False


def registry(direct: Session | None, through: Session | None) -> Registry:
    found = Registry(FakeClock())
    if direct is not None:
        own: Any = direct
        found.roster.admit("n-1", epoch=1, session=own)
    if through is not None:
        theirs: Any = through
        found.through = {"n-1": theirs}
    return found


def test_a_nodes_own_session_goes_first() -> None:
    direct, through = Session(), Session()
    found = registry(direct, through)
    assert found.session("n-1") is direct
    assert found.is_live("n-1")
    assert found.attached() == ["n-1"]


def test_a_peer_stands_in_where_there_is_none_or_it_takes_no_more() -> None:
    through = Session()
    for direct in (None, Session(closed=True), Session(draining=True)):
        found = registry(direct, through)
        assert found.session("n-1") is through
        assert found.is_live("n-1")
        assert found.attached() == [], "peers are told of own sessions only"


def test_a_peer_that_drains_or_is_gone_is_no_way() -> None:
    for through in (Session(closed=True), Session(draining=True)):
        assert not registry(None, through).is_live("n-1")


def test_a_draining_session_is_still_the_nodes_own() -> None:
    direct = Session(draining=True)
    found = registry(direct, None)
    assert found.session("n-1") is direct
    assert not found.is_live("n-1")
    assert registry(None, None).session("n-1") is None
