"""What the kernel says of a process. A pid alone means little: numbers are used again."""

from pathlib import Path


def started_at(pid: int) -> int | None:
    """When the process started, in the kernel's ticks; None when it is gone, or there is no /proc to ask."""
    try:
        # Field 22, counted behind the command's name, which may hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def command_of(pid: int) -> list[str]:
    """The arguments of the process; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []
