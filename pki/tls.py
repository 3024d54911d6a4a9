"""TLS for gRPC: credentials of servers and clients, and the first contact of a machine that only has a pin."""

import asyncio
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509

from mesh.enroll.v1.enroll_pb2 import GetTrustBundleRequest, GetTrustBundleResponse
from mesh.enroll.v1.enroll_pb2_grpc import EnrollServiceStub
from mesh.kit.errors import InvalidInput, Unauthenticated, Unavailable
from mesh.kit.settings import parse_address
from pki import names
from pki.authority import to_pem
from pki.bundle import (
    MAX_BUNDLE,
    check_pin,
    check_server,
    identity_of,
    issued_by,
    load_certificates,
    parse_bundle,
    pinned,
)
from pki.csr import MALFORMED, key_from_pem
from pki.names import Identity, Kind


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What one process shows and trusts: its key, its chain (leaf first), and the bundle it trusts servers by."""

    key_pem: bytes
    chain_pem: bytes
    trust_bundle_pem: bytes  # empty where the process dials nobody

    def __post_init__(self) -> None:
        if key_from_pem(self.key_pem).public_key() != self.certificate.public_key():
            raise InvalidInput("tls files", "the key is not the certificate's")

    def __repr__(self) -> str:
        return f"TlsFiles({self.identity})"

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf."""
        return load_certificates(self.chain_pem)[0]

    @property
    def identity(self) -> Identity:
        """Whom the leaf names."""
        return identity_of(self.certificate)

    @property
    def not_after(self) -> datetime:
        """When the leaf ends. An expired one is refused by peers without a reason, so check before dialling."""
        return self.certificate.not_valid_after_utc


def load_tls(directory: Path) -> TlsFiles:
    """Read ``tls.key``, ``tls.crt`` and, where there is one, ``trust-bundle.pem``.

    OSError when a file cannot be read; InvalidInput when they do not fit together.
    """
    bundle = directory / "trust-bundle.pem"
    return TlsFiles(
        key_pem=(directory / "tls.key").read_bytes(),
        chain_pem=(directory / "tls.crt").read_bytes(),
        trust_bundle_pem=bundle.read_bytes() if bundle.exists() else b"",
    )


class ServerTls:
    """The TLS side of a listener. ``replace`` gives later handshakes a new certificate.

    With ``client_cas_pem`` a client must show a certificate of one of those issuing CAs. A root among them is left
    out: it would let the clients of every other CA in.

    A server of grpcio resumes a session without looking at the client's certificate again; the guard refuses
    calls on resumed sessions. Handing the core a fresh configuration at every handshake would keep them from being
    resumed at all, but it swaps the core's handshake factory under other handshakes that run at the same moment,
    and a few hundred of those end the process (grpcio 1.85.1). So a configuration is handed over once, after
    ``replace``. The fetcher runs on core threads, one at a time, and an exception in it would silently keep what
    was there, so it does nothing but return.
    """

    def __init__(self, files: TlsFiles, client_cas_pem: bytes | None = None) -> None:
        self._client_cas = None if client_cas_pem is None else _issuing_only(client_cas_pem)
        self._configuration = self._configured(files)
        self._next: grpc.ServerCertificateConfiguration | None = None

    def replace(self, files: TlsFiles) -> None:
        """Show this certificate from the next handshake on."""
        self._configuration = self._next = self._configured(files)

    def _configured(self, files: TlsFiles) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(files.key_pem, files.chain_pem)], self._client_cas)

    def credentials(self) -> grpc.ServerCredentials:
        """For ``grpc.aio.Server.add_secure_port`` of one listener."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # the stub forgets that None means: unchanged
            require_client_authentication=self._client_cas is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What to show instead, once; None: what is shown already."""
        following, self._next = self._next, None
        return following


def server_credentials(files: TlsFiles, client_cas_pem: bytes | None = None) -> grpc.ServerCredentials:
    """Credentials of a listener whose certificate stays the same; see ServerTls."""
    return ServerTls(files, client_cas_pem).credentials()


def channel_credentials(
    trust_bundle_pem: bytes | str, *, key_pem: bytes | None = None, chain_pem: bytes | str | None = None
) -> grpc.ChannelCredentials:
    """Credentials of a client that trusts only this bundle, and shows a certificate when it is given one."""
    return grpc.ssl_channel_credentials(parse_bundle(trust_bundle_pem).pem.encode(), key_pem, _octets(chain_pem))


@dataclass(frozen=True, slots=True)
class FirstContact:
    """What a pin has vouched for: whom to trust from now on, and what the server is called."""

    trust_bundle_pem: str
    trust_domain: str
    server_name: str


async def fetch_bundle(address: str, pin: str, *, now: datetime, budget_s: float = 15.0) -> FirstContact:
    """Ask an enrolment listener for its trust bundle and check it against the pin of the root.

    Until this returns, nothing but the public question has been sent. Whatever the server adds beside the pinned
    root and what that root signed is dropped. The caller then opens a new channel that trusts this bundle alone,
    and sends its token there.

    WrongPin names both pins; Unauthenticated: the server does not belong to the pinned root; Unavailable: no
    answer.
    """
    pin = check_pin(pin)
    try:
        async with asyncio.timeout(budget_s):
            leaf = await _served_certificate(address)
            reply = await _ask(address, leaf)
    except (OSError, TimeoutError, grpc.aio.AioRpcError) as exc:
        raise Unavailable(f"no trust bundle from {address}: {_why(exc)}") from exc
    try:
        bundle = pinned(parse_bundle(reply.trust_bundle_pem), pin)
    except InvalidInput as exc:
        raise Unauthenticated("bad_trust_bundle", f"{address} sent no usable trust bundle: {exc}") from exc
    identity = check_server(leaf, bundle, kind=Kind.CONTROL_PLANE, now=now)
    return FirstContact(
        trust_bundle_pem=bundle.pem,
        trust_domain=identity.trust_domain,
        server_name=names.server_name(Kind.CONTROL_PLANE, identity.trust_domain),
    )


async def _served_certificate(address: str) -> x509.Certificate:
    """The certificate that a server shows. Nothing about it has been checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        where = parse_address(address)
    except ValueError:
        raise InvalidInput("address", "not of the form host:port") from None
    _, writer = await asyncio.open_connection(where.host, where.port, ssl=context)
    try:
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        der = shown.getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    try:
        return x509.load_der_x509_certificate(der or b"")
    except MALFORMED:
        raise Unauthenticated("wrong_server", f"{address} shows a certificate that does not parse") from None


async def _ask(address: str, leaf: x509.Certificate) -> GetTrustBundleResponse:
    """Call GetTrustBundle on whoever holds the key of that certificate."""
    try:
        shown = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        name = shown.get_values_for_type(x509.DNSName)[0]
    except (x509.ExtensionNotFound, IndexError, *MALFORMED):
        raise Unauthenticated("wrong_server", f"{address} is no server of a mesh") from None
    options = (
        ("grpc.ssl_target_name_override", name),
        ("grpc.max_receive_message_length", MAX_BUNDLE),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    )
    credentials = grpc.ssl_channel_credentials(to_pem(leaf))
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        reply: GetTrustBundleResponse = await EnrollServiceStub(channel).GetTrustBundle(GetTrustBundleRequest())
    return reply


def _issuing_only(pem: bytes) -> bytes:
    issuing = [one for one in load_certificates(pem) if not issued_by(one, one)]
    if not issuing:
        raise InvalidInput("client CAs", "none but roots: name the issuing CA whose clients may come")
    return b"".join(to_pem(one) for one in issuing)


def _octets(text: bytes | str | None) -> bytes | None:
    return text.encode() if isinstance(text, str) else text


def _why(exc: Exception) -> str:
    if isinstance(exc, grpc.aio.AioRpcError):
        return exc.details() or exc.code().name.lower()
    return str(exc) or type(exc).__name__
