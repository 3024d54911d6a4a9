"""An engine's own output: one file per worker, bounded, its last line quoted when the engine dies.

The engine holds the file open in append mode and outlives us, so it is shortened in place: what it writes next
goes to the new end.
"""

import os
from pathlib import Path

NAME = "engine.log"
CAP = 8 << 20  # octets a running engine may write before the file is shortened
TAIL = 1 << 20  # octets kept of it, in ``engine.log.1``
LINE = 300  # characters of a quoted line; it travels in every heartbeat


def path(folder: Path) -> Path:
    """Where the log lies."""
    return folder / NAME


def trim(folder: Path, *, cap: int = CAP, tail: int = TAIL) -> None:
    """Shorten the file when it has outgrown its cap; its last part moves to ``engine.log.1``."""
    log = path(folder)
    try:
        size = log.stat().st_size
        if size <= cap:
            return
        with log.open("rb") as file:
            file.seek(size - tail)
            log.with_name(f"{NAME}.1").write_bytes(file.read(tail))
    except FileNotFoundError:
        return
    os.truncate(log, 0)


def last_line(folder: Path) -> str:
    """The last line that says anything, printable and short; empty when there is none."""
    try:
        with path(folder).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    spoken = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "".join(c if c.isprintable() else " " for c in spoken)[:LINE]
