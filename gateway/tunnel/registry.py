"""Which node is reachable, how much each worker has to do, and who takes the next request."""

import secrets
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.core import routing
from gateway.core.affinity import PrefixMemory
from gateway.core.breaker import Breaker
from gateway.core.recorder import Recorder
from gateway.core.reports import WorkerReport
from gateway.core.routing import Choice, Load
from gateway.core.snapshot import Model, Route, Snapshot, WorkerPhase
from mesh.kit.clock import Clock
from mesh.link.roster import Roster
from mesh.routing.values import Ask
from mesh.wire.session import Session

REMEMBERED: Final = 20_000  # conversations and sessions whose worker is known; 3 MiB
RECORDED: Final = 1_000  # decisions in the flight recorder
UNBOUNDED: Final = 1 << 30  # room where nobody is: the request is to be told so, and not to wait
_NO_DRAW: Final = (0, 0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What of a request matters for who takes it: 64-bit hashes."""

    request_id: str
    prefix: int | None = None
    session: int | None = None


@dataclass(slots=True)
class Registry:
    """The newest session of each node, and what this gateway knows of the workers behind them."""

    clock: Clock
    roster: Roster[Session] = field(default_factory=Roster)
    breaker: Breaker = field(default_factory=Breaker)
    memory: PrefixMemory = field(default_factory=lambda: PrefixMemory(REMEMBERED))
    recorder: Recorder = field(default_factory=lambda: Recorder(RECORDED))
    loads: dict[str, Load] = field(default_factory=dict)
    """What nodes said of their workers."""
    reports: dict[str, WorkerReport] = field(default_factory=dict)
    through: Mapping[str, Session] = field(default_factory=dict)
    """By node: the session with a peer to which it is attached. ``Peers`` keeps it."""
    released: Callable[[Model], None] = lambda _model: None
    """Told when a model's worker has one request less."""
    _outstanding: dict[str, int] = field(default_factory=dict)
    _turns: dict[str, int] = field(default_factory=dict)

    def choose(
        self,
        model: Model,
        wish: Wish,
        excluded: Container[str] = (),
        phases: Container[WorkerPhase] = routing.READY,
    ) -> Choice | None:
        """The worker that should take the request; None when none can be reached. The decision is recorded."""
        now = self.clock.monotonic()
        turn = self._turns[model.name] = self._turns.get(model.name, -1) + 1
        bits = secrets.randbits(64) if len(model.routes) > 1 else 0
        key = wish.prefix if wish.session is None else wish.session
        choice = routing.choose(
            model.routes,
            Ask(
                model.policy.value,
                wish.prefix,
                wish.session,
                (bits >> 32, bits & 0xFFFFFFFF) if bits else _NO_DRAW,
                turn,
                self.memory.last(key),
            ),
            live=self.is_live,
            outstanding=self._outstanding,
            loads=self.loads,
            excluded=excluded,
            admits=(lambda worker_id: self.breaker.admits(worker_id, now)) if len(self.breaker) else None,
            phases=phases,
        )
        if choice is not None:
            self.memory.remember(key, choice.route.worker_id)
            self.recorder.add(
                self.clock.now(), wish.request_id, model.name, choice.ask, choice.candidates, choice.decision
            )
        return choice

    def another(self, model: Model, excluded: Container[str]) -> bool:
        """Whether somebody else is ready and reachable."""
        return any(self._is_up(route) and route.worker_id not in excluded for route in model.routes)

    def is_served(self, model: Model) -> bool:
        """Whether a request would reach a worker now."""
        return self.another(model, ())

    def room(self, model: Model | None) -> int:
        """Free slots of the model's workers, by our own count; many where waiting would lead to nothing."""
        if model is None:
            return UNBOUNDED
        free, up = 0, False
        for route in model.routes:
            if self._is_up(route):
                up = True
                free += max(0, route.slots - self._outstanding.get(route.worker_id, 0))
        if up:
            return free
        # Nobody is ready by the snapshot. Somebody who may have become so meanwhile is asked.
        doubtful = any(route.phase in routing.DOUBTFUL and self.is_live(route.node_id) for route in model.routes)
        return 0 if model.can_start and not doubtful else UNBOUNDED

    def news(self, model: Model) -> str:
        """How far the worker has come that is nearest to being ready; empty when nobody is on the way."""
        on_the_way = [
            known
            for route in model.routes
            if (known := self.reports.get(route.worker_id)) is not None and known.phase in routing.DOUBTFUL
        ]
        if not on_the_way or any(self._is_up(route) for route in model.routes):
            return ""
        return f": {max(on_the_way, key=lambda one: one.percent).news}"

    def hear(self, report: WorkerReport) -> None:
        """A node has said something new of a worker."""
        ours = self._outstanding.get(report.worker_id, 0)
        self.loads[report.worker_id] = routing.reported(report.running, report.waiting, report.kv, ours=ours)
        self.reports[report.worker_id] = report

    def session(self, node_id: str) -> Session | None:
        """The node's own session, or else that with a peer to which the node is attached."""
        session = self.roster.get(node_id)
        if session is None or session.closed or session.draining:
            return self.through.get(node_id, session)
        return session

    def is_live(self, node_id: str) -> bool:
        """Whether the node can be sent requests, directly or through a peer."""
        session = self.roster.get(node_id)
        if session is not None and not (session.closed or session.draining):
            return True
        session = self.through.get(node_id)
        return session is not None and not (session.closed or session.draining)

    def attached(self) -> list[str]:
        """The nodes that take requests on sessions of their own: those that peers may send requests for."""
        return [node for node, one in self.roster if not (one.closed or one.draining)]

    def outstanding(self, worker_id: str) -> int:
        """Requests this gateway has with that worker."""
        return self._outstanding.get(worker_id, 0)

    def lease(self, model: Model, worker_id: str) -> "Lease":
        """Counts as one outstanding request for as long as the ``with`` block lasts."""
        return Lease(self, model, worker_id)

    def follow(self, snapshot: Snapshot) -> None:
        """A new snapshot is in force: what is gone is forgotten."""
        workers = {route.worker_id for model in snapshot.models.values() for route in model.routes}
        self.breaker.keep(workers)
        for known in (self.loads, self.reports):
            for gone in known.keys() - workers:
                del known[gone]
        for name in self._turns.keys() - snapshot.models.keys():
            del self._turns[name]

    def _is_up(self, route: Route) -> bool:
        return route.phase is WorkerPhase.READY and self.is_live(route.node_id)


@dataclass(slots=True)
class Lease:
    """The one place where the counters move."""

    _registry: Registry
    _model: Model
    _worker_id: str

    def __enter__(self) -> None:
        outstanding = self._registry._outstanding
        outstanding[self._worker_id] = outstanding.get(self._worker_id, 0) + 1

    def __exit__(self, *_exc: object) -> None:
        outstanding = self._registry._outstanding
        left = outstanding[self._worker_id] - 1
        if left:
            outstanding[self._worker_id] = left
        else:
            del outstanding[self._worker_id]  # workers come and go; their counters must not stay
        self._registry.released(self._model)
