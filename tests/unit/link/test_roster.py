"""Roster: the newest session of each node, whatever order things happen in (model M2)."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from mesh.link.roster import Admitted, Refused, Replaced, Roster


class Session:
    """Compared by identity, like a real one."""


def test_the_first_session_is_admitted_and_found() -> None:
    roster, session = Roster[Session](), Session()
    assert roster.admit("n", epoch=3, session=session) == Admitted()
    assert roster.get("n") is session
    assert list(roster) == [("n", session)]
    assert len(roster) == 1
    assert roster.epoch("n") == 3


def test_a_newer_session_replaces_the_older_which_can_no_longer_remove_it() -> None:
    roster, old, new = Roster[Session](), Session(), Session()
    roster.admit("n", epoch=3, session=old)
    assert roster.admit("n", epoch=4, session=new) == Replaced(old)
    assert not roster.release("n", old)
    assert roster.get("n") is new
    assert roster.release("n", new)
    assert roster.get("n") is None


def test_an_equal_epoch_replaces_too() -> None:
    roster, old, new = Roster[Session](), Session(), Session()
    roster.admit("n", epoch=3, session=old)
    assert roster.admit("n", epoch=3, session=new) == Replaced(old)


def test_the_same_session_twice_replaces_nothing() -> None:
    roster, session = Roster[Session](), Session()
    roster.admit("n", epoch=3, session=session)
    assert roster.admit("n", epoch=3, session=session) == Admitted()


def test_a_lower_epoch_is_refused_even_when_nobody_is_connected() -> None:
    roster, session = Roster[Session](), Session()
    roster.admit("n", epoch=3, session=session)
    roster.release("n", session)
    assert roster.admit("n", epoch=2, session=Session()) == Refused(3)
    assert roster.get("n") is None


def test_a_forgotten_node_starts_afresh() -> None:
    roster, session = Roster[Session](), Session()
    roster.admit("n", epoch=3, session=session)
    assert roster.forget("n") is session
    assert roster.forget("n") is None
    assert roster.admit("n", epoch=1, session=Session()) == Admitted()


NODES = st.sampled_from(["a", "b"])


class RosterMachine(RuleBasedStateMachine):
    """Against a model: what each node's newest session must be."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster[Session]()
        self.expected: dict[str, Session] = {}
        self.newest: dict[str, int] = {}

    @rule(target=sessions, node=NODES, epoch=st.integers(0, 5))
    def connect(self, node: str, epoch: int) -> tuple[str, Session]:
        session = Session()
        outcome = self.roster.admit(node, epoch=epoch, session=session)
        old = self.expected.get(node)
        if epoch < self.newest.get(node, 0):
            assert outcome == Refused(self.newest[node])
        else:
            assert outcome == (Admitted() if old is None else Replaced(old))
            self.newest[node] = epoch
            self.expected[node] = session
        return node, session

    @rule(known=sessions)
    def clean_up(self, known: tuple[str, Session]) -> None:
        node, session = known
        assert self.roster.release(node, session) == (self.expected.get(node) is session)
        if self.expected.get(node) is session:
            del self.expected[node]

    @invariant()
    def one_session_per_node_and_it_is_the_newest(self) -> None:
        assert dict(self.roster) == self.expected
        assert len(self.roster) == len(self.expected)
        for node in ("a", "b"):
            assert self.roster.get(node) is self.expected.get(node)
            assert self.roster.epoch(node) == self.newest.get(node, 0)


TestRosterMachine = RosterMachine.TestCase
