"""What the certificate authorities sign, and what they refuse."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from mesh.kit.errors import InvalidInput
from pki.__main__ import init
from pki.authority import Authority, Issued, create_issuing, load_authority, trust_domain_of
from pki.csr import new_key
from pki.names import Identity, Kind
from pki.policy import SIGNED_BY, Role
from tests.fakes.pki import Mesh

NOW = datetime(2026, 3, 1, 12, 0, 0, 500, tzinfo=UTC)
DAY = timedelta(hours=24)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(now=NOW)


def _sign(mesh: Mesh, kind: Kind, *, ttl: timedelta = DAY, dns_names: tuple[str, ...] = ()) -> Issued:
    authority = mesh.authorities[SIGNED_BY[kind]]
    return authority.sign(new_key().public_key(), mesh.identity(kind), now=NOW, ttl=ttl, dns_names=dns_names)


def _usages(certificate: x509.Certificate) -> set[ObjectIdentifier]:
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize(
    ("kind", "usages", "dns"),
    [
        (Kind.NODE, {CLIENT}, []),
        (Kind.GATEWAY, {CLIENT, SERVER}, ["gateway.mesh.local"]),
        (Kind.CONTROL_PLANE, {CLIENT, SERVER}, ["control-plane.mesh.local"]),
        (Kind.OPERATOR, {CLIENT}, []),
    ],
)
def test_a_leaf_says_who_it_is_and_what_it_may(
    mesh: Mesh, kind: Kind, usages: set[ObjectIdentifier], dns: list[str]
) -> None:
    issued = _sign(mesh, kind)
    leaf, issuer = x509.load_pem_x509_certificates(issued.chain_pem.encode())
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(mesh.root)
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://mesh.local/{kind}/one"]
    assert san.get_values_for_type(x509.DNSName) == dns
    assert _usages(leaf) == usages
    assert leaf.not_valid_before_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == issued.not_after == NOW.replace(microsecond=0) + DAY
    assert issued.serial_hex == f"{leaf.serial_number:x}"
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca
    public = leaf.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    own = leaf.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    above = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert own == x509.SubjectKeyIdentifier.from_public_key(public)
    assert (
        above.key_identifier
        == x509.SubjectKeyIdentifier.from_public_key(mesh.authorities[SIGNED_BY[kind]].key.public_key()).digest
    )


def test_serials_are_random_and_long(mesh: Mesh) -> None:
    serials = {int(_sign(mesh, Kind.NODE).serial_hex, 16) for _ in range(64)}
    assert len(serials) == 64
    assert max(serials).bit_length() > 128


def test_a_server_may_have_further_names(mesh: Mesh) -> None:
    chain = _sign(mesh, Kind.GATEWAY, dns_names=("gw.example.org", "gateway.mesh.local")).chain_pem
    san = x509.load_pem_x509_certificate(chain.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert san.value.get_values_for_type(x509.DNSName) == ["gateway.mesh.local", "gw.example.org"]


@pytest.mark.parametrize("bad", ["", "Example.org", "a b", "*.example.org", "ä.org"])
def test_a_further_name_must_be_a_dns_name(mesh: Mesh, bad: str) -> None:
    with pytest.raises(InvalidInput, match="dns name"):
        _sign(mesh, Kind.GATEWAY, dns_names=(bad,))


def test_a_client_gets_no_server_name(mesh: Mesh) -> None:
    with pytest.raises(InvalidInput, match="no server"):
        _sign(mesh, Kind.NODE, dns_names=("control-plane.mesh.local",))


@pytest.mark.parametrize("role", Role)
def test_a_ca_signs_only_the_kinds_of_its_role(mesh: Mesh, role: Role) -> None:
    for kind in Kind:
        if SIGNED_BY[kind] is not role:
            with pytest.raises(InvalidInput, match="not signed by"):
                mesh.authorities[role].sign(new_key().public_key(), mesh.identity(kind), now=NOW, ttl=DAY)


def test_a_ca_signs_only_for_its_trust_domain(mesh: Mesh) -> None:
    foreign = Identity(Kind.NODE, "one", "other.local")
    with pytest.raises(InvalidInput, match=r"mesh\.local"):
        mesh.authorities[Role.NODE].sign(new_key().public_key(), foreign, now=NOW, ttl=DAY)


@pytest.mark.parametrize("ttl", [timedelta(0), -DAY, timedelta(days=731)])
def test_a_leaf_neither_ends_before_it_begins_nor_outlives_its_ca(mesh: Mesh, ttl: timedelta) -> None:
    with pytest.raises(InvalidInput, match="ttl"):
        _sign(mesh, Kind.NODE, ttl=ttl)


def test_only_the_control_ca_can_make_servers_and_none_can_make_cas(mesh: Mesh) -> None:
    for role, authority in mesh.authorities.items():
        constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
        assert (SERVER in _usages(authority.certificate)) is (role is Role.CONTROL)
        assert authority.role is role
        assert authority.trust_domain == "mesh.local"


def test_a_key_that_is_not_the_cas_is_refused(mesh: Mesh) -> None:
    authority = mesh.authorities[Role.NODE]
    with pytest.raises(InvalidInput, match="key"):
        Authority(authority.certificate, new_key(), mesh.root)


def test_an_issuing_ca_never_outlives_its_root(mesh: Mesh) -> None:
    late = NOW + timedelta(days=3500)
    made = create_issuing(new_key().public_key(), Role.NODE, root=mesh.root, root_key=mesh.root_key, now=late)
    assert made.not_valid_after_utc == mesh.root.not_valid_after_utc


def test_a_leaf_is_no_ca_of_a_trust_domain(mesh: Mesh) -> None:
    leaf = x509.load_pem_x509_certificate(_sign(mesh, Kind.OPERATOR).chain_pem.encode())
    with pytest.raises(InvalidInput):
        trust_domain_of(leaf)


def test_authorities_are_loaded_from_the_folder_that_init_made(tmp_path: Path) -> None:
    init(tmp_path / "pki", trust_domain="example.org", now=NOW)
    for role in Role:
        authority = load_authority(tmp_path / "pki", role)
        assert (authority.role, authority.trust_domain) == (role, "example.org")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    init(folder, trust_domain="a.org", now=NOW)
    init(tmp_path / "other", trust_domain="a.org", now=NOW)
    (folder / "node-ca.crt").write_bytes((folder / "control-ca.crt").read_bytes())
    with pytest.raises(InvalidInput, match="key"):
        load_authority(folder, Role.NODE)
    (folder / "node-ca.key").write_bytes((folder / "control-ca.key").read_bytes())
    with pytest.raises(InvalidInput, match="the control CA's"):
        load_authority(folder, Role.NODE)
    (folder / "root.crt").write_bytes((tmp_path / "other/root.crt").read_bytes())
    with pytest.raises(InvalidInput, match=r"under root\.crt"):
        load_authority(folder, Role.CONTROL)
    (folder / "root.crt").unlink()
    with pytest.raises(OSError, match="root"):
        load_authority(folder, Role.CONTROL)
