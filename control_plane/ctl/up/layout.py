"""The state folder of `meshctl up`: what lies where, who may look, and that only one runs on it.

    lock ports.json            one at a time; where the inner listeners were last time
    up.json meshctl.json       while it runs: which processes, and how other commands find the mesh
    api-key node-id            the demo key, so that a second run shows the same one; which node this machine is
    pki/ operator/             certificate authorities; who we are to the control plane
    control-plane/ gateway/ agent/   each process's own
    logs/                      <process>.log

Run by root, the embedded Postgres belongs to another user and lies in control-plane/postgres, so the top and
control-plane/ may be walked through (not listed) by all. Everything else is 0700.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from control_plane.ctl.errors import CommandFailed
from pki.files import write_atomic

PASSABLE, PRIVATE = 0o711, 0o700


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths in one state folder."""

    root: Path

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    @property
    def up(self) -> Path:
        return self.root / "up.json"

    @property
    def api_key(self) -> Path:
        return self.root / "api-key"

    @property
    def node(self) -> Path:
        return self.root / "node-id"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def operator(self) -> Path:
        return self.root / "operator"

    @property
    def control_plane(self) -> Path:
        return self.root / "control-plane"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway"

    @property
    def agent(self) -> Path:
        return self.root / "agent"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, process: str) -> Path:
        """Where that process's output goes."""
        return self.logs / f"{process}.log"

    def make(self) -> None:
        """Make the folders, or give those that exist the modes they need."""
        shared = PASSABLE if os.geteuid() == 0 else PRIVATE
        for folder in reversed(self.root.parents):
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o755 if shared == PASSABLE else PRIVATE)
        modes = {self.root: shared, self.control_plane: shared}
        private = (self.pki, self.operator, self.gateway, self.agent, self.logs)
        for folder, mode in (modes | dict.fromkeys(private, PRIVATE)).items():
            folder.mkdir(mode=mode, exist_ok=True)
            if folder.stat().st_mode & 0o777 != mode:
                folder.chmod(mode)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; CommandFailed names the one that has it."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                raise CommandFailed(
                    f"`meshctl up` runs already on {self.root}{f' (pid {holder})' if holder else ''}: "
                    "stop it with Ctrl-C there, or choose another folder with --state"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def read_json(path: Path) -> dict[str, object]:
    """The object in the file; empty when there is none or it is damaged (all of ours can be made anew)."""
    try:
        row = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def write_json(path: Path, row: object) -> None:
    """Replace the file."""
    write_atomic(path, (json.dumps(row, indent=2) + "\n").encode(), mode=0o600)
