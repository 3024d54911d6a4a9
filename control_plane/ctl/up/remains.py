"""What outlives a process that was killed: the processes of a killed `meshctl up`, an agent's engines, a database.

Nothing is ended by its pid alone: start time, or what it runs, must fit as well.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from control_plane.ctl.errors import CommandFailed
from control_plane.ctl.up.layout import Layout, read_json
from control_plane.ctl.up.proc import command_of, started_at
from control_plane.ctl.up.processes import AGENT, CONTROL_PLANE, Plan, python
from control_plane.ctl.up.tools import run_tool
from mesh.kit.clock import Clock

STOP_BUDGET_S = 10.0
ENGINES_BUDGET_S = 40.0
POLL_S = 0.05


async def end_last_run(layout: Layout, clock: Clock) -> list[str]:
    """End what the last run of this folder left running; the names of what there was.

    Engines and the database are not among them: agent and control plane take them over again.
    """
    found: dict[str, tuple[int, int]] = {}
    processes = read_json(layout.up).get("processes")
    for name, row in (processes if isinstance(processes, dict) else {}).items():
        pid, ticks = (row.get("pid"), row.get("started_at")) if isinstance(row, dict) else (None, None)
        if isinstance(pid, int) and isinstance(ticks, int) and started_at(pid) == ticks:
            found[str(name)] = (pid, ticks)
    for pid, ticks in found.values():
        await _end(pid, partial(_is_same, pid, ticks), clock)
    layout.up.unlink(missing_ok=True)
    return list(found)


def _is_same(pid: int, ticks: int) -> bool:
    return started_at(pid) == ticks


async def end(name: str, plan: Plan, clock: Clock) -> None:
    """End what that process leaves behind when it does not end in an orderly way, or never ran this time."""
    if name == AGENT and (plan.layout.agent / "workers").is_dir():
        with suppress(CommandFailed):
            await run_tool(
                "mesh-agent stop-engines",
                python("node_agent", "stop-engines"),
                environ=plan.agent_environ(),
                budget_s=ENGINES_BUDGET_S,
            )
    if name == CONTROL_PLANE:
        await _end_database(plan.layout.control_plane / "postgres" / "data", clock)


async def _end_database(data: Path, clock: Clock) -> None:
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n")[0])
    except (OSError, ValueError):
        return
    # SIGINT is Postgres's fast stop: connections are cut, the data is left clean.
    await _end(pid, lambda: str(data) in command_of(pid), clock, politely=signal.SIGINT)


async def _end(
    pid: int, is_it: Callable[[], bool], clock: Clock, *, politely: signal.Signals = signal.SIGTERM
) -> None:
    for number in (politely, signal.SIGKILL):
        if is_it():
            os.kill(pid, number)
        deadline = clock.monotonic() + STOP_BUDGET_S
        while is_it() and clock.monotonic() < deadline:
            await clock.sleep(POLL_S)
