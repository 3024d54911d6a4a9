"""`meshctl up` from beginning to end: hold the folder, come up step by step, stay up, take everything down."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from control_plane.ctl import running
from control_plane.ctl.errors import INTERRUPTED, CommandFailed
from control_plane.ctl.up import preflight, remains
from control_plane.ctl.up.catalog import DemoModel
from control_plane.ctl.up.farewell import how_to_use
from control_plane.ctl.up.identities import Identities
from control_plane.ctl.up.layout import Layout
from control_plane.ctl.up.plan import ASK, STEPS, WAIT_BUDGET_S, Step
from control_plane.ctl.up.ports import Ports
from control_plane.ctl.up.processes import AGENT, CONTROL_PLANE, GATEWAY, Plan, Reach
from control_plane.ctl.up.steps import Mesh
from control_plane.ctl.up.supervisor import GaveUp, Supervisor
from control_plane.ctl.up.view import View
from mesh.kit.clock import Clock

STOP_ORDER = (GATEWAY, AGENT, CONTROL_PLANE)  # first who takes requests, last who knows everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for."""

    state: Path
    model: DemoModel
    http_port: int
    question: str
    """Empty: none."""
    once: bool
    reach: Reach


async def up(wish: Wish, environ: Mapping[str, str], clock: Clock, view: View) -> None:
    """The whole mesh until it is told to stop. Leaves nothing running, however it ends."""
    layout = Layout(wish.state)
    preflight.check_passable(layout.root)
    layout.make()
    with layout.locked():
        if left := await remains.end_last_run(layout, clock):
            view.note(f"ended what was left of the last run: {', '.join(left)}")
        preflight.check_packages(wish.model, environ)
        preflight.check_openmp()
        preflight.check_disk(layout.root)
        preflight.check_http_port(wish.reach.host, wish.http_port)
        ports = Ports.remembered(layout.ports)
        plan = Plan(layout=layout, ports=ports, reach=wish.reach, http_port=wish.http_port, environ=environ)
        async with AsyncExitStack() as held, asyncio.TaskGroup() as group:
            supervisor = Supervisor(layout, clock, group, view.note)
            mesh = Mesh(
                plan=plan,
                supervisor=supervisor,
                identities=Identities(plan, clock),
                model=wish.model,
                question=wish.question,
                clock=clock,
                view=view,
                held=held,
                wait_budget_s=WAIT_BUDGET_S,
            )
            try:
                failure = await _run_until_over(mesh, wish, group)
            finally:
                view.abandon()
                await _take_down(mesh)
    if failure is not None:
        for line in failure.tail if isinstance(failure, GaveUp) else ():
            view.note(line)
        raise failure


async def _run_until_over(mesh: Mesh, wish: Wish, group: asyncio.TaskGroup) -> Exception | None:
    """Why it did not end as wished: a step failed, a process was given up, or we were told to stop too early."""
    supervisor = mesh.supervisor
    with _told_to_stop(supervisor) as stop:
        work = group.create_task(_outcome(_work(mesh, wish)), name="work")
        others = [group.create_task(event.wait()) for event in (stop, supervisor.failed)]
        await asyncio.wait((work, *others), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, *others):
            task.cancel()
        await asyncio.wait((work, *others))  # nobody may start a process while they are being stopped
    if supervisor.failure is not None:
        return supervisor.failure
    if not work.cancelled():
        return work.result()
    return None if mesh.is_up else CommandFailed("interrupted", exit_code=INTERRUPTED)


async def _work(mesh: Mesh, wish: Wish) -> None:
    for step in (*STEPS, *((ASK,) if mesh.question else ())):
        await _take(step, mesh)
    mesh.is_up = True
    if wish.once:
        return
    how_to_use(mesh)
    await mesh.stay()


async def _take(step: Step, mesh: Mesh) -> None:
    mesh.view.begin(step.title)
    try:
        async with asyncio.timeout(step.budget_s):
            detail = await step.do(mesh)
    except TimeoutError:
        logs = mesh.plan.layout.logs
        raise CommandFailed(f"{step.title}: not done within {step.budget_s:.0f} s; logs are in {logs}") from None
    mesh.view.done(detail)


async def _outcome(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except Exception as exc:  # edge: whatever it is, the processes are stopped first
        return exc
    return None


async def _take_down(mesh: Mesh) -> None:
    layout = mesh.plan.layout
    running.forget(layout.root)
    mesh.view.begin("stopping")
    for name in STOP_ORDER:
        mesh.view.progress(name)
        if not await mesh.supervisor.stop(name):
            await remains.end(name, mesh.plan, mesh.clock)
    layout.up.unlink(missing_ok=True)
    mesh.view.done("everything is stopped")


@contextlib.contextmanager
def _told_to_stop(supervisor: Supervisor) -> Iterator[asyncio.Event]:
    """An event for the first Ctrl-C, hang-up or SIGTERM; the second one ends the processes at once."""
    stop = asyncio.Event()

    def told() -> None:
        if stop.is_set():
            supervisor.kill_all()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means that it should go on
            loop.add_signal_handler(number, told)
    yield stop
