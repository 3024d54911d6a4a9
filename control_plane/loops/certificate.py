"""Shows a new certificate as soon as its files are there. What does not fit together is not shown."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from pki.tls import ServerTls, load_tls

log = logging.getLogger(__name__)

ROUND_S = 10.0  # certificates live hours


@dataclass(slots=True)
class CertificateWatch:
    """The loop: files → listeners."""

    directory: Path
    shown_by: Iterable[ServerTls]
    clock: Clock
    _seen: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._seen = self._stamp()

    async def run(self) -> None:
        """Look at the files every few seconds, until cancelled."""
        while True:
            await self.clock.sleep(ROUND_S)
            self.once()

    def once(self) -> None:
        """One look."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        try:
            files = load_tls(self.directory)
        except (OSError, MeshError) as exc:  # half written, or wrong: the next look may find it whole
            log.warning("certificate not replaced", extra={F.PATH: str(self.directory), F.REASON: str(exc)})
            return
        for tls in self.shown_by:
            tls.replace(files)
        self._seen = stamp
        log.info("certificate replaced", extra={F.PATH: str(self.directory)})

    def _stamp(self) -> tuple[int, ...]:
        try:
            return tuple((self.directory / name).stat().st_mtime_ns for name in ("tls.crt", "tls.key"))
        except OSError:
            return ()
