"""Looks after one worker: spawn or adopt its engine, wait until it answers, watch it, start it again, let it go.

Relations: ``supervisor`` makes a keeper for each specification and ends it; ``core`` decides what each
observation means; ``Runtime`` and ``Engine`` do the work. Cancelling a keeper leaves its engine running: that is
what a dying agent does, and the next one adopts.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from node_agent.core.health import Health, Probes, Restarts
from node_agent.core.worker import (
    LISTED,
    LOADING,
    LoopbackEndpoint,
    Signal,
    WorkerPhase,
    WorkerSpec,
    WorkerStatus,
    WorkerUnready,
    WorkerView,
    advance,
    further,
)
from node_agent.engines.port import Engine, EngineLoad, EngineUnreachable
from node_agent.engines.registry import Engines, choose
from node_agent.workers.port import Running, Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to look, and how long to wait. Seconds."""

    poll_s: float = 0.2
    """Between looks at an engine that is starting."""

    probe_s: float = 2.0
    """Between liveness probes of one that answers."""

    start_budget_s: float = 900.0
    """For loading a model; a big one comes from a slow disk in minutes."""

    adopt_budget_s: float = 10.0
    """For the first answer of an adopted engine that had answered before: it has nothing to load."""

    drain_grace_s: float = 30.0
    """For the requests it has, when it is to stop."""

    stop_grace_s: float = 10.0
    """Between asking an engine to end and forcing it."""

    trim_every: int = 30
    """Probes between looks at the size of its log."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every keeper works with."""

    runtime: Runtime
    engines: Engines
    clock: Clock
    pace: Pace


@dataclass(slots=True, eq=False)
class Keeper:
    """One worker's keeper. ``found`` is an engine to adopt; ``after`` must have happened before it begins."""

    spec: WorkerSpec
    means: Means
    changed: Callable[[], None]
    found: Running | None = None
    after: tuple[asyncio.Event, ...] = ()
    status: WorkerStatus = field(init=False)
    running: Running | None = field(init=False, default=None)
    gone: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _stop: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _idle: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _requests: int = field(init=False, default=0)
    _restarts: Restarts = field(init=False, default=Restarts())

    def __post_init__(self) -> None:
        self.status = WorkerStatus(
            worker_id=self.spec.worker_id, spec_hash=self.spec.spec_hash, detail="waits for its turn"
        )
        self._idle.set()

    @property
    def stopping(self) -> bool:
        """It was told to stop; there is no way back."""
        return self._stop.is_set()

    @property
    def view(self) -> WorkerView:
        """The worker for those who show it."""
        return WorkerView(
            model=self.spec.model,
            status=self.status,
            endpoint=self.running.endpoint if self.running is not None else None,
        )

    def endpoint(self) -> LoopbackEndpoint:
        """Where to send a request now. WorkerUnready when it takes none."""
        if self.status.phase is not WorkerPhase.READY or self.running is None:
            raise WorkerUnready(self.spec.worker_id, self.status.phase, self.status.detail)
        return self.running.endpoint

    @contextmanager
    def lease(self) -> Iterator[LoopbackEndpoint]:
        """Hold the engine for one request: it is not stopped before the lease ends, or the drain grace."""
        endpoint = self.endpoint()
        self._requests += 1
        self._idle.clear()
        try:
            yield endpoint
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._idle.set()

    def stop(self, why: str) -> None:
        """Take nothing new, finish what is there, end the engine, then be ``gone``."""
        if not self._stop.is_set():
            self._stop.set()
            self._signal(Signal.DRAIN_ASKED, why)

    async def run(self) -> None:
        """Until stopped. Failures of the engine are this method's business, not its caller's."""
        for event in self.after:
            await event.wait()
        while not self._stop.is_set():
            await self._guarded(self._one_engine())
            if not self._stop.is_set():
                await first(self.means.clock.sleep(self._restarts.delay_s), self._stop.wait())
        while self.found is not None:  # its end went wrong
            await self.means.clock.sleep(self._restarts.delay_s)
            await self._guarded(self._end_found())
        self.gone.set()
        self.changed()

    async def _guarded(self, turn: Coroutine[Any, Any, None]) -> None:
        """One turn; what goes wrong in it unexpectedly leaves an engine that lives to the next turn."""
        try:
            await turn
        except Exception as exc:  # edge: one worker's trouble must not end the others
            log.exception("keeper failed", extra={F.WORKER: self.spec.worker_id})
            if self.running is not None:
                self.found, self.running = self.running, None
            self._lost(f"unexpected: {type(exc).__name__}; see the agent's log")

    async def _end_found(self) -> None:
        assert self.found is not None
        await self.means.runtime.stop(self.found, grace_s=self.means.pace.stop_grace_s)
        self.found = None

    async def _one_engine(self) -> None:
        """One engine from its start to its end."""
        try:
            engine = choose(self.means.engines, self.spec.engine)
            running = await self._begin(engine)
        except MeshError as exc:
            self._lost(str(exc))
            if self.found is not None:  # an engine that this agent does not know how to look after
                await self._end_found()
            return
        self.running = running
        why = await first(self._until_ended(running), self._serve(engine, running), self._stopped())
        grace = self.means.pace.stop_grace_s
        if not self._stop.is_set():
            self._lost(why)
        elif engine.capabilities.drains:
            grace += self.means.pace.drain_grace_s
        else:
            await self._drain(running)
        await self.means.runtime.stop(running, grace_s=grace)
        self.running = None

    async def _begin(self, engine: Engine) -> Running:
        """The engine that was found, the first time; otherwise a new one."""
        running, self.found = self.found, None
        if running is not None:
            self.status = replace(self.status, adopted=True, starts=running.starts)
            self._signal(Signal.BEGUN, "found running; asking whether it answers")
            log.info("engine adopted", extra=self._facts(running))
            return running
        running = await self.means.runtime.start(
            self.spec.worker_id, self.spec.spec_hash, lambda port: engine.command(self.spec, port=port)
        )
        self.status = replace(self.status, adopted=False, starts=running.starts)
        self._signal(Signal.BEGUN, "the engine process was started")
        log.info("engine started", extra=self._facts(running))
        return running

    async def _until_ended(self, running: Running) -> str:
        """Any end nobody asked for is a crash, whatever the exit code."""
        how = await self.means.runtime.exited(running)
        return f"the engine ended ({how}){self._last_words()}"

    async def _stopped(self) -> str:
        await self._stop.wait()
        return "asked to stop"

    async def _serve(self, engine: Engine, running: Running) -> str:
        """Bring it to READY and watch it; return why it cannot go on."""
        try:
            await self._until_listed(engine, running)
            self._signal(Signal.LISTED, "drawing the first token")
            # One that had drawn a token for the agent before us need not draw another, which would wait behind
            # all the requests it may have; the probes say soon enough if it is sick.
            if not running.was_ready:
                await engine.warm_up(running.endpoint, self.spec.model)
        except MeshError as exc:
            # If it fell silent because it died, its end says more, and arrives in this pause.
            await self.means.clock.sleep(self.means.pace.poll_s)
            return f"{exc}{self._last_words()}"
        self._restarts = self._restarts.healthy(now=self.means.clock.monotonic())
        self.running = self.means.runtime.remember_ready(running)
        self._signal(Signal.WARMED, "answers requests")
        log.info("worker ready", extra=self._facts(running))
        return await self._watch(engine, running)

    async def _until_listed(self, engine: Engine, running: Running) -> None:
        """Until the engine, and no stranger on its port, lists the model. MeshError when that cannot come."""
        pace, clock = self.means.pace, self.means.clock
        budget = pace.adopt_budget_s if running.was_ready else pace.start_budget_s
        deadline = clock.monotonic() + budget
        while True:
            try:
                if await engine.alive(running.endpoint):
                    names = await engine.models(running.endpoint)
                    if not self.means.runtime.owns_port(running):
                        raise PortStolen(f"port {running.port} is answered by a process that is not the engine")
                    if self.spec.model not in names:
                        raise WrongModel(f"the engine lists {sorted(names)}, not {self.spec.model!r}")
                    self._further(LISTED, "the engine lists the model")
                    return
                self._further(LOADING, "the engine loads the model")
            except EngineUnreachable as exc:
                silence = str(exc)
            else:
                silence = "it is still loading"
            if clock.monotonic() >= deadline:
                raise TooSlow(f"the engine did not become ready within {budget:g} s: {silence}")
            await clock.sleep(pace.poll_s)

    async def _watch(self, engine: Engine, running: Running) -> str:
        """Probe it for as long as it answers; return why it counts as sick."""
        probes, pace, turn = Probes(answered=True), self.means.pace, 0
        while probes.health is not Health.SICK:
            await self.means.clock.sleep(pace.probe_s)
            try:
                alive = await engine.alive(running.endpoint)
            except MeshError:
                alive = False
            probes = probes.after(alive=alive)
            load = EngineLoad()
            if alive:
                try:
                    load = await engine.load(running.endpoint)
                except MeshError as exc:
                    log.debug("no metrics", extra={F.WORKER: self.spec.worker_id, F.REASON: str(exc)})
            self._loaded(load)
            turn += 1
            if turn % pace.trim_every == 0:
                self.means.runtime.trim_log(self.spec.worker_id)
        return f"the engine does not answer: {probes.failed_in_a_row} probes in a row failed"

    async def _drain(self, running: Running) -> None:
        """Let its requests end, within the grace and for as long as the engine lives."""
        grace = self.means.pace.drain_grace_s
        await first(self._idle.wait(), self.means.clock.sleep(grace), self.means.runtime.exited(running))
        if self._requests:
            log.warning(
                "requests cut off by the end of a worker", extra={**self._facts(running), F.COUNT: self._requests}
            )

    def _lost(self, why: str) -> None:
        self._restarts = self._restarts.failed(now=self.means.clock.monotonic())
        delay = self._restarts.delay_s
        self._loaded(EngineLoad())
        self._signal(Signal.LOST, f"{why}; tries again in {delay:g} s")
        log.warning("worker failed", extra={F.WORKER: self.spec.worker_id, F.REASON: why, F.SECONDS: delay})

    def _loaded(self, load: EngineLoad) -> None:
        self.status = replace(
            self.status,
            requests_running=load.running,
            requests_waiting=load.waiting,
            kv_cache_usage=load.kv_cache_usage,
        )

    def _last_words(self) -> str:
        line = self.means.runtime.last_line(self.spec.worker_id)
        return f": {line}" if line else ""

    def _signal(self, signal: Signal, detail: str) -> None:
        if self.status.phase is WorkerPhase.DRAINING:  # late news of an engine on its way out
            return
        self.status = advance(self.status, signal, detail=detail)
        self.changed()

    def _further(self, progress_percent: int, detail: str) -> None:
        if self.status.phase is WorkerPhase.DRAINING:
            return
        before = self.status
        self.status = further(self.status, progress_percent, detail=detail)
        if self.status != before:
            self.changed()

    def _facts(self, running: Running) -> dict[str, object]:
        return {
            F.WORKER: self.spec.worker_id,
            F.MODEL: self.spec.model,
            F.PID: running.pid,
            F.ADDRESS: f"{running.endpoint.host}:{running.port}",
        }


class PortStolen(MeshError):
    """Someone else took the port between our look and the engine's."""

    code = "port_stolen"


class WrongModel(MeshError):
    """The engine serves, but not the model that was asked for."""

    code = "wrong_model"


class TooSlow(MeshError):
    """The engine did not become ready within its budget."""

    code = "engine_too_slow"


async def first(*waits: Coroutine[Any, Any, Any]) -> Any:
    """What the first of them returns; the others are cancelled, and have ended when this returns."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wait) for wait in waits]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    return next(task for task in tasks if task in done).result()
