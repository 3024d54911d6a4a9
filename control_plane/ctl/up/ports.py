"""Which ports the inner listeners have: the kernel's choice at first, the same ones ever after.

Agents remember where they joined, so a mesh that comes back should be where it was. A port that someone else
took in the meantime is chosen anew; the processes are told, and nobody is stuck.
"""

import errno
import socket
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.ctl.up.layout import read_json, write_json

LOOPBACK = "127.0.0.1"


@dataclass(slots=True)
class Ports:
    """Ports by process and listener; 0 while the kernel has not chosen."""

    path: Path
    _known: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def remembered(cls, path: Path) -> "Ports":
        """Those of the last run that are still free. Ask when nothing of that run listens any more."""
        known: dict[str, dict[str, int]] = {}
        for process, listeners in read_json(path).items():
            if isinstance(listeners, dict):
                known[process] = {
                    str(name): port
                    for name, port in listeners.items()
                    if isinstance(port, int) and 0 < port <= 65535 and refusal(LOOPBACK, port) is None
                }
        return cls(path, known)

    def of(self, process: str, listener: str) -> int:
        """Its port, or 0."""
        return self._known.get(process, {}).get(listener, 0)

    def pick(self, process: str, listener: str) -> int:
        """Its port, chosen now if need be: for those that have to be known before anyone listens."""
        if not (port := self.of(process, listener)):
            with socket.create_server((LOOPBACK, 0)) as probe:
                port = probe.getsockname()[1]
            self._known.setdefault(process, {})[listener] = port
        return port

    def learn(self, process: str, listening: dict[str, str]) -> None:
        """Keep what the process says it listens on (``{"http": "127.0.0.1:41233"}``)."""
        found = {name: int(address.rpartition(":")[2]) for name, address in listening.items()}
        if self._known.get(process) != found:
            self._known[process] = found
            write_json(self.path, self._known)


def refusal(host: str, port: int) -> str | None:
    """Why nobody can listen there, or None when it is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Binding alone succeeds beside a listener that also reuses its address; listening does not.
            probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return "is taken by another program"
            if exc.errno == errno.EACCES:
                return "is not for ordinary users (ports below 1024 are root's)"
            return (exc.strerror or str(exc)).lower()
    return None
