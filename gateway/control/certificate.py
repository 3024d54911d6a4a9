"""Shows and uses a new certificate as soon as its files are there. What does not fit together is not used."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.control.link import ControlPlane
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from pki.tls import ServerTls, TlsFiles, load_tls

log = logging.getLogger(__name__)

ROUND_S = 10.0  # certificates live hours


@dataclass(slots=True)
class CertificateWatch:
    """Keeps the listeners and the control plane's channel at the certificate on disk. A part."""

    directory: Path
    used: TlsFiles
    listeners: Sequence[ServerTls]
    control_plane: ControlPlane
    clock: Clock
    _refused: str = field(init=False, default="")

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await self.clock.sleep(ROUND_S)
            await self.once()

    async def once(self) -> None:
        """One look."""
        try:
            files = load_tls(self.directory)
        except (OSError, MeshError, ValueError) as exc:  # half written, or wrong: the next look may find it whole
            if str(exc) != self._refused:
                log.warning("certificate not replaced", extra={F.PATH: str(self.directory), F.REASON: str(exc)})
            self._refused = str(exc)
            return
        self._refused = ""
        if (files.chain_pem, files.key_pem, files.trust_bundle_pem) == (
            self.used.chain_pem,
            self.used.key_pem,
            self.used.trust_bundle_pem,
        ):
            return
        self.used = files
        for listener in self.listeners:
            listener.replace(files)
        await self.control_plane.connect(files)
        log.info("certificate replaced", extra={F.PATH: str(self.directory)})
