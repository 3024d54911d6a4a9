"""TLS on real sockets: who may connect, and that nothing is answered on a resumed session."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc._cython import cygrpc

from mesh.kit.errors import InvalidInput
from pki.authority import Authority, to_pem
from pki.files import make_private_dir, write_private
from pki.names import Kind
from pki.peer import reason_of
from pki.policy import Role
from pki.tls import ServerTls, TlsFiles, channel_credentials, load_tls, server_credentials
from tests.contract.certificates import NODE_NAME, odd_files, odd_leaf
from tests.contract.grpc_server import SERVICE, serving
from tests.fakes.pki import Mesh

UNARY = f"/{SERVICE}/Unary"
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture(scope="module")
def stranger() -> Mesh:
    """Another mesh of the same name."""
    return Mesh()


async def attempt(channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
    """What comes of one call: the status and, where the server gave one, the reason."""
    async with channel:
        try:
            await channel.unary_unary(UNARY)(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code(), reason_of(error)
    return grpc.StatusCode.OK, ""


UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, "")  # what a client sees of a failed handshake


async def test_a_node_of_the_mesh_is_let_in(mesh: Mesh) -> None:
    async with serving(mesh) as server:
        assert await attempt(server.channel(mesh.files(Kind.NODE))) == (grpc.StatusCode.OK, "")


async def test_without_a_certificate_there_is_no_connection(mesh: Mesh) -> None:
    async with serving(mesh) as server:
        assert await attempt(server.channel(None)) == UNREACHABLE


@pytest.mark.parametrize("kind", [Kind.GATEWAY, Kind.CONTROL_PLANE, Kind.OPERATOR])
async def test_another_kind_cannot_connect_where_only_nodes_may(mesh: Mesh, kind: Kind) -> None:
    async with serving(mesh) as server:
        assert await attempt(server.channel(mesh.files(kind))) == UNREACHABLE


async def test_a_root_among_the_client_cas_lets_no_other_ca_in(mesh: Mesh) -> None:
    both = mesh.ca_pem(Role.NODE) + to_pem(mesh.root)
    async with serving(mesh, client_cas_pem=both) as server:
        assert await attempt(server.channel(mesh.files(Kind.NODE))) == (grpc.StatusCode.OK, "")
        assert await attempt(server.channel(mesh.files(Kind.GATEWAY))) == UNREACHABLE


def test_only_roots_are_no_client_cas(mesh: Mesh) -> None:
    with pytest.raises(InvalidInput, match="none but roots"):
        server_credentials(mesh.files(Kind.CONTROL_PLANE), to_pem(mesh.root))


async def test_a_kind_from_a_trusted_ca_still_needs_its_row(mesh: Mesh) -> None:
    async with serving(mesh, client_cas_pem=mesh.ca_pem(Role.NODE) + mesh.ca_pem(Role.CONTROL)) as server:
        outcome = await attempt(server.channel(mesh.files(Kind.GATEWAY)))
    assert outcome == (grpc.StatusCode.PERMISSION_DENIED, "wrong_kind")


async def test_a_foreign_ca_is_refused(mesh: Mesh, stranger: Mesh) -> None:
    forged = odd_files(mesh, odd_leaf(stranger.authorities[Role.NODE]))
    async with serving(mesh) as server:
        assert await attempt(server.channel(forged)) == UNREACHABLE


@pytest.mark.parametrize(
    "odd",
    [
        lambda ca: odd_leaf(ca, usage=SERVER),
        lambda ca: odd_leaf(ca, ends_in=timedelta(seconds=-1)),
        lambda ca: odd_leaf(ca, starts_in=timedelta(minutes=30)),
    ],
    ids=["wrong usage", "expired", "not yet valid"],
)
async def test_an_unusable_certificate_is_refused_in_the_handshake(
    mesh: Mesh, odd: Callable[[Authority], tuple[bytes, bytes]]
) -> None:
    async with serving(mesh) as server:
        files = odd_files(mesh, odd(mesh.authorities[Role.NODE]))
        assert await attempt(server.channel(files)) == UNREACHABLE


@pytest.mark.parametrize(
    "names",
    [
        (NODE_NAME, "spiffe://mesh.local/node/two"),
        (NODE_NAME, NODE_NAME),
        ("spiffe://mesh.local/node/One",),
        ("spiffe://mesh.local/node/one/two",),
        ("https://example.org/node/one",),
    ],
)
async def test_a_certificate_with_an_ambiguous_name_is_refused(mesh: Mesh, names: tuple[str, ...]) -> None:
    async with serving(mesh) as server:
        files = odd_files(mesh, odd_leaf(mesh.authorities[Role.NODE], names=names))
        assert await attempt(server.channel(files)) == (grpc.StatusCode.UNAUTHENTICATED, "bad_identity")


async def test_the_name_in_the_common_name_counts_for_nothing(mesh: Mesh) -> None:
    nameless = odd_leaf(mesh.authorities[Role.NODE], names=(), dns=("control-plane.mesh.local",))
    async with serving(mesh) as server:
        outcome = await attempt(server.channel(odd_files(mesh, nameless)))
    assert outcome == (grpc.StatusCode.UNAUTHENTICATED, "bad_identity")


async def test_a_node_cannot_be_a_server_even_with_a_servers_certificate(mesh: Mesh) -> None:
    """Its CA may not vouch for servers, whatever it signs, and even when it slipped into the client's bundle."""
    posing = odd_leaf(mesh.authorities[Role.NODE], usage=SERVER, dns=("control-plane.mesh.local",))
    options = (("grpc.ssl_target_name_override", "control-plane.mesh.local"),)
    async with serving(mesh, credentials=server_credentials(odd_files(mesh, posing))) as server:
        for bundle in (mesh.bundle_pem.encode(), mesh.bundle_pem.encode() + mesh.ca_pem(Role.NODE)):
            channel = grpc.aio.secure_channel(server.address, channel_credentials(bundle), options)
            assert await attempt(channel) == UNREACHABLE


@pytest.mark.parametrize("kind", [Kind.GATEWAY, Kind.CONTROL_PLANE])
async def test_a_client_talks_only_to_the_server_it_means(mesh: Mesh, kind: Kind) -> None:
    credentials = server_credentials(mesh.files(kind), mesh.ca_pem(Role.NODE))
    async with serving(mesh, credentials=credentials) as server:
        outcome = await attempt(server.channel(mesh.files(Kind.NODE)))
    assert outcome == ((grpc.StatusCode.OK, "") if kind is Kind.CONTROL_PLANE else UNREACHABLE)


def test_no_bundle_never_means_the_systems_roots() -> None:
    with pytest.raises(InvalidInput):
        channel_credentials(b"")


async def test_a_replaced_certificate_is_shown_from_the_next_handshake_on(mesh: Mesh) -> None:
    node, first, second = mesh.files(Kind.NODE), mesh.files(Kind.CONTROL_PLANE), mesh.files(Kind.CONTROL_PLANE)
    tls = ServerTls(first, mesh.ca_pem(Role.NODE))
    async with serving(mesh, credentials=tls.credentials()) as server, server.channel(node) as old:
        await old.unary_unary(UNARY)(b"")
        assert await shown(server.port) == first.certificate
        tls.replace(second)
        assert await shown(server.port) == second.certificate
        await old.unary_unary(UNARY)(b"")  # a connection that stands is left alone
        assert await attempt(server.channel(node)) == (grpc.StatusCode.OK, "")


async def shown(port: int) -> x509.Certificate:
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode())


# --- resumption ------------------------------------------------------------------------------------------------


class RawClient:
    """A TLS client that keeps the server's session ticket and offers it again."""

    def __init__(self, mesh: Mesh, files: TlsFiles, folder: Path, version: ssl.TLSVersion) -> None:
        self.context = ssl.create_default_context(cadata=mesh.bundle_pem)
        self.context.minimum_version = self.context.maximum_version = version
        self.context.set_alpn_protocols(["h2"])
        make_private_dir(folder)
        write_private(folder / "tls.key", files.key_pem)
        write_private(folder / "tls.crt", files.chain_pem)
        self.context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self.session: ssl.SSLSession | None = None

    def connect(self, port: int) -> str:
        """``full``, ``resumed`` or ``refused``; a server that lets us in sends its settings first."""
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
                self.context.wrap_socket(
                    plain, server_hostname="control-plane.mesh.local", session=self.session
                ) as secure,
            ):
                secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
                if not secure.recv(9):
                    return "refused"
                self.session = secure.session
                return "resumed" if secure.session_reused else "full"
        except (ssl.SSLError, ConnectionError):
            return "refused"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_begins_anew_after_the_certificate_was_replaced(
    mesh: Mesh, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    client = RawClient(mesh, mesh.files(Kind.NODE), tmp_path, version)
    tls = ServerTls(mesh.files(Kind.CONTROL_PLANE), mesh.ca_pem(Role.NODE))
    async with serving(mesh, credentials=tls.credentials()) as server:
        seen = [await asyncio.to_thread(client.connect, server.port) for _ in range(2)]
        tls.replace(mesh.files(Kind.CONTROL_PLANE))
        seen.append(await asyncio.to_thread(client.connect, server.port))
    assert seen == ["full", "resumed", "full"]


async def test_a_call_on_a_resumed_session_is_refused_however_good_its_certificate(mesh: Mesh) -> None:
    kept = cygrpc.SSLSessionCacheLRU(4)
    node = mesh.files(Kind.NODE)
    async with serving(mesh) as server:
        answers = []
        for _ in range(2):
            channel = server.channel(node, ("grpc.ssl_session_cache", kept))
            answers.append(await attempt(channel))
    assert answers == [(grpc.StatusCode.OK, ""), (grpc.StatusCode.UNAUTHENTICATED, "session_resumed")]


def test_a_configuration_is_handed_over_once_after_it_was_replaced(mesh: Mesh) -> None:
    """The core frees its handshake factory when it is handed one, under handshakes that run."""
    tls = ServerTls(mesh.files(Kind.CONTROL_PLANE), mesh.ca_pem(Role.NODE))
    assert tls._fetch() is None
    tls.replace(mesh.files(Kind.CONTROL_PLANE))
    assert tls._fetch() is not None
    assert tls._fetch() is None


async def test_hundreds_of_handshakes_at_once_do_no_harm(mesh: Mesh, tmp_path: Path) -> None:
    """Handing over a configuration at every handshake ended the process here, about every third time."""
    clients = [
        RawClient(mesh, mesh.files(Kind.NODE), tmp_path / str(n), ssl.TLSVersion.TLSv1_3) for n in range(50)
    ]
    async with serving(mesh) as server:
        for _ in range(4):
            for client in clients:
                client.session = None
            seen = await asyncio.gather(*(asyncio.to_thread(one.connect, server.port) for one in clients))
            assert set(seen) == {"full"}


# --- files -----------------------------------------------------------------------------------------------------


def test_files_are_loaded_and_must_fit_together(mesh: Mesh, tmp_path: Path) -> None:
    files, other = mesh.files(Kind.NODE), mesh.files(Kind.NODE)
    write_private(tmp_path / "tls.key", files.key_pem)
    write_private(tmp_path / "tls.crt", files.chain_pem)
    assert load_tls(tmp_path) == replace(files, trust_bundle_pem=b"")
    write_private(tmp_path / "trust-bundle.pem", files.trust_bundle_pem)
    assert load_tls(tmp_path) == files
    write_private(tmp_path / "tls.key", other.key_pem)
    with pytest.raises(InvalidInput, match="key"):
        load_tls(tmp_path)


def test_the_key_does_not_show(mesh: Mesh) -> None:
    files = mesh.files(Kind.NODE)
    assert repr(files) == "TlsFiles(spiffe://mesh.local/node/one)"
    assert "PRIVATE" not in f"{files}"
