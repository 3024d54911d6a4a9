"""Bundles, pins, and what is checked of a served certificate."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.errors import InvalidInput, Unauthenticated
from pki.authority import to_pem
from pki.bundle import (
    WrongPin,
    check_pin,
    check_server,
    identity_of,
    load_certificates,
    make_bundle,
    parse_bundle,
    pinned,
)
from pki.csr import new_key
from pki.names import Kind
from pki.peer import caller_of
from pki.policy import Role
from tests.fakes.pki import Mesh

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture(scope="module")
def stranger() -> Mesh:
    """Another mesh of the same name: what a server in between could make."""
    return Mesh()


def _leaf_with(sans: list[str], *, mesh: Mesh) -> x509.Certificate:
    authority = mesh.authorities[Role.CONTROL]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(new_key().public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(hours=1))
    )
    if sans:
        uris = [x509.UniformResourceIdentifier(uri) for uri in sans]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=True)
    return builder.sign(authority.key, hashes.SHA256())


def test_a_bundle_is_read_back_as_it_was_written(mesh: Mesh) -> None:
    bundle = parse_bundle(mesh.bundle_pem)
    assert bundle.roots == (mesh.root,)
    assert bundle.issuers == (mesh.authorities[Role.CONTROL].certificate,)
    assert parse_bundle(bundle.pem.encode()) == bundle
    assert bundle.trust_domain == "mesh.local"


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_text_without_certificates_is_no_bundle(text: str) -> None:
    with pytest.raises(InvalidInput, match="certificates"):
        parse_bundle(text)


def test_a_bundle_needs_a_root_and_has_a_limit(mesh: Mesh) -> None:
    with pytest.raises(InvalidInput, match="no root"):
        parse_bundle(mesh.ca_pem(Role.CONTROL))
    with pytest.raises(InvalidInput, match="longer"):
        load_certificates(mesh.bundle_pem * 500)


@given(st.binary(max_size=64))
def test_garbage_is_no_bundle(octets: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse_bundle(octets)


def test_leafs_and_strangers_do_not_get_into_a_bundle(mesh: Mesh, stranger: Mesh) -> None:
    leaf = mesh.files(Kind.NODE).certificate
    alien = stranger.authorities[Role.CONTROL].certificate
    assert make_bundle([mesh.root, leaf, alien]).issuers == ()


def test_a_pin_keeps_its_root_and_drops_what_others_added(mesh: Mesh, stranger: Mesh) -> None:
    both = parse_bundle(stranger.bundle_pem + mesh.bundle_pem)
    assert len(both.roots) == 2
    assert pinned(both, mesh.pin) == parse_bundle(mesh.bundle_pem)


def test_a_wrong_pin_names_both(mesh: Mesh, stranger: Mesh) -> None:
    with pytest.raises(WrongPin) as caught:
        pinned(parse_bundle(mesh.bundle_pem), stranger.pin)
    assert (caught.value.expected, caught.value.found) == (stranger.pin, (mesh.pin,))
    assert stranger.pin in str(caught.value)
    assert mesh.pin in str(caught.value)


@pytest.mark.parametrize(
    "pin", ["", "sha256:", "sha256:" + "g" * 64, "md5:" + "0" * 64, "0" * 64, "sha256:" + "0" * 63]
)
def test_a_text_that_is_no_pin_is_refused(pin: str) -> None:
    with pytest.raises(InvalidInput, match="ca pin"):
        check_pin(pin)


def test_a_pin_may_be_in_capitals() -> None:
    assert check_pin(f" SHA256:{'AB' * 32}\n") == f"sha256:{'ab' * 32}"


def test_a_server_of_the_mesh_is_recognised(mesh: Mesh) -> None:
    bundle = parse_bundle(mesh.bundle_pem)
    leaf = mesh.files(Kind.CONTROL_PLANE, "cp-1").certificate
    assert (
        str(check_server(leaf, bundle, kind=Kind.CONTROL_PLANE, now=NOW))
        == "spiffe://mesh.local/control-plane/cp-1"
    )


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Kind.GATEWAY, "wrong_server"), (Kind.NODE, "unknown_issuer"), (Kind.OPERATOR, "unknown_issuer")],
)
def test_another_kind_cannot_pose_as_the_control_plane(mesh: Mesh, kind: Kind, reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        check_server(mesh.files(kind).certificate, parse_bundle(mesh.bundle_pem), kind=Kind.CONTROL_PLANE, now=NOW)
    assert caught.value.reason == reason


def test_cas_that_sign_no_servers_do_not_get_into_a_bundle(mesh: Mesh) -> None:
    everything = mesh.bundle_pem.encode() + mesh.ca_pem(Role.NODE) + mesh.ca_pem(Role.OPERATOR)
    assert parse_bundle(everything) == parse_bundle(mesh.bundle_pem)


def test_a_stranger_and_an_expired_server_are_refused(mesh: Mesh, stranger: Mesh) -> None:
    bundle = parse_bundle(mesh.bundle_pem)
    leaf = mesh.files(Kind.CONTROL_PLANE).certificate
    with pytest.raises(Unauthenticated) as caught:
        check_server(stranger.files(Kind.CONTROL_PLANE).certificate, bundle, kind=Kind.CONTROL_PLANE, now=NOW)
    assert caught.value.reason == "unknown_issuer"
    for moment in (leaf.not_valid_after_utc, leaf.not_valid_before_utc - timedelta(seconds=1)):
        with pytest.raises(Unauthenticated) as caught:
            check_server(leaf, bundle, kind=Kind.CONTROL_PLANE, now=moment)
        assert caught.value.reason == "certificate_expired"


@pytest.mark.parametrize(
    "sans",
    [
        [],
        ["spiffe://mesh.local/node/a", "spiffe://mesh.local/node/b"],
        ["spiffe://mesh.local/node/a", "https://example.org"],
        ["https://example.org"],
        ["spiffe://mesh.local/node/A"],
    ],
)
def test_a_certificate_must_carry_exactly_one_name(mesh: Mesh, sans: list[str]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        identity_of(_leaf_with(sans, mesh=mesh))
    assert caught.value.reason == "bad_identity"


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_a_certificate_whose_signed_part_is_damaged_is_refused(mesh: Mesh) -> None:
    bundle = parse_bundle(mesh.bundle_pem)
    leaf = mesh.files(Kind.CONTROL_PLANE).certificate
    der = leaf.public_bytes(Encoding.DER)
    for at, octet in enumerate(der[: der.index(leaf.tbs_certificate_bytes) + len(leaf.tbs_certificate_bytes)]):
        for other in {0, 2, 0xFF, octet ^ 1, octet ^ 0x80} - {octet}:
            pem = ssl.DER_cert_to_PEM_cert(der[:at] + bytes([other]) + der[at + 1 :])
            with pytest.raises((InvalidInput, Unauthenticated)):
                check_server(load_certificates(pem)[0], bundle, kind=Kind.CONTROL_PLANE, now=NOW)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_reading_a_damaged_certificate_never_fails_otherwise(mesh: Mesh) -> None:
    der = mesh.authorities[Role.CONTROL].certificate.public_bytes(Encoding.DER)
    for at, octet in enumerate(der):
        for other in {0, 2, 0xFF, octet ^ 1} - {octet}:
            pem = ssl.DER_cert_to_PEM_cert(der[:at] + bytes([other]) + der[at + 1 :])
            with suppress(InvalidInput):
                make_bundle([mesh.root, *load_certificates(pem)])
            with suppress(Unauthenticated):
                caller_of({"x509_pem_cert": [pem.encode()]})


def test_a_name_without_server_usage_makes_no_server(mesh: Mesh) -> None:
    leaf = _leaf_with(["spiffe://mesh.local/control-plane/a"], mesh=mesh)
    with pytest.raises(Unauthenticated) as caught:
        check_server(leaf, parse_bundle(mesh.bundle_pem), kind=Kind.CONTROL_PLANE, now=NOW)
    assert caught.value.reason == "wrong_server"
    assert to_pem(leaf).startswith(b"-----BEGIN CERTIFICATE-----")
