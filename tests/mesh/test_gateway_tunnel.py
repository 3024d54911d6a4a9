"""Nodes and their sessions: who may attach, who replaces whom, and what is cut at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest_asyncio

from mesh.link.frames import ResetCode
from mesh.tunnel.v1.tunnel_pb2 import AttachRequest
from mesh.tunnel.v1.tunnel_pb2_grpc import TunnelServiceStub
from mesh.types.v1 import worker_pb2
from mesh.wire.channel import DATA_CHANNEL_OPTIONS, secure_channel
from mesh.wire.stream import Stream
from pki.names import Kind
from pki.peer import reason_of
from pki.tls import TlsFiles, channel_credentials
from tests.fakes.patience import eventually
from tests.fakes.pki import Mesh as Authorities
from tests.mesh.gateway_engines import PLAIN, Scripted, chunk, talk
from tests.mesh.gateway_harness import Site, ask, chat, model, node, route, site, until


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, model(route("w-1"))) as found:
        yield found


async def attach(one: Site, files: TlsFiles, *messages: AttachRequest) -> grpc.aio.AioRpcError:
    """Attach, say these messages; the error that the gateway ends it with."""
    credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
    name = "gateway.mesh.local"
    async with secure_channel(
        str(one.tunnel), credentials, server_name=name, options=DATA_CHANNEL_OPTIONS
    ) as channel:
        call = TunnelServiceStub(channel).Attach()
        try:
            for message in messages:
                await call.write(message)
            while await call.read() is not grpc.aio.EOF:
                pass
            await call.wait_for_connection()
        except grpc.aio.AioRpcError as exc:
            return exc
        except asyncio.InvalidStateError:
            pass
        raise AssertionError(await call.code())


def hello(epoch: int) -> AttachRequest:
    message = AttachRequest()
    message.hello.epoch = epoch
    return message


async def test_only_nodes_may_attach(one: Site) -> None:
    error = await attach(one, one.authorities.files(Kind.GATEWAY, "g-2"), hello(1))
    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)
    error = await attach(one, Authorities().files(Kind.NODE, "n-1"), hello(1))
    assert error.code() is grpc.StatusCode.UNAVAILABLE, "another mesh's node does not get through the handshake"


async def test_the_first_message_must_be_hello(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    error = await attach(one, files, AttachRequest(frames=b"x"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def test_a_stale_epoch_is_refused_and_the_newer_session_lives_on(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    async with node(one, talk, epoch=7, files=files):
        error = await attach(one, files, hello(6))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.ABORTED, "stale_epoch")
        assert await ask(one, chat(stream=True)) == (200, PLAIN)


async def test_after_a_fenced_reconnect_no_request_fails(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    async with node(one, talk, epoch=1, files=files) as old:
        assert (await ask(one, chat(stream=True)))[0] == 200
        async with node(one, talk, epoch=2, files=files):
            await eventually(lambda: old.session.closed)
            for _ in range(50):
                assert await ask(one, chat(stream=True)) == (200, PLAIN)
            await until(one, "mesh_gateway_tunnel_sessions 1.0")


async def test_requests_under_way_when_a_node_reconnects_go_on_over_the_new_session(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    waiting = Scripted()
    async with node(one, waiting, epoch=1, files=files), asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(one, chat(stream=True))) for _ in range(5)]
        await eventually(lambda: len(waiting.asked) == 5)
        async with node(one, talk, epoch=2, files=files):
            await asyncio.wait(asking)
    assert [task.result() for task in asking] == [(200, PLAIN)] * 5


async def test_an_answer_that_has_begun_goes_on_over_the_new_session(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    async with (
        node(one, Scripted(chunk("one", 1)), epoch=1, files=files),
        one.post(chat(stream=True)) as answer,
    ):
        await answer.content.readuntil(b"one")
        async with node(one, talk, epoch=2, files=files):
            rest = await answer.read()
    assert b": continued on another worker" in rest
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_an_answer_that_nobody_may_go_on_with_is_told_to_have_broken_off(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    async with (
        node(one, Scripted(chunk("one", 1)), epoch=1, files=files),
        one.post(chat(stream=True, n=2)) as answer,
        node(one, talk, epoch=2, files=files),
    ):
        assert b'"upstream_lost"' in await answer.read()


async def test_a_revoked_node_is_cut_at_once_and_does_not_come_back(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    async with (
        node(one, Scripted(chunk("one", 1)), files=files) as attached,
        one.post(chat(stream=True)) as answer,
    ):
        one.control_plane.push(revoked_nodes=["n-1"])
        assert b'"upstream_lost"' in await answer.read()
        await eventually(lambda: attached.session.closed)
    error = await attach(one, files, hello(2))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "node_revoked")


async def test_a_certificate_is_revoked_by_its_serial(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1")
    async with node(one, talk, files=files) as attached:
        one.control_plane.push(revoked_nodes=[f"{files.certificate.serial_number:x}"])
        await eventually(lambda: attached.session.closed)
    async with node(one, talk, epoch=2):
        assert (await ask(one, chat(stream=True)))[0] == 200


async def test_a_certificate_that_ends_ends_its_session(one: Site) -> None:
    files = one.authorities.files(Kind.NODE, "n-1", ttl=timedelta(minutes=10))
    async with node(one, talk, files=files) as attached:
        await one.pass_time(602)
        await eventually(lambda: attached.session.closed)
    error = await attach(one, files, hello(2))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "certificate_expired")


async def test_a_node_that_is_gone_is_not_asked(one: Site) -> None:
    one.control_plane.push(models=[model(route("w-1"), route("w-2", node="n-2"))])
    async with node(one, talk, name="n-2"):
        async with node(one, talk, name="n-1") as gone:
            gone.session.close()
        await until(one, "mesh_gateway_tunnel_sessions 1.0")
        for _ in range(10):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)


async def test_a_node_that_drains_is_not_asked(one: Site) -> None:
    async with node(one, talk) as draining:
        draining.session.drain()
        await draining.session.idle()
        await until_status(one, 503)


async def until_status(one: Site, status: int) -> None:
    async with asyncio.timeout(10):
        while (await ask(one, chat(stream=True)))[0] != status:
            pass


async def test_a_worker_that_is_on_its_way_out_is_not_asked(one: Site) -> None:
    async with node(one, talk):
        assert (await ask(one, chat(stream=True)))[0] == 200
        one.control_plane.push(models=[model(route("w-1", phase=worker_pb2.WORKER_PHASE_DRAINING))])
        await until_status(one, 503)


async def test_the_neighbour_of_a_stuck_request_is_unharmed(one: Site) -> None:
    stuck = asyncio.Event()

    async def sticks(stream: Stream) -> None:
        if stream.id == 1:
            await stuck.wait()
        else:
            await talk(stream)

    async with node(one, sticks) as attached:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask(one, chat(messages=[{"role": "user", "content": "x" * 500_000}])))
            await attached.stream()
            for _ in range(10):
                assert await ask(one, chat(stream=True)) == (200, PLAIN)
            first.cancel()
        await eventually(lambda: attached.streams[0].code)
        assert attached.streams[0].code is ResetCode.CANCEL
