"""Who is connected: the newest session of each node, and only that one.

Rule 1: a session with a lower epoch than the hub has seen from that node is refused, even if nothing of the
node is connected now. Rule 2: an equal or higher one replaces what is there; the caller ends the old session.
Rule 3: an old session's clean-up removes that session or nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Admitted:
    """The node's only session."""


@dataclass(frozen=True, slots=True)
class Replaced(Generic[S]):
    """It took the place of an older session, which its owner must end now."""

    old: S


@dataclass(frozen=True, slots=True)
class Refused:
    """The hub has seen ``newest`` from that node."""

    newest: int


class Roster(Generic[S]):
    """Sessions by node. Sessions are compared by identity."""

    def __init__(self) -> None:
        self._sessions: dict[str, S] = {}
        self._newest: dict[str, int] = {}

    def admit(self, node_id: str, *, epoch: int, session: S) -> Admitted | Replaced[S] | Refused:
        """Make this the node's session, unless the hub has seen a higher epoch."""
        newest = self._newest.get(node_id, 0)
        if epoch < newest:
            return Refused(newest)
        old = self._sessions.get(node_id)
        self._newest[node_id] = epoch
        self._sessions[node_id] = session
        return Admitted() if old is None or old is session else Replaced(old)

    def release(self, node_id: str, session: S) -> bool:
        """Remove the node's session if it is this very one; False if it is not."""
        if self._sessions.get(node_id) is not session:
            return False
        del self._sessions[node_id]
        return True

    def forget(self, node_id: str) -> S | None:
        """Drop all that is known of a node that left the fleet; returns its session, to be ended."""
        self._newest.pop(node_id, None)
        return self._sessions.pop(node_id, None)

    def get(self, node_id: str) -> S | None:
        """The node's session, if it has one."""
        return self._sessions.get(node_id)

    def epoch(self, node_id: str) -> int:
        """The highest epoch seen from that node; 0 before the first."""
        return self._newest.get(node_id, 0)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[tuple[str, S]]:
        """Every node that is connected, with its session, as of now."""
        return iter(list(self._sessions.items()))
