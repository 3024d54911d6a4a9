"""A machine and the agent's workers on it: fake runtime, fake engine, and a clock that stands still."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from node_agent.core.worker import WorkerPhase, WorkerStatus
from node_agent.workers.keeper import Pace
from node_agent.workers.supervisor import Supervisor
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.runtime import FakeRuntime, Host

PACE = Pace(start_budget_s=60, drain_grace_s=30)


@dataclass
class Node:
    """A machine and the agent on it."""

    host: Host = field(default_factory=Host)
    clock: FakeClock = field(default_factory=FakeClock)
    runtime: FakeRuntime = field(init=False)
    engine: FakeEngine = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self.runtime = FakeRuntime(self.host)
        self.engine = FakeEngine(self.host)
        self.supervisor = Supervisor(self.runtime, {"fake": self.engine}, self.clock, PACE)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[Supervisor]:
        """The agent runs, and then is gone without a farewell."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.supervisor.run())
            yield self.supervisor
            task.cancel()

    def status(self, worker_id: str = "w-1") -> WorkerStatus:
        (status,) = (s for s in self.supervisor.statuses() if s.worker_id == worker_id)
        return status

    def phase(self, worker_id: str = "w-1") -> WorkerPhase:
        return self.status(worker_id).phase
