"""What nodes say of their workers, as values."""

from dataclasses import dataclass

from gateway.core.snapshot import WorkerPhase


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """One worker's. What its engine did not tell is None."""

    worker_id: str
    running: int | None
    waiting: int | None
    kv: float | None
    """How much of its cache is in use, 0 to 1."""
    phase: WorkerPhase
    percent: int
    """How far it has come on its way to ready, 0 to 100."""
    detail: str
    """What it is doing, in words."""

    @property
    def news(self) -> str:
        """For a person who waits for it: one short line."""
        detail = " ".join(self.detail.split())[:120]
        return f"{self.phase.value} {self.percent} %{f', {detail}' if detail else ''}"
