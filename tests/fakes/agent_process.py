"""An agent with nothing but workers, as a process of its own that a test can kill.

``python -m tests.fakes.agent_process <state folder> <worker id>…`` prints one line per worker when all are ready.
"""

import asyncio
import os
import sys
from pathlib import Path

from mesh.kit.clock import WallClock
from node_agent.workers.process import ProcessRuntime
from node_agent.workers.supervisor import Supervisor
from tests.fakes.engine import ScriptEngine, spec


async def main(state_dir: Path, worker_ids: list[str]) -> None:
    """Until killed."""
    runtime = ProcessRuntime(state_dir, {})
    supervisor = Supervisor(runtime, {"script": ScriptEngine()}, WallClock())
    supervisor.apply([spec(worker_id, engine="script") for worker_id in worker_ids])
    async with asyncio.TaskGroup() as group:
        group.create_task(supervisor.run())
        while not all(view.ready for view in supervisor.views()):
            await supervisor.wait_changed()
        ready = {running.worker_id: running for running in await runtime.found()}
        lines = [f"{worker_id} {ready[worker_id].pid} {ready[worker_id].port}" for worker_id in worker_ids]
        os.write(1, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
