"""What a run cost: CPU of process trees, and of strangers, over a stretch of time."""

import os
from dataclasses import dataclass

import psutil

TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants that are alive."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of those process trees so far."""
    total = 0.0
    for pid in pids:
        for process in tree(pid):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def machine_seconds() -> float:
    """Busy time of the whole machine so far, all cores."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


def memory_mib(pids: list[int]) -> float:
    """Resident memory of those process trees now."""
    total = 0
    for pid in pids:
        for process in tree(pid):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    return total / 2**20


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds spent between two readings: by the measured processes, and by anybody else."""

    measured: float
    others: float


@dataclass(slots=True)
class Meter:
    """Reads before and after; ``ours`` are the load client, the upstream and other helpers of the run."""

    measured: list[int]
    ours: list[int]
    _measured: float = 0.0
    _ours: float = 0.0
    _machine: float = 0.0

    def start(self) -> None:
        self._measured, self._ours = cpu_seconds(self.measured), cpu_seconds(self.ours)
        self._machine = machine_seconds()

    def stop(self, exited: float) -> Cost:
        """``exited``: CPU seconds of helpers that have ended since (the load client)."""
        measured = cpu_seconds(self.measured) - self._measured
        ours = cpu_seconds(self.ours) - self._ours + exited
        return Cost(measured, max(0.0, machine_seconds() - self._machine - measured - ours))
