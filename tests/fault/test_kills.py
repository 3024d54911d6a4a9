"""SIGKILL of each process under streams: every client hears an end, everything comes back, the books balance."""

import asyncio
import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.fault.harness import Mesh, Outcome, eventually

pytestmark = pytest.mark.real

STREAMS = 50
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
VICTIMS: dict[str, Callable[[Mesh], int]] = {
    "agent": lambda mesh: mesh.pid("agent"),
    "gateway": lambda mesh: mesh.pid("gateway"),
    "control-plane": lambda mesh: mesh.pid("control-plane"),
    "engine": lambda mesh: int(str(mesh.engine()["pid"])),
    "postgres": lambda mesh: mesh.postgres_pid(),
}
BYSTANDERS = ("control-plane", "postgres")  # on nobody's path


async def under_streams(mesh: Mesh, hurt: Callable[[], None], *, max_tokens: int, end_s: float) -> list[Outcome]:
    """Start the streams, wait until tokens flow, hurt, and require that every client hears an end in time."""
    flowing = asyncio.Event()

    def on_chunk(seen: Outcome) -> None:
        if seen.chunks >= 2:
            flowing.set()

    async with mesh.client() as client, asyncio.TaskGroup() as group:
        tasks = [
            # Who has not begun waits for a worker, as long as it wants to: here for less than the bound on ends.
            group.create_task(
                mesh.stream(client, max_tokens=max_tokens, on_chunk=on_chunk, max_wait_s=60 if end_s >= 60 else 3)
            )
            for _ in range(STREAMS)
        ]
        async with asyncio.timeout(30):
            await flowing.wait()
        hurt()
        _, hanging = await asyncio.wait(tasks, timeout=end_s)
        for task in hanging:
            task.cancel()
        assert not hanging, f"{len(hanging)} of {STREAMS} clients heard no end: {mesh.last_words()}"
    return [task.result() for task in tasks]


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("victim", VICTIMS)
async def test_everything_comes_back_after_a_kill(mesh: Mesh, victim: str, round_: int) -> None:
    pid = VICTIMS[victim](mesh)
    engine, epoch = mesh.engine(), await mesh.epoch()
    # What is on nobody's path may not even shorten a stream; fifty of them take the small model a while.
    bystander = victim in BYSTANDERS
    outcomes = await under_streams(
        mesh,
        lambda: os.kill(pid, signal.SIGKILL),
        max_tokens=8 if bystander else 400,
        end_s=60 if bystander else 5,
    )
    assert all(outcome.ended_cleanly for outcome in outcomes)
    if bystander:
        assert all(outcome.completed for outcome in outcomes)

    async with mesh.client() as client:
        await mesh.until_routable(client)
    await eventually(15, "a new process", lambda: another(mesh, victim, pid))
    if victim in ("agent", "control-plane"):
        await mesh.until_online(after_epoch=epoch)
    after = mesh.engine()
    if victim == "engine":
        assert after["starts"] == int(str(engine["starts"])) + 1
    else:
        assert (after["pid"], after["starts"]) == (engine["pid"], engine["starts"]), "adopted, not restarted"

    admitted = {outcome.request_id for outcome in outcomes if outcome.request_id and outcome.status == 200}
    rows = await mesh.usage_rows(admitted)
    for outcome in outcomes:
        if outcome.completed:
            assert rows[outcome.request_id]["outcome"] == "completed"
            assert rows[outcome.request_id]["completion_tokens"] > 0
        elif outcome.request_id in rows:
            assert rows[outcome.request_id]["outcome"] in ("failed", "interrupted", "cancelled")


def another(mesh: Mesh, victim: str, pid: int) -> bool:
    """Whether the victim runs again."""
    try:
        found = VICTIMS[victim](mesh)
    except (OSError, ValueError, IndexError):  # its files are just being written
        return False
    return found != pid and psutil.pid_exists(found)


async def test_the_chat_works_without_control_plane_and_database(mesh: Mesh) -> None:
    with mesh.unsupervised():
        os.kill(mesh.pid("control-plane"), signal.SIGKILL)
        database = psutil.Process(mesh.postgres_pid())
        os.kill(database.pid, signal.SIGKILL)
        psutil.wait_procs([database], timeout=5)
        async with mesh.client() as client:
            outcomes = [await mesh.stream(client, max_tokens=6) for _ in range(3)]
        assert all(outcome.completed for outcome in outcomes)
    rows = await mesh.usage_rows({outcome.request_id for outcome in outcomes})
    assert {row["outcome"] for row in rows.values()} == {"completed"}


async def test_agent_and_gateway_restart_without_the_control_plane(mesh: Mesh) -> None:
    """Both work from what is on their disks: desired state here, the snapshot there."""
    os.kill(mesh.up.pid, signal.SIGCONT)
    control_plane = mesh.pid("control-plane")
    os.kill(control_plane, signal.SIGSTOP)
    try:
        for victim in ("agent", "gateway"):
            before = mesh.pid(victim)
            os.kill(before, signal.SIGKILL)
            await eventually(15, f"a new {victim}", lambda v=victim, p=before: mesh.pid(v) != p)
        async with mesh.client() as client:
            await mesh.until_routable(client, within_s=20)
    finally:
        os.kill(control_plane, signal.SIGCONT)


async def test_a_frozen_agent_does_not_hold_its_clients(mesh: Mesh) -> None:
    """Its kernel still acknowledges every packet; only missing ping answers tell."""
    pid = mesh.pid("agent")
    try:
        outcomes = await under_streams(mesh, lambda: os.kill(pid, signal.SIGSTOP), max_tokens=400, end_s=15)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert all(outcome.error for outcome in outcomes)
    async with mesh.client() as client:
        await mesh.until_routable(client)
    rows = await mesh.usage_rows({outcome.request_id for outcome in outcomes if outcome.status == 200})
    assert {row["outcome"] for row in rows.values()} == {"failed"}
