"""The little that must survive a restart, in one folder that belongs to one agent.

    identity/     tls.key tls.crt trust-bundle.pem identity.json   who we are; mode 0600, complete or absent
    identity.new/ the same while joining: its key is written before the token is used, so that a lost reply
                  can be asked for again with the same key
    desired.json  the last desired state, which we go on with while the control plane is away
    epoch         the number of our last session, which hubs know us by
    agent.lock    held while an agent runs here

Every file is either the old or the new one, never half (``pki.files``).
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mesh.kit.errors import InvalidInput, MeshError
from mesh.kit.logs import F
from node_agent.core import desired
from node_agent.core.desired import DesiredState
from pki.files import make_private_dir, write_atomic, write_private

log = logging.getLogger(__name__)


MAX_EPOCH = 2**63 - 1  # more fits into no message; a damaged file may say anything


class NotEnrolled(MeshError):
    """This machine has not joined a mesh."""

    code = "not_enrolled"

    def __init__(self, state_dir: Path) -> None:
        super().__init__(f"{state_dir} holds no identity; join first with: mesh-agent enroll")


class StateInUse(MeshError):
    """Another agent runs on this folder."""

    code = "state_in_use"

    def __init__(self, state_dir: Path, pid: str) -> None:
        super().__init__(f"another agent{f' (pid {pid})' if pid else ''} runs on {state_dir}; stop it first")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """What joining told us, beside key and certificates."""

    node_id: str
    trust_domain: str
    node_endpoint: str
    server_name: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The state folder. Reading what was never written gives the beginning; writing may raise OSError."""

    root: Path

    @property
    def identity_dir(self) -> Path:
        """Where ``pki.tls.load_tls`` finds key, certificate and bundle."""
        return self.root / "identity"

    @property
    def _joining(self) -> Path:
        return self.root / "identity.new"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process. StateInUse when another has it; a killed one holds nothing."""
        make_private_dir(self.root)
        descriptor = os.open(self.root / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StateInUse(self.root, os.pread(descriptor, 20, 0).decode(errors="replace").strip()) from None
            # Who holds it is a courtesy to the next one who asks; the lock itself does not need it.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    # Who we are

    def identity(self) -> NodeIdentity:
        """Who this node is. NotEnrolled before it joined."""
        self._settle()
        try:
            row = json.loads((self.identity_dir / "identity.json").read_text())
            return NodeIdentity(**row)
        except FileNotFoundError:
            raise NotEnrolled(self.root) from None
        except (ValueError, TypeError):
            raise InvalidInput(
                "identity.json", f"{self.identity_dir} is damaged; enroll again with --force"
            ) from None

    def joining_key(self) -> bytes | None:
        """The key of a join that has not been answered yet, if there was one."""
        path = self._joining / "tls.key"
        return path.read_bytes() if path.exists() else None

    def keep_joining_key(self, key_pem: bytes) -> None:
        """Write the key down before the token is used with it."""
        make_private_dir(self._joining)
        write_private(self._joining / "tls.key", key_pem)

    def keep_identity(self, identity: NodeIdentity, *, chain_pem: str, trust_bundle_pem: str) -> None:
        """Make what a join answered our identity, as one step; the joining key becomes its key."""
        write_private(self._joining / "tls.crt", chain_pem.encode())
        write_private(self._joining / "trust-bundle.pem", trust_bundle_pem.encode())
        # Written last: with it the new folder is complete, and a crash from here on is finished by ``_settle``.
        write_private(self._joining / "identity.json", json.dumps(asdict(identity), indent=1).encode())
        self._settle()

    def _settle(self) -> None:
        old = self.root / "identity.old"
        if (self._joining / "identity.json").exists():
            shutil.rmtree(old, ignore_errors=True)
            if self.identity_dir.exists():
                self.identity_dir.rename(old)
            # Another node now: neither the old one's workers nor its epoch are ours.
            (self.root / "desired.json").unlink(missing_ok=True)
            (self.root / "epoch").unlink(missing_ok=True)
            self._joining.rename(self.identity_dir)
        shutil.rmtree(old, ignore_errors=True)

    # What we should be

    def desired(self) -> DesiredState | None:
        """The last desired state; None when there is none or it cannot be read, which means unknown, not empty."""
        try:
            return desired.from_json((self.root / "desired.json").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            log.warning("desired state on disk cannot be read", extra={F.REASON: str(exc)})
            return None

    def keep_desired(self, state: DesiredState) -> None:
        """Remember it. OSError when the disk is full; the one before is still there then."""
        write_atomic(self.root / "desired.json", desired.to_json(state).encode(), mode=0o600)

    def epoch(self) -> int:
        """The number of our last session; 0 before the first."""
        try:
            return max(0, min(int((self.root / "epoch").read_text()), MAX_EPOCH))
        except (OSError, ValueError):
            return 0

    def keep_epoch(self, epoch: int) -> None:
        """Remember it."""
        write_atomic(self.root / "epoch", f"{epoch}\n".encode(), mode=0o600)
