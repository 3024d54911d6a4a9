"""What is on disk of a worker's engine, so that a later agent finds, trusts and adopts it.

Written before the engine is spawned (no pid yet) and again right after. An agent that dies in between finds the
engine by its label instead.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "worker.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One engine, or the intent to start one."""

    worker_id: str
    spec_hash: str
    label: str
    port: int
    command: tuple[str, ...]
    starts: int
    pid: int | None = None
    start_time: int | None = None
    """Ticks from boot to its start: with the pid it names one process only."""

    was_ready: bool = False


def read(folder: Path) -> Record | None:
    """The record in that folder; None when there is none or it is not whole.

    OSError when it cannot be read now: then nobody knows, and nothing may be concluded.
    """
    try:
        row = json.loads((folder / NAME).read_bytes())
        return Record(**{**row, "command": tuple(row["command"])})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None


def write(folder: Path, record: Record) -> None:
    """Replace the record in one step: whoever reads sees the old one or the new one.

    Not flushed to the disk: after a power cut there is no engine to find.
    """
    temporary = folder / f".{NAME}.new"
    temporary.write_text(json.dumps(asdict(record)))
    temporary.replace(folder / NAME)
