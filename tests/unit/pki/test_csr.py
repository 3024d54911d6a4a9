"""Signing requests: only a proven P-256 key counts."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.errors import InvalidInput
from pki.csr import key_from_pem, key_to_pem, make_csr, new_key, public_key_of, spki_sha256


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_the_key_of_a_request_is_the_one_that_signed_it() -> None:
    key = new_key()
    assert public_key_of(make_csr(key)) == key.public_key()
    assert len(spki_sha256(key.public_key())) == 64


def test_a_request_names_nobody() -> None:
    request = x509.load_der_x509_csr(make_csr(new_key()))
    assert request.subject == x509.Name([])
    assert not list(request.extensions)


def test_a_request_signed_by_another_key_is_refused() -> None:
    key, other = make_csr(new_key()), make_csr(new_key())
    body = x509.load_der_x509_csr(key).tbs_certrequest_bytes
    forged = other.replace(x509.load_der_x509_csr(other).tbs_certrequest_bytes, body)
    with pytest.raises(InvalidInput, match="csr"):
        public_key_of(forged)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_another_kind_of_key_is_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    with pytest.raises(InvalidInput, match="P-256"):
        public_key_of(_request(key))


@given(st.binary(max_size=300))
def test_garbage_is_refused(octets: bytes) -> None:
    with pytest.raises(InvalidInput, match="csr"):
        public_key_of(octets)


def test_a_damaged_request_is_refused_unless_what_was_signed_is_whole() -> None:
    request = make_csr(new_key())
    signed = x509.load_der_x509_csr(request).tbs_certrequest_bytes
    end = request.index(signed) + len(signed)
    for at, octet in enumerate(request):
        for other in {0, 1, 2, 0x7F, 0xFF, octet ^ 1, octet ^ 0x80} - {octet}:
            try:
                key = public_key_of(request[:at] + bytes([other]) + request[at + 1 :])
            except InvalidInput:
                continue
            assert at >= end, "a request was believed that its sender did not sign"
            assert key == public_key_of(request)


def test_a_request_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(InvalidInput, match="longer"):
        public_key_of(b"0" * 5000)


def test_a_key_is_read_back_as_it_was_written() -> None:
    key = new_key()
    assert key_from_pem(key_to_pem(key)).public_key() == key.public_key()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        new_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        ),
    ],
    ids=["empty", "garbage", "ed25519", "encrypted"],
)
def test_another_kind_of_key_file_is_refused(pem: bytes) -> None:
    with pytest.raises(InvalidInput, match="private key"):
        key_from_pem(pem)
