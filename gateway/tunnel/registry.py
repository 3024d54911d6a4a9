"""Which node is reachable, and how much this gateway has given each worker to do."""

import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from gateway.core import routing
from gateway.core.snapshot import Route, WorkerPhase
from mesh.link.roster import Roster
from mesh.wire.session import Session


@dataclass(slots=True)
class Registry:
    """The newest session of each node, and the outstanding requests of each worker."""

    roster: Roster[Session] = field(default_factory=Roster)
    _outstanding: dict[str, int] = field(default_factory=dict)

    def choose(
        self,
        routes: Iterable[Route],
        excluded: Container[str] = (),
        phases: Container[WorkerPhase] = routing.READY,
    ) -> Route | None:
        """The worker that should take the next request; None when none can be reached."""
        return routing.choose(
            routes,
            live=self.is_live,
            outstanding=self.outstanding,
            excluded=excluded,
            pick=secrets.randbelow,
            phases=phases,
        )

    def session(self, node_id: str) -> Session | None:
        """The node's session, if it has one."""
        return self.roster.get(node_id)

    def is_live(self, node_id: str) -> bool:
        """Whether the node has a session that takes requests."""
        session = self.roster.get(node_id)
        return session is not None and not (session.closed or session.draining)

    def outstanding(self, worker_id: str) -> int:
        """Requests this gateway has with that worker."""
        return self._outstanding.get(worker_id, 0)

    def lease(self, worker_id: str) -> "Lease":
        """Counts as one outstanding request for as long as the ``with`` block lasts."""
        return Lease(self._outstanding, worker_id)


@dataclass(slots=True)
class Lease:
    """The one place where the counters move."""

    _outstanding: dict[str, int]
    _worker_id: str

    def __enter__(self) -> None:
        self._outstanding[self._worker_id] = self._outstanding.get(self._worker_id, 0) + 1

    def __exit__(self, *_exc: object) -> None:
        left = self._outstanding[self._worker_id] - 1
        if left:
            self._outstanding[self._worker_id] = left
        else:
            del self._outstanding[self._worker_id]  # workers come and go; their counters must not stay
