"""Certificates that the product would never issue, for the tests of who refuses them."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from pki.authority import Authority, to_pem
from pki.csr import key_to_pem, new_key
from pki.tls import TlsFiles
from tests.fakes.pki import Mesh

NODE_NAME = "spiffe://mesh.local/node/one"


def odd_leaf(
    authority: Authority,
    *,
    names: tuple[str, ...] = (NODE_NAME,),
    dns: tuple[str, ...] = (),
    usage: ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    starts_in: timedelta = timedelta(minutes=-5),
    ends_in: timedelta = timedelta(hours=1),
) -> tuple[bytes, bytes]:
    """Key and chain of a certificate as ``Authority.sign`` would never make it."""
    key, now = new_key(), datetime.now(UTC)
    sans: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in names]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts_in)
        .not_valid_after(now + ends_in)
        .add_extension(x509.SubjectAlternativeName([*sans, *(x509.DNSName(name) for name in dns)]), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    leaf = builder.sign(authority.key, hashes.SHA256())
    return key_to_pem(key), to_pem(leaf) + to_pem(authority.certificate)


def odd_files(mesh: Mesh, odd: tuple[bytes, bytes]) -> TlsFiles:
    return TlsFiles(odd[0], odd[1], mesh.bundle_pem.encode())
