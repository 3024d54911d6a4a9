"""What a process trusts servers by: PEM bundles, the pin of a root, and checking a served certificate."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from mesh.kit.errors import InvalidInput, Unauthenticated
from pki import names
from pki.authority import to_pem, trust_domain_of
from pki.csr import MALFORMED
from pki.names import Identity, Kind

PIN_PREFIX = "sha256:"
MAX_BUNDLE = 256 * 1024  # octets; a root and a CA are 2 KiB


class WrongPin(Unauthenticated):
    """The server's root is not the one that was pinned: the wrong server, or someone in between."""

    def __init__(self, *, expected: str, found: tuple[str, ...]) -> None:
        shown = ", ".join(found) or "no root at all"
        super().__init__("wrong_ca_pin", f"pinned {expected}, but the server's root is {shown}")
        self.expected, self.found = expected, found


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """Roots, and the issuing CAs under them that may sign servers."""

    roots: tuple[x509.Certificate, ...]
    issuers: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> str:
        """The bundle as it is sent and stored."""
        return b"".join(to_pem(one) for one in (*self.roots, *self.issuers)).decode()

    @property
    def trust_domain(self) -> str:
        """The trust domain of the (first) root."""
        return trust_domain_of(self.roots[0])


def pin_of(root: x509.Certificate) -> str:
    """``sha256:<hex>`` of the root's public key; what a joiner is given out of band."""
    spki = root.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PIN_PREFIX + hashlib.sha256(spki).hexdigest()


def check_pin(text: str) -> str:
    """The pin in its one spelling. InvalidInput when it is not one."""
    pin = text.strip().lower()
    digits = pin.removeprefix(PIN_PREFIX)
    if not pin.startswith(PIN_PREFIX) or len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise InvalidInput("ca pin", "not of the form sha256:<64 hex digits>")
    return pin


def make_bundle(certificates: Iterable[x509.Certificate]) -> TrustBundle:
    """Sort CA certificates into roots and issuers. Left out: what none of these roots signed, and what signs no
    servers. TLS asks for the usage of CAs that lead to a trusted one, but not of the trusted one itself.
    """
    given = tuple(certificates)
    roots = tuple(one for one in given if _is_ca(one) and issued_by(one, one))
    issuers = tuple(
        one
        for one in given
        if one not in roots and _is_ca(one) and _may_serve(one) and any(issued_by(one, root) for root in roots)
    )
    return TrustBundle(roots, issuers)


def parse_bundle(pem: str | bytes) -> TrustBundle:
    """The bundle in a PEM text. InvalidInput when it is none or holds no root."""
    bundle = make_bundle(load_certificates(pem))
    if not bundle.roots:
        raise InvalidInput("trust bundle", "holds no root")
    return bundle


def pinned(bundle: TrustBundle, pin: str) -> TrustBundle:
    """The part of the bundle that the pin vouches for: that root and what it signed. WrongPin without one."""
    pin = check_pin(pin)
    found = {pin_of(root): root for root in bundle.roots}
    if pin not in found:
        raise WrongPin(expected=pin, found=tuple(found))
    return make_bundle((found[pin], *bundle.issuers))


def check_server(leaf: x509.Certificate, bundle: TrustBundle, *, kind: Kind, now: datetime) -> Identity:
    """Who the served certificate is for. Unauthenticated unless the bundle vouches for a server of that kind.

    A check for a clear message before a connection: TLS itself verifies the same again on every connection.
    """
    issuer = next((one for one in bundle.issuers if issued_by(leaf, one)), None)
    if issuer is None:
        raise Unauthenticated("unknown_issuer", "the server's certificate is not signed under the trusted root")
    root = next(one for one in bundle.roots if issued_by(issuer, one))
    if not all(one.not_valid_before_utc <= now < one.not_valid_after_utc for one in (leaf, issuer, root)):
        raise Unauthenticated("certificate_expired", "the server's certificate is expired, or a clock is wrong")
    identity = identity_of(leaf)
    name = names.server_name(kind, identity.trust_domain)
    if (
        identity.kind is not kind
        or identity.trust_domain != trust_domain_of(root)
        or name not in _san(leaf).get_values_for_type(x509.DNSName)
        or not _may_serve(leaf)
    ):
        raise Unauthenticated("wrong_server", f"the server is no {kind} of this mesh")
    return identity


def identity_of(leaf: x509.Certificate) -> Identity:
    """The identity in a certificate's one URI SAN. Unauthenticated when there is none, or more than one."""
    uris = _san(leaf).get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise Unauthenticated("bad_identity", "a certificate must carry exactly one URI name")
    try:
        return names.parse(uris[0])
    except InvalidInput as exc:
        raise Unauthenticated("bad_identity", str(exc)) from None


def load_certificates(pem: str | bytes) -> list[x509.Certificate]:
    """Every certificate in a PEM text, in order. InvalidInput when one does not parse or there is none."""
    octets = pem.encode() if isinstance(pem, str) else pem
    if len(octets) > MAX_BUNDLE:
        raise InvalidInput("certificates", f"longer than {MAX_BUNDLE} octets")
    try:
        return x509.load_pem_x509_certificates(octets)
    except MALFORMED:
        raise InvalidInput("certificates", "not PEM certificates") from None


def issued_by(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key signed the certificate, and their names agree."""
    try:
        one.verify_directly_issued_by(issuer)
    except (InvalidSignature, *MALFORMED):
        return False
    return True


def _may_serve(certificate: x509.Certificate) -> bool:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, *MALFORMED):
        return False
    return ExtendedKeyUsageOID.SERVER_AUTH in usages


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *MALFORMED):
        return False


def _san(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *MALFORMED):
        raise Unauthenticated("bad_identity", "the certificate names nobody") from None
