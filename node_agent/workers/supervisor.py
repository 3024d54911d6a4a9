"""Turns the workers this node should run into engines that run, and keeps them so.

Level-triggered: ``apply`` says what should be, as a whole, as often as one likes; a pure plan makes the
difference into actions; one keeper per worker carries them out. Cancelling ``run`` leaves every engine running,
and the next ``run``, of this agent or the one after it, adopts them.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.logs import F
from node_agent.core.plan import Adopt, Observed, Start, Stop, plan
from node_agent.core.worker import (
    LoopbackEndpoint,
    WorkerSpec,
    WorkerStatus,
    WorkerUnknown,
    WorkerUnready,
    WorkerView,
)
from node_agent.engines.registry import Engines
from node_agent.workers.keeper import Keeper, Means, Pace
from node_agent.workers.port import Running, Runtime

log = logging.getLogger(__name__)

RETRY_CAP_S = 10.0  # between attempts at what failed unexpectedly


@dataclass(slots=True, eq=False)
class Supervisor:
    """The part that runs this node's workers. Until the first ``apply`` it touches nothing."""

    runtime: Runtime
    engines: Engines
    clock: Clock
    pace: Pace = Pace()
    _desired: dict[str, WorkerSpec] | None = field(init=False, default=None)
    _keepers: dict[str, Keeper] = field(init=False, default_factory=dict)
    """By key; a worker whose specification changed has two for a while. Bounded by what was ever desired."""

    _found: dict[str, Running] = field(init=False, default_factory=dict)
    _version: int = field(init=False, default=0)
    _made: int = field(init=False, default=0)
    _news: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def apply(self, specs: Iterable[WorkerSpec]) -> None:
        """From now on these workers should run here, and no others."""
        self._desired = {spec.worker_id: spec for spec in specs}
        self._wake.set()
        self._changed()

    async def run(self) -> None:
        """Work until cancelled. Engines outlive it."""
        self._keepers.clear()
        while self._desired is None:
            await self._wake.wait()
        self._found = {running.key: running for running in await self._engines_found()}
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                self._carry_out(group)
                self._changed()
                await self._wake.wait()

    @property
    def version(self) -> int:
        """Rises with every change of a phase, a progress or the desired state."""
        return self._version

    async def wait_changed(self, seen: int | None = None) -> None:
        """Return when there is news after version ``seen``; after the version now, if none is given."""
        before = self._version if seen is None else seen
        while self._version == before:
            await self._news.wait()

    def views(self) -> tuple[WorkerView, ...]:
        """Every worker that is wanted, or still on its way out, once each."""
        newest = {keeper.spec.worker_id: keeper for keeper in self._keepers.values()}
        views = {worker_id: keeper.view for worker_id, keeper in newest.items()}
        for worker_id, spec in (self._desired or {}).items():
            if worker_id not in newest:
                status = WorkerStatus(worker_id=worker_id, spec_hash=spec.spec_hash, detail="waits for its turn")
                views[worker_id] = WorkerView(model=spec.model, status=status, endpoint=None)
        return tuple(views.values())

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """The same as reports carry them."""
        return tuple(view.status for view in self.views())

    def target(self, worker_id: str) -> LoopbackEndpoint:
        """Where to send a request for that worker now. WorkerUnknown or WorkerUnready otherwise."""
        return self._keeper(worker_id).endpoint()

    def lease(self, worker_id: str) -> AbstractContextManager[LoopbackEndpoint]:
        """Hold the worker for one request; entering raises as ``target`` does.

        While it is held the engine is not stopped, up to the drain grace.
        """
        return self._keeper(worker_id).lease()

    def _keeper(self, worker_id: str) -> Keeper:
        keepers = [keeper for keeper in self._keepers.values() if keeper.spec.worker_id == worker_id]
        if keepers:
            return keepers[-1]
        spec = (self._desired or {}).get(worker_id)
        if spec is None:
            raise WorkerUnknown(worker_id)
        raise WorkerUnready(worker_id, WorkerStatus(worker_id=worker_id, spec_hash=spec.spec_hash).phase, "")

    def _observed(self) -> list[Observed]:
        kept = [
            Observed(
                key=key,
                worker_id=keeper.spec.worker_id,
                spec_hash=keeper.spec.spec_hash,
                kept=True,
                stopping=keeper.stopping,
            )
            for key, keeper in self._keepers.items()
        ]
        found = [
            Observed(
                key=running.key,
                worker_id=running.worker_id,
                spec_hash=running.spec_hash,
                adoptable=running.adoptable,
            )
            for running in self._found.values()
        ]
        return kept + found

    def _carry_out(self, group: asyncio.TaskGroup) -> None:
        """Turn the difference into work for keepers."""
        leaving: dict[str, list[asyncio.Event]] = {}
        for keeper in self._keepers.values():
            leaving.setdefault(keeper.spec.worker_id, []).append(keeper.gone)
        for action in plan((self._desired or {}).values(), self._observed()):
            match action:
                case Stop(key, worker_id, _) if key in self._found:
                    gone = asyncio.Event()
                    leaving.setdefault(worker_id, []).append(gone)
                    group.create_task(self._end_leftover(self._found.pop(key), gone))
                case Stop(key, _, why):
                    self._keepers[key].stop(why)
                case Adopt(key, spec):
                    self._keep(group, spec, found=self._found.pop(key), after=())
                case Start(spec):
                    self._keep(group, spec, found=None, after=tuple(leaving.get(spec.worker_id, ())))

    def _keep(
        self,
        group: asyncio.TaskGroup,
        spec: WorkerSpec,
        *,
        found: Running | None,
        after: tuple[asyncio.Event, ...],
    ) -> None:
        means = Means(self.runtime, self.engines, self.clock, self.pace)
        keeper = Keeper(spec, means, self._changed, found, after)
        self._made += 1
        key = f"keeper.{self._made}"
        self._keepers[key] = keeper
        group.create_task(self._until_gone(key, keeper))

    async def _until_gone(self, key: str, keeper: Keeper) -> None:
        await keeper.run()
        del self._keepers[key]
        self._changed()

    async def _engines_found(self) -> tuple[Running, ...]:
        """What runs here; asked until it can be told, since nothing may be started before."""
        async for _ in Backoff(self.clock, cap_s=RETRY_CAP_S).attempts():
            try:
                return await self.runtime.found()
            except Exception:  # edge: a machine short of file descriptors, say, has them again later
                log.exception("cannot look for engines")
        raise AssertionError("attempts never end")

    async def _end_leftover(self, running: Running, gone: asyncio.Event) -> None:
        async for _ in Backoff(self.clock, cap_s=RETRY_CAP_S).attempts():
            try:
                await self.runtime.stop(running, grace_s=self.pace.stop_grace_s)
                break
            except Exception:  # edge: one engine that cannot be ended must not end who looks after the others
                log.exception("leftover not ended", extra={F.WORKER: running.worker_id, F.PID: running.pid})
        gone.set()

    def _changed(self) -> None:
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()


async def stop_every_engine(runtime: Runtime, *, grace_s: float) -> int:
    """End every engine of this node, on record or left over; return how many. For an owner who leaves."""
    found = await runtime.found()
    async with asyncio.TaskGroup() as group:
        for running in found:
            group.create_task(runtime.stop(running, grace_s=grace_s))
    return len(found)
