"""What the kernel tells of processes: who is who, who carries our label, and when one ends.

A pid alone names nobody, because the kernel gives it out again; a pid with its start time (ticks since boot) does.
"""

import asyncio
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

LABEL = "MESH_WORKER"
"""Environment variable that every engine of ours, and its children, carry: ``<folder digest>:<worker id>``."""

PF_KTHREAD = 0x00200000  # linux/sched.h
BIRTH_LOOKS, BIRTH_PAUSE_S = 50, 0.002  # a tenth of a second for a program to be loaded from a slow disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One living process that carries a label."""

    pid: int
    parent: int
    session: int
    ticks: int
    label: str


def labelled(prefix: str) -> dict[int, Process]:
    """Every living process whose label begins so. What we may not read is not ours.

    Blocks for a moment when a process is just being born: its label is not there before its program is loaded.
    OSError when we cannot look now, e.g. for want of file descriptors: nobody may be taken for dead then.
    """
    with os.scandir("/proc") as entries:
        unseen = [int(entry.name) for entry in entries if entry.name.isdigit()]
    found: dict[int, Process] = {}
    for _ in range(BIRTH_LOOKS):
        unborn = []
        for pid in unseen:
            environment, fields = _environment(pid), _stat(pid)
            if environment is None or not fields:
                continue
            if not environment and _is_being_born(fields):
                unborn.append(pid)
            elif label := _label(environment, prefix):
                found[pid] = Process(
                    pid=pid, parent=int(fields[1]), session=int(fields[3]), ticks=int(fields[19]), label=label
                )
        if not unborn:
            break
        threading.Event().wait(BIRTH_PAUSE_S)
        unseen = unborn
    return found


def send(process: Process, number: signal.Signals) -> None:
    """Signal that very process; nobody else, and nobody at all when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if start_ticks(process.pid) == process.ticks:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def start_ticks(pid: int) -> int | None:
    """When that process started; None when there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


async def ended(pid: int, ticks: int) -> str:
    """Wait until that very process is gone; say how, as far as the kernel tells: only of our own children."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return "ended unseen"
    try:
        if start_ticks(pid) != ticks:  # the pid was given to someone else before we held it
            return "ended unseen"
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
        return _reap(handle)
    finally:
        os.close(handle)


def _reap(handle: int) -> str:
    try:
        result = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # taken over: its parent was an agent before us
        return "ended"
    if result is None:
        return "ended"
    return (
        f"exit code {result.si_status}"
        if result.si_code == os.CLD_EXITED
        else f"killed by signal {result.si_status}"
    )


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may hold anything, also spaces and brackets."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _environment(pid: int) -> bytes | None:
    """Its environment; None when it is gone, or another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _label(environment: bytes, prefix: str) -> str:
    """The label in that environment, if it begins so; otherwise empty."""
    wanted = f"{LABEL}={prefix}".encode()
    entry = next((entry for entry in environment.split(b"\0") if entry.startswith(wanted)), b"")
    return entry.decode(errors="replace").partition("=")[2]


def _is_being_born(fields: list[str]) -> bool:
    """Between the moment its parent goes on and the moment its program is loaded, a process has no environment."""
    is_kernel_thread = int(fields[6]) & PF_KTHREAD
    return fields[0] not in "ZX" and not is_kernel_thread and fields[48] == "0"
