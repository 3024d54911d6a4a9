"""The certificate authorities: one root, three issuing CAs under it, and what they may sign."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from mesh.kit.errors import InvalidInput
from pki import names
from pki.csr import MALFORMED, PrivateKey, PublicKey, key_from_pem
from pki.names import Identity
from pki.policy import BACKDATE, ISSUING_LIFETIME, ROOT_LIFETIME, SERVERS, SIGNED_BY, Role

ORGANIZATION = "Inventiv Mesh"

_CLIENT: list[ObjectIdentifier] = [ExtendedKeyUsageOID.CLIENT_AUTH]
_BOTH: list[ObjectIdentifier] = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate: leaf and issuing CA in PEM, the leaf's serial in hex, and its end."""

    chain_pem: str
    serial_hex: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """An issuing CA with its key. It signs the kinds of its role, for its own trust domain, and nothing else."""

    certificate: x509.Certificate
    key: PrivateKey
    root: x509.Certificate

    def __post_init__(self) -> None:
        if self.key.public_key() != self.certificate.public_key():
            raise InvalidInput("issuing CA", "the key is not the certificate's")
        self.certificate.verify_directly_issued_by(self.root)

    @property
    def role(self) -> Role:
        """Which of the three issuing CAs this is; its certificate says so."""
        return Role(_one(self.certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME))

    @property
    def trust_domain(self) -> str:
        """The trust domain it signs for; its certificate says so."""
        return trust_domain_of(self.certificate)

    def sign(
        self,
        public_key: PublicKey,
        identity: Identity,
        *,
        now: datetime,
        ttl: timedelta,
        dns_names: tuple[str, ...] = (),
    ) -> Issued:
        """Certify that the key belongs to the identity, from five minutes ago until ``now + ttl``.

        Servers (gateways, control planes) get the DNS name of their kind besides any given ones.
        InvalidInput when the identity is not of this CA's role or trust domain, or would outlive the CA.
        """
        not_after = now.replace(microsecond=0) + ttl
        if SIGNED_BY[identity.kind] is not self.role:
            raise InvalidInput("identity", f"a {identity.kind} is not signed by the {self.role} CA")
        if identity.trust_domain != self.trust_domain:
            raise InvalidInput("identity", f"not of the trust domain {self.trust_domain}")
        if ttl <= timedelta(0) or not_after > self.certificate.not_valid_after_utc:
            raise InvalidInput("ttl", "must end after now and before the issuing CA does")
        listens = identity.kind in SERVERS
        if dns_names and not listens:
            raise InvalidInput("dns names", f"a {identity.kind} is no server")
        extra = tuple(names.check_dns_name(name) for name in dns_names)
        own_name = (names.server_name(identity.kind, identity.trust_domain),) if listens else ()
        leaf = (
            _builder(
                subject=_name(identity.id),
                issuer=self.certificate.subject,
                key=public_key,
                issuer_key=self.key.public_key(),
                not_before=now - BACKDATE,
                not_after=not_after,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_BOTH if listens else _CLIENT), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(names.format(identity)),
                        *(x509.DNSName(name) for name in dict.fromkeys((*own_name, *extra))),
                    ]
                ),
                critical=False,
            )
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            chain_pem=(to_pem(leaf) + to_pem(self.certificate)).decode(),
            serial_hex=serial_hex(leaf),
            not_after=leaf.not_valid_after_utc,
        )


def create_root(key: PrivateKey, *, trust_domain: str, now: datetime) -> x509.Certificate:
    """The self-signed root of a trust domain, for ten years."""
    names.check_trust_domain(trust_domain)
    subject = _name("Inventiv Mesh root CA")
    return (
        _builder(
            subject=subject,
            issuer=subject,
            key=key.public_key(),
            issuer_key=key.public_key(),
            not_before=now - BACKDATE,
            not_after=now + ROOT_LIFETIME,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_domain(trust_domain), critical=False)
        .sign(key, hashes.SHA256())
    )


def create_issuing(
    key: PublicKey, role: Role, *, root: x509.Certificate, root_key: PrivateKey, now: datetime
) -> x509.Certificate:
    """An issuing CA under the root, of the root's trust domain.

    The extended key usage binds what is below it too: nothing that the node or operator CA signs can be a server.
    """
    trust_domain = trust_domain_of(root)
    return (
        _builder(
            subject=_name(f"Inventiv Mesh {role} CA", unit=role),
            issuer=root.subject,
            key=key,
            issuer_key=root_key.public_key(),
            not_before=now - BACKDATE,
            not_after=min(now + ISSUING_LIFETIME, root.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_domain(trust_domain), critical=False)
        .add_extension(x509.ExtendedKeyUsage(_BOTH if role is Role.CONTROL else _CLIENT), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def load_authority(directory: Path, role: Role) -> Authority:
    """The issuing CA of that role from a folder made by ``mesh-pki init``.

    InvalidInput when the files do not belong together; OSError when one cannot be read.
    """
    try:
        authority = Authority(
            certificate=x509.load_pem_x509_certificate((directory / f"{role}-ca.crt").read_bytes()),
            key=key_from_pem((directory / f"{role}-ca.key").read_bytes()),
            root=x509.load_pem_x509_certificate((directory / "root.crt").read_bytes()),
        )
        found = authority.role
    except (InvalidSignature, *MALFORMED) as exc:
        raise InvalidInput("issuing CA", f"{role}-ca.crt does not belong under root.crt") from exc
    if found is not role:
        raise InvalidInput("issuing CA", f"{role}-ca.crt is the {found} CA's")
    return authority


def to_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def serial_hex(certificate: x509.Certificate) -> str:
    """A certificate's serial as it is stored and compared: lower-case hex, no leading zeros."""
    return f"{certificate.serial_number:x}"


def trust_domain_of(ca: x509.Certificate) -> str:
    """The trust domain that a root or issuing CA serves: the ``spiffe://<trust domain>`` in its SAN."""
    try:
        san = ca.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *MALFORMED):
        raise InvalidInput("certificate", "names no trust domain") from None
    found = san.get_values_for_type(x509.UniformResourceIdentifier)
    if len(found) != 1 or not found[0].startswith("spiffe://"):
        raise InvalidInput("certificate", "names no trust domain")
    return names.check_trust_domain(found[0].removeprefix("spiffe://"))


def _one(name: x509.Name, oid: ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    if len(values) != 1 or not isinstance(values[0].value, str):
        raise InvalidInput("certificate", "not one of this mesh's")
    return values[0].value


def _name(common_name: str, *, unit: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION)]
    if unit is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _domain(trust_domain: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")])


def _builder(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
    issuer_key: PublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())  # 159 random bits
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
