"""The guard on a real server: who gets in, when streams are cut, and what errors look like from outside."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from mesh.kit import errors
from mesh.kit.errors import InvalidInput, MeshError, PermissionDenied, TooManyRequests, Unauthenticated
from pki.names import Kind
from pki.peer import RETRY_AFTER_KEY, STATUS, Caller, Context, Guard, caller_of, reason_of
from pki.policy import Role
from pki.tls import TlsFiles, server_credentials
from tests.contract.grpc_server import BRIEFLY, SERVICE, TABLE, expiry_of, serving
from tests.fakes.clock import FakeClock, settle
from tests.fakes.pki import Mesh

STREAMS = ["Talk", "Converse"]
GUARD_S = 10  # against a hang; nothing is asserted about how long it took


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture(scope="module")
def node(mesh: Mesh) -> TlsFiles:
    return mesh.files(Kind.NODE, "node-1")


def method(name: str) -> str:
    return f"/{SERVICE}/{name}"


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error that the call (or the read of a stream) ends with."""
    async with asyncio.timeout(GUARD_S):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    return caught.value


async def open_stream(channel: grpc.aio.Channel, name: str) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """A bidirectional stream that has echoed one message."""
    call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(method(name))()
    await call.write(b"hello")
    assert await call.read() == b"hello"
    return call


async def test_handlers_of_every_shape_work_behind_it(mesh: Mesh, node: TlsFiles) -> None:
    async with serving(mesh) as server, server.channel(node) as channel:
        assert await channel.unary_unary(method("Unary"))(b"a") == b"a"
        assert await channel.stream_unary(method("Up"))(iter([b"a", b"b"])) == b"a,b"
        down = channel.unary_stream(method("Down"))(b"a")
        assert [await down.read(), await down.read()] == [b"a1", b"a2"]
        down.cancel()
        assert await server.methods.ended.get() == "down"
        for name in STREAMS:
            call = await open_stream(channel, name)
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            assert await server.methods.ended.get() == name.lower()


async def test_the_caller_is_who_the_certificate_says(mesh: Mesh, node: TlsFiles) -> None:
    seen: list[Caller] = []

    async def answer(_request: bytes, context: Context) -> bytes:
        seen.append(caller_of(context.auth_context()))
        return b""

    async with serving(mesh) as server, server.channel(node) as channel:
        server.methods.answer = answer
        await channel.unary_unary(method("Unary"))(b"")
    serial = f"{node.certificate.serial_number:x}"
    assert seen == [Caller(mesh.identity(Kind.NODE, "node-1"), node.not_after, serial)]


@pytest.mark.parametrize("name", ["ForGateways", "ForNobody", "Forgotten"])
async def test_a_method_without_a_row_for_the_caller_is_refused(mesh: Mesh, node: TlsFiles, name: str) -> None:
    async with serving(mesh) as server, server.channel(node) as channel:
        error = await refused(channel.unary_unary(method(name))(b"undecodable"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "wrong_kind")


async def test_a_refusal_reaches_the_client_whatever_the_shape(mesh: Mesh, node: TlsFiles) -> None:
    table = {name: frozenset({Kind.OPERATOR}) for name in TABLE}
    async with serving(mesh, table=table) as server, server.channel(node) as channel:
        calls = [
            channel.unary_unary(method("Unary"))(b""),
            channel.stream_unary(method("Up"))(iter([b"a"])),
            channel.unary_stream(method("Down"))(b"").read(),
            channel.stream_stream(method("Talk"))(iter([b"a"])).read(),
            channel.stream_stream(method("Converse"))().read(),
        ]
        for call in calls:
            error = await refused(call)
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "wrong_kind")


async def test_an_unknown_method_is_unimplemented(mesh: Mesh, node: TlsFiles) -> None:
    async with serving(mesh) as server, server.channel(node) as channel:
        for name in (method("Nothing"), "/mesh.test.v1.Nothing/Unary", "/grpc.reflection.v1.ServerReflection/X"):
            error = await refused(channel.unary_unary(name)(b"secret"))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_anyone_may_call_an_anonymous_method_and_only_that(mesh: Mesh) -> None:
    credentials = server_credentials(mesh.files(Kind.CONTROL_PLANE))
    async with serving(mesh, credentials=credentials) as server, server.channel(None) as channel:
        assert await channel.unary_unary(method("ForAnyone"))(b"a") == b"a"
        error = await refused(channel.unary_unary(method("Unary"))(b"a"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "no_certificate")


async def test_a_message_that_does_not_decode_is_invalid_input(mesh: Mesh, node: TlsFiles) -> None:
    async with serving(mesh) as server, server.channel(node) as channel:
        error = await refused(channel.unary_unary(method("Unary"))(b"undecodable"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def test_another_trust_domain_is_refused_even_from_a_trusted_ca(mesh: Mesh) -> None:
    other = Mesh(trust_domain="other.local")
    async with (
        serving(mesh, client_cas_pem=other.ca_pem(Role.NODE)) as server,
        server.channel(other.files(Kind.NODE)) as channel,
    ):
        error = await refused(channel.unary_unary(method("Unary"))(b""))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "wrong_trust_domain")


# --- the end of a certificate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
async def test_an_open_stream_is_cut_when_its_certificate_ends(mesh: Mesh, node: TlsFiles, name: str) -> None:
    clock = FakeClock(datetime.now(UTC))
    async with serving(mesh, clock=clock) as server, server.channel(node) as channel:
        call = await open_stream(channel, name)
        await clock.forward(3590)
        await call.write(b"still here")
        assert await call.read() == b"still here"
        await clock.forward(20)
        error = await refused(call.read())
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired")
        assert await server.methods.ended.get() == name.lower()
        error = await refused(channel.unary_unary(method("Unary"))(b""))  # on the same connection
        assert reason_of(error) == "certificate_expired"


async def test_streams_of_one_direction_are_cut_too(mesh: Mesh, node: TlsFiles) -> None:
    clock = FakeClock(datetime.now(UTC))
    async with serving(mesh, clock=clock) as server, server.channel(node) as channel:
        down = channel.unary_stream(method("Down"))(b"")
        assert [await down.read(), await down.read()] == [b"1", b"2"]
        up = channel.stream_unary(method("Up"))()
        await up.write(b"a")
        await clock.forward(3610)
        for call in (down.read(), up):
            assert reason_of(await refused(call)) == "certificate_expired"


async def test_a_handler_that_ignores_the_cut_does_not_turn_it_into_success(mesh: Mesh, node: TlsFiles) -> None:
    clock = FakeClock(datetime.now(UTC))
    async with serving(mesh, clock=clock) as server, server.channel(node) as channel:
        call = channel.stream_stream(method("Stubborn"))()
        assert await call.read() == b"open"
        await clock.forward(3610)
        assert reason_of(await refused(call.read())) == "certificate_expired"
        assert await server.methods.ended.get() == "stubborn"


async def test_a_real_certificate_of_a_few_seconds_ends_a_real_stream(mesh: Mesh) -> None:
    short = mesh.files(Kind.NODE, ttl=BRIEFLY)
    async with serving(mesh) as server, server.channel(short) as channel:
        call = await open_stream(channel, "Converse")
        error = await refused(call.read())
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired")
        assert datetime.now(UTC) >= short.not_after
        error = await refused(channel.unary_unary(method("Unary"))(b""))  # the old connection is still there
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired")
        await expiry_of(short)
        async with server.channel(short) as fresh:  # and a new one does not come about
            error = await refused(fresh.unary_unary(method("Unary"))(b""))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "")


# --- revocation ------------------------------------------------------------------------------------------------


class Revocations:
    """The set that a control plane keeps in memory, as the guard asks it."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.broken = False

    def __call__(self, caller: Caller) -> MeshError | None:
        if self.broken:
            raise RuntimeError("the set is gone")
        return PermissionDenied("node_revoked") if caller.identity.id in self.nodes else None


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("at_once", [True, False], ids=["rechecked", "swept"])
async def test_revoking_a_node_cuts_its_streams_and_leaves_others(
    mesh: Mesh, node: TlsFiles, name: str, at_once: bool
) -> None:
    revoked = Revocations()
    async with (
        serving(mesh, still_allowed=revoked) as server,
        server.channel(node) as bad,
        server.channel(mesh.files(Kind.NODE, "node-2")) as good,
    ):
        cut, kept = await open_stream(bad, name), await open_stream(good, name)
        revoked.nodes.add("node-1")
        if at_once:
            server.guard.recheck()
        error = await refused(cut.read())
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "node_revoked")
        error = await refused(bad.unary_unary(method("Unary"))(b""))
        assert reason_of(error) == "node_revoked"
        await kept.write(b"still here")
        assert await kept.read() == b"still here"


async def test_a_check_that_fails_lets_nobody_through(
    mesh: Mesh, node: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    revoked = Revocations()
    async with serving(mesh, still_allowed=revoked) as server, server.channel(node) as channel:
        call = await open_stream(channel, "Talk")
        revoked.broken = True
        for refusal in (call.read(), channel.unary_unary(method("Unary"))(b"")):
            assert (await refused(refusal)).code() is grpc.StatusCode.UNAVAILABLE
    assert "authorisation check failed" in caplog.text


async def test_the_guard_forgets_streams_that_ended(mesh: Mesh, node: TlsFiles) -> None:
    asked: list[str] = []

    def watch(caller: Caller) -> None:
        asked.append(caller.identity.id)

    async with serving(mesh, still_allowed=watch) as server, server.channel(node) as channel:
        calls = [await open_stream(channel, name) for name in STREAMS * 3]
        for call in calls[:3]:
            call.cancel()
        for call in calls[3:]:
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        for _ in calls:
            await server.methods.ended.get()
        asked.clear()
        await settle()  # let the handlers that ended leave the guard
        server.guard.recheck()
        assert asked == []


# --- errors ----------------------------------------------------------------------------------------------------


def _every_error() -> list[MeshError]:
    return [
        errors.InvalidInput("name", "too long"),
        errors.NotFound("model", "m"),
        errors.AlreadyExists("model", "m"),
        errors.InUse("model", "m", "deployment d"),
        errors.Unauthenticated("token_refused"),
        errors.PermissionDenied("node_revoked"),
        errors.TooManyRequests("slow down", retry_after_s=1.5),
        errors.Unavailable("later"),
        errors.StaleEpoch(epoch=1, newest=2),
    ]


def test_every_error_has_a_status_and_every_status_an_error() -> None:
    codes = {kind.code for kind in MeshError.__subclasses__() if kind.__module__ == errors.__name__}
    assert codes == set(STATUS) == {error.code for error in _every_error()}
    assert len(set(STATUS.values())) == len(STATUS)


@pytest.mark.parametrize("raised", _every_error(), ids=lambda error: error.code)
@pytest.mark.parametrize("grouped", [False, True], ids=["bare", "grouped"])
async def test_an_error_reaches_the_client_with_status_text_and_reason(
    mesh: Mesh, node: TlsFiles, raised: MeshError, grouped: bool
) -> None:
    async def answer(_request: bytes, _context: Context) -> bytes:
        raise ExceptionGroup("of a task group", [ExceptionGroup("inner", [raised])]) if grouped else raised

    async with serving(mesh) as server, server.channel(node) as channel:
        server.methods.answer = answer
        error = await refused(channel.unary_unary(method("Unary"))(b""))
    assert error.code() is STATUS[raised.code]
    assert error.details() == str(raised)
    assert reason_of(error) == getattr(raised, "reason", raised.code)
    if isinstance(raised, TooManyRequests):
        assert (error.trailing_metadata() or {})[RETRY_AFTER_KEY] == "1.500"


class Unforeseen(MeshError):
    """An error that no edge was told of."""

    code = "unforeseen"


@pytest.mark.parametrize(
    "raised",
    [
        RuntimeError("password=hunter2"),
        Unforeseen("password=hunter2"),
        ExceptionGroup("two", [InvalidInput("password", "hunter2"), KeyError("password=hunter2")]),
        TimeoutError("password=hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_unexpected_error_is_logged_and_says_nothing_outside(
    mesh: Mesh, node: TlsFiles, raised: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_request: bytes, _context: Context) -> bytes:
        raise raised

    with caplog.at_level(logging.ERROR):
        async with serving(mesh) as server, server.channel(node) as channel:
            server.methods.answer = answer
            error = await refused(channel.unary_unary(method("Unary"))(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert reason_of(error) == "internal"
    assert "hunter2" not in repr(error)
    assert any(record.exc_info for record in caplog.records)


async def test_a_handler_may_end_the_call_itself(mesh: Mesh, node: TlsFiles) -> None:
    async def answer(_request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.DATA_LOSS, "gone")

    async with serving(mesh) as server, server.channel(node) as channel:
        server.methods.answer = answer
        error = await refused(channel.unary_unary(method("Unary"))(b""))
    assert (error.code(), error.details(), reason_of(error)) == (grpc.StatusCode.DATA_LOSS, "gone", "")


async def test_a_client_that_leaves_cancels_its_handler_quietly(
    mesh: Mesh, node: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        async with serving(mesh) as server:
            async with server.channel(node) as channel:
                for name in STREAMS:
                    await open_stream(channel, name)
            assert {await server.methods.ended.get() for _ in STREAMS} == {"talk", "converse"}
    assert not caplog.records


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({}, "no_certificate"),
        ({"x509_pem_cert": []}, "no_certificate"),
        ({"x509_pem_cert": [b"a", b"b"]}, "no_certificate"),
        ({"x509_pem_cert": [b"garbage"]}, "bad_certificate"),
        ({"peer_spiffe_id": [b"spiffe://mesh.local/node/a"]}, "no_certificate"),
    ],
)
def test_without_one_good_certificate_there_is_no_caller(context: dict[str, list[bytes]], reason: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        caller_of(context)
    assert caught.value.reason == reason


def test_the_guard_keeps_its_own_copy_of_the_table(mesh: Mesh) -> None:
    table = dict(TABLE)
    guard = Guard(table=table, trust_domain=mesh.trust_domain, clock=FakeClock())
    table.clear()
    guard.recheck()
