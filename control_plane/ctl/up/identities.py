"""Certificates of the mesh's own processes: made at first, and again before half of their life is over."""

from dataclasses import dataclass
from pathlib import Path

from control_plane.ctl import identity
from control_plane.ctl.identity import LocalIdentity
from control_plane.ctl.up.processes import Plan, python
from control_plane.ctl.up.tools import run_tool
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from pki.bundle import load_certificates, pin_of
from pki.files import write_atomic
from pki.names import Kind

TOOL_BUDGET_S = 30.0  # a key and a signature are milliseconds; the rest is starting Python on a busy machine


@dataclass(frozen=True, slots=True)
class Identities:
    """The certificate authorities in ``pki/``, and whom they vouch for."""

    plan: Plan
    clock: Clock

    @property
    def _issued(self) -> tuple[tuple[Kind, str, Path], ...]:
        layout = self.plan.layout
        return (
            (Kind.CONTROL_PLANE, "local", layout.control_plane / "tls"),
            (Kind.GATEWAY, "local", layout.gateway / "tls"),
            (Kind.OPERATOR, "local", layout.operator),
        )

    async def ensure(self) -> list[str]:
        """Make what is missing, expired, or past half of its life; say what was made."""
        layout = self.plan.layout
        made = []
        if not (layout.pki / "root.crt").exists():
            # What an interrupted run left is not a set that belongs together; nobody trusts it yet.
            for file in layout.pki.iterdir():
                file.unlink()
            await self._pki("init", "--dir", str(layout.pki))
            made.append("certificate authorities")
        for kind, name, folder in self._issued:
            if self.good(folder, kind) is None:
                await self._pki(
                    *(
                        "issue",
                        str(kind),
                        "--id",
                        name,
                        "--dir",
                        str(layout.pki),
                        "--out",
                        str(folder),
                        "--replace",
                    )
                )
                made.append(str(kind))
        trust = (layout.pki / "node-ca.crt").read_bytes() + (layout.pki / "root.crt").read_bytes()
        write_atomic(layout.gateway / "node-trust.pem", trust)
        return made

    def good(self, folder: Path, kind: Kind) -> LocalIdentity | None:
        """The identity in the folder, if it is of our authorities and has at least half of its life before it."""
        try:
            found = identity.load(folder)
            ours = pin_of(load_certificates((self.plan.layout.pki / "root.crt").read_bytes())[0])
        except (MeshError, OSError):
            return None
        fits = found.identity.kind is kind and ours in found.root_pins and found.is_fresh(self.clock.now())
        return found if fits else None

    async def _pki(self, *arguments: str) -> None:
        await run_tool("mesh-pki", python("pki", *arguments), environ=self.plan.base(), budget_s=TOOL_BUDGET_S)
