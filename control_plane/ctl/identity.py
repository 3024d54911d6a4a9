"""An identity as it lies in a folder: tls.crt, tls.key, trust-bundle.pem, made by ``mesh-pki issue``."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc

from control_plane.ctl.errors import BadInput, CommandFailed
from mesh.kit.errors import MeshError
from pki.bundle import identity_of, load_certificates, parse_bundle, pin_of
from pki.names import Identity, Kind, server_name
from pki.policy import renew_at

FILES = ("tls.crt", "tls.key", "trust-bundle.pem")


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Who we are, how long, and by what we know servers. The key's text never leaves ``credentials``."""

    folder: Path
    identity: Identity
    not_before: datetime
    not_after: datetime
    root_pins: frozenset[str]
    """Of the roots that it trusts."""

    @property
    def control_plane_name(self) -> str:
        """The DNS name in the certificate of this mesh's control plane."""
        return server_name(Kind.CONTROL_PLANE, self.identity.trust_domain)

    def is_fresh(self, now: datetime) -> bool:
        """Whether it is good for another half of its life."""
        return self.not_before <= now < renew_at(self.not_before, self.not_after)

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel needs to present this identity and to know the server."""
        chain, key, bundle = (_read(self.folder, name) for name in FILES)
        return grpc.ssl_channel_credentials(root_certificates=bundle, private_key=key, certificate_chain=chain)


def load(folder: Path) -> LocalIdentity:
    """The identity in the folder; BadInput says which file is missing or wrong."""
    try:
        leaf = load_certificates(_read(folder, FILES[0]))[0]
        roots = parse_bundle(_read(folder, FILES[2])).roots
        found = identity_of(leaf)
    except CommandFailed:
        raise
    except MeshError as exc:
        raise BadInput("--identity", f"{folder}: {exc}") from exc
    _read(folder, FILES[1])
    pins = frozenset(pin_of(root) for root in roots)
    return LocalIdentity(folder, found, leaf.not_valid_before_utc, leaf.not_valid_after_utc, pins)


def load_operator(folder: Path, now: datetime) -> LocalIdentity:
    """The operator in the folder, ready to call with; the failure says what is wrong and what to do."""
    mine = load(folder)
    if mine.identity.kind is not Kind.OPERATOR:
        raise BadInput("--identity", f"{folder} is {mine.identity.kind} {mine.identity.id!r}, not an operator")
    if now >= mine.not_after:
        raise CommandFailed(
            f"the certificate in {folder} expired at {mine.not_after:%Y-%m-%d %H:%M} UTC: "
            "issue a new one with `mesh-pki issue operator`"
        )
    return mine


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BadInput("--identity", f"cannot read {path}: {exc.strerror}") from exc
