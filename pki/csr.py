"""Keys and certificate signing requests. Every key is EC P-256; of a request only the public key is believed."""

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.kit.errors import InvalidInput

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

MAX_CSR = 4096  # octets of DER; ours have about 200

# What the library raises for something that is not well made, depending on where it notices.
MALFORMED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def new_key() -> PrivateKey:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey) -> bytes:
    """PKCS#8, not encrypted: whoever stores it gives it a private file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(pem: bytes) -> PrivateKey:
    """The key in a PEM text. InvalidInput unless it is an unencrypted P-256 key."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except MALFORMED:
        raise InvalidInput("private key", "not an unencrypted PEM key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("private key", "must be EC P-256")
    return key


def make_csr(key: PrivateKey) -> bytes:
    """A signing request (DER) that names nobody: the issuer decides the name."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def public_key_of(csr_der: bytes) -> PublicKey:
    """The public key of a request whose sender proved to hold the private one. InvalidInput otherwise."""
    if len(csr_der) > MAX_CSR:
        raise InvalidInput("csr", f"longer than {MAX_CSR} octets")
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
    except MALFORMED:
        raise InvalidInput("csr", "not a PKCS#10 request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("csr", "the key must be EC P-256")
    try:
        proven = request.is_signature_valid
    except MALFORMED:  # signed with something that P-256 is not
        proven = False
    if not proven:
        raise InvalidInput("csr", "its signature is not valid")
    return key


def spki_sha256(key: PublicKey) -> str:
    """SHA-256 over the DER SubjectPublicKeyInfo, in hex: the name of a key."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
