"""Joining: one-time token → key made here → certificate. Everything that can go wrong is said in one line.

The order matters. The server's root is checked against the pin before the token leaves this machine; the key is
on disk before the token is used, so that a lost reply is asked for again with the same key, which the server
allows; what came back is checked before it replaces anything.
"""

from dataclasses import dataclass

import grpc
from cryptography.hazmat.primitives import serialization

from mesh.enroll.v1.enroll_pb2 import JoinRequest, JoinResponse
from mesh.enroll.v1.enroll_pb2_grpc import EnrollServiceStub
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput, MeshError, Unauthenticated, Unavailable
from mesh.kit.settings import Address, parse_address
from mesh.wire.channel import secure_channel
from node_agent.disk import Disk, NodeIdentity
from pki import tokens
from pki.bundle import WrongPin, check_pin, identity_of, issued_by, load_certificates, parse_bundle
from pki.csr import PrivateKey, key_from_pem, key_to_pem, make_csr, new_key
from pki.names import Kind
from pki.peer import reason_of
from pki.tls import FirstContact, channel_credentials, fetch_bundle

BUDGET_S = 20.0  # for the join call, in which the server signs and writes one transaction
MAX_HOSTNAME = 64


class JoinFailed(MeshError):
    """This machine did not join; the text says why and what to do."""

    code = "join_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """What the owner gave: where to join, whom to expect there, the token. InvalidInput names what is wrong."""

    control_plane: Address
    ca_pin: str
    token: str

    def __post_init__(self) -> None:
        check_pin(self.ca_pin)
        tokens.parse(self.token)

    def __repr__(self) -> str:
        return f"Joining({self.control_plane})"


def joining(*, control_plane: str, ca_pin: str, token: str) -> Joining:
    """From the texts of a command line. InvalidInput names the one that is wrong."""
    try:
        address = parse_address(control_plane)
    except ValueError:
        raise InvalidInput("--control-plane", "must be host:port") from None
    try:
        return Joining(control_plane=address, ca_pin=ca_pin.strip().lower(), token=token.strip())
    except InvalidInput as exc:
        raise InvalidInput("--ca-pin" if "pin" in exc.field else exc.field, exc.problem) from None


async def enroll(asked: Joining, *, disk: Disk, clock: Clock, hostname: str, agent_version: str) -> NodeIdentity:
    """Join, and keep the identity on disk. JoinFailed says why not; asking again is always safe."""
    contact = await _first_contact(asked, clock)
    key = _key(disk)
    reply = await _join(asked, contact, key, hostname=hostname, agent_version=agent_version)
    identity = _checked(reply, key=key, contact=contact, clock=clock)
    disk.keep_identity(identity, chain_pem=reply.certificate_chain_pem, trust_bundle_pem=reply.trust_bundle_pem)
    return identity


def _key(disk: Disk) -> PrivateKey:
    kept = disk.joining_key()
    if kept is not None:
        try:
            return key_from_pem(kept)
        except InvalidInput:
            pass  # a damaged leftover: nothing was ever signed for it
    key = new_key()
    disk.keep_joining_key(key_to_pem(key))
    return key


async def _first_contact(asked: Joining, clock: Clock) -> FirstContact:
    where = asked.control_plane
    try:
        return await fetch_bundle(str(where), asked.ca_pin, now=clock.now())
    except WrongPin as exc:
        raise JoinFailed(
            f"{where} is not the control plane you pinned: {exc}. Nothing was sent; check the address and --ca-pin"
        ) from exc
    except Unauthenticated as exc:
        hint = f"; this machine's clock says {clock.now():%Y-%m-%d %H:%M} UTC" if "expired" in exc.reason else ""
        raise JoinFailed(f"{where} cannot be trusted: {exc}{hint}. Nothing was sent") from exc
    except Unavailable as exc:
        raise JoinFailed(f"{exc}. Check the address, and that its port can be reached from here") from exc


async def _join(
    asked: Joining, contact: FirstContact, key: PrivateKey, *, hostname: str, agent_version: str
) -> JoinResponse:
    credentials = channel_credentials(contact.trust_bundle_pem)
    request = JoinRequest(
        token=asked.token, csr_der=make_csr(key), hostname=hostname[:MAX_HOSTNAME], agent_version=agent_version
    )
    async with secure_channel(str(asked.control_plane), credentials, server_name=contact.server_name) as channel:
        try:
            reply: JoinResponse = await EnrollServiceStub(channel).Join(request, timeout=BUDGET_S)
        except grpc.aio.AioRpcError as exc:
            raise JoinFailed(_why_refused(exc, asked)) from exc
    return reply


def _why_refused(exc: grpc.aio.AioRpcError, asked: Joining) -> str:
    code = grpc.StatusCode
    said = exc.details() or reason_of(exc) or exc.code().name.lower()
    match exc.code():
        case code.UNAUTHENTICATED | code.PERMISSION_DENIED:
            return f"the token was refused: {said}. Ask for a new one"
        case code.RESOURCE_EXHAUSTED:
            return f"too many attempts from this address ({said}); wait a minute and try again"
        case code.INVALID_ARGUMENT:
            return f"the request was refused: {said}"
        case code.UNAVAILABLE | code.DEADLINE_EXCEEDED:
            return f"no answer from {asked.control_plane} ({said}); the same command may be repeated safely"
        case _:
            return f"{asked.control_plane} answered {exc.code().name}: {said}"


def _checked(reply: JoinResponse, *, key: PrivateKey, contact: FirstContact, clock: Clock) -> NodeIdentity:
    """Who we are now, if the answer holds together; JoinFailed otherwise."""
    try:
        leaf, *issuers = load_certificates(reply.certificate_chain_pem)
        named = identity_of(leaf)
        bundle = parse_bundle(reply.trust_bundle_pem)
        parse_address(reply.node_endpoint)
    except (MeshError, ValueError) as exc:
        raise JoinFailed(f"the control plane's answer makes no sense: {exc}") from exc
    if _spki(leaf.public_key()) != _spki(key.public_key()):
        raise JoinFailed("the control plane's answer makes no sense: a certificate for another key")
    if (named.kind, named.id, named.trust_domain) != (Kind.NODE, reply.node_id, contact.trust_domain):
        raise JoinFailed(f"the control plane's answer makes no sense: a certificate for {named}")
    pinned = parse_bundle(contact.trust_bundle_pem)
    if not any(issued_by(issuer, root) and issued_by(leaf, issuer) for issuer in issuers for root in pinned.roots):
        raise JoinFailed("the control plane's answer makes no sense: a certificate of another authority")
    if not set(pinned.roots) & set(bundle.roots):
        raise JoinFailed("the control plane's answer makes no sense: a trust bundle without the pinned root")
    now = clock.now()
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        raise JoinFailed(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, but the certificate just made is valid from "
            f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"to {leaf.not_valid_after_utc:%Y-%m-%d %H:%M}; set the clock"
        )
    return NodeIdentity(
        node_id=reply.node_id,
        trust_domain=contact.trust_domain,
        node_endpoint=reply.node_endpoint,
        server_name=reply.control_plane_server_name or contact.server_name,
    )


def _spki(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    der: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der
