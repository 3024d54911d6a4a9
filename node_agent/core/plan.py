"""What to do about the difference between the workers wanted and the engines found.

Pure: the whole desired state and everything observed in, an ordered list of actions out. Carrying the actions
out leaves nothing to do. Stops come first, because they free what the starts need.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from node_agent.core.worker import WorkerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One engine that exists, or is being looked after.

    ``key`` tells apart two engines of one worker. ``kept`` means that someone in this process looks after it
    already; ``stopping`` that it is on its way out and cannot turn back; ``adoptable`` that its record is whole.
    """

    key: str
    worker_id: str
    spec_hash: str
    kept: bool = False
    stopping: bool = False
    adoptable: bool = True


@dataclass(frozen=True, slots=True)
class Stop:
    """End this engine, gently if someone keeps it."""

    key: str
    worker_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Keep:
    """It is what it should be, and looked after."""

    key: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """It is what it should be: look after it from now on."""

    key: str
    spec: WorkerSpec


@dataclass(frozen=True, slots=True)
class Start:
    """Nothing runs for this spec: begin one, after whatever of the same worker is on its way out."""

    spec: WorkerSpec


Action = Stop | Keep | Adopt | Start


def plan(desired: Iterable[WorkerSpec], observed: Iterable[Observed]) -> tuple[Action, ...]:
    """The actions that turn what is into what should be: stops, keeps, adoptions, starts."""
    wanted = {spec.worker_id: spec for spec in desired}
    stops: list[Action] = []
    keeps: list[Action] = []
    adoptions: list[Action] = []
    held: set[str] = set()
    # Those already looked after come first: of two engines of one worker the known one stays.
    for engine in sorted(observed, key=lambda engine: (not engine.kept, engine.key)):
        if engine.stopping:
            continue
        spec = wanted.get(engine.worker_id)
        why = _why_stop(engine, spec, twice=engine.worker_id in held)
        if why is not None or spec is None:
            stops.append(Stop(engine.key, engine.worker_id, why or ""))
            continue
        held.add(engine.worker_id)
        if engine.kept:
            keeps.append(Keep(engine.key, engine.worker_id))
        else:
            adoptions.append(Adopt(engine.key, spec))
    starts = [Start(spec) for worker_id, spec in wanted.items() if worker_id not in held]
    return (*stops, *keeps, *adoptions, *starts)


def _why_stop(engine: Observed, spec: WorkerSpec | None, *, twice: bool) -> str | None:
    if spec is None:
        return "no longer wanted" if engine.kept else "left over"
    if engine.spec_hash != spec.spec_hash:
        return "the specification changed"
    if not engine.adoptable:
        return "left over without a whole record"
    return "a second engine of one worker" if twice else None
