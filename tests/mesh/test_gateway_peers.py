"""Between gateways: a request arrives at one, its node is attached to the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.settings import Address
from mesh.link.frames import ResetCode
from mesh.tunnel.v1 import peer_pb2, tunnel_pb2
from mesh.tunnel.v1.peer_pb2_grpc import PeerServiceStub
from mesh.wire.channel import DATA_CHANNEL_OPTIONS, secure_channel
from mesh.wire.errors import LinkLost, StreamReset
from mesh.wire.peer_link import DiallingLink
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from pki.names import Kind
from pki.peer import reason_of
from pki.tls import TlsFiles, channel_credentials
from tests.fakes.patience import eventually
from tests.fakes.pki import Mesh as Authorities
from tests.mesh.gateway_engines import ANSWER, PLAIN, Scripted, body_of, chunk, refusing, respond, talk
from tests.mesh.gateway_harness import Site, ask, chat, model, node, route, site, until

NAMES = ("g-1", "g-2")


class Pair:
    """Two gateways that know each other. Clients ask the near one; nodes are attached to the far one."""

    def __init__(self, near: Site, far: Site) -> None:
        self.near, self.far = near, far

    def introduce(self, *strangers: pb.Peer) -> None:
        """Say in both snapshots who is there."""
        for one in (self.near, self.far):
            one.control_plane.push(peers=[*self.peers(), *strangers])

    def peers(self) -> list[pb.Peer]:
        pair = zip(NAMES, (self.near, self.far), strict=True)
        return [
            pb.Peer(hub_id=name, endpoint=str(one.peer), server_name="gateway.mesh.local") for name, one in pair
        ]

    async def passed_on(self, count: int) -> None:
        """Until the far one passes on so many requests."""
        await until(self.far, f"mesh_gateway_relayed_requests {count}.0")


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    authorities, listen = Authorities(), Address("127.0.0.1", 0)
    known = model(route("w-1"))
    async with (
        site(tmp_path / "1", known, authorities=authorities, gateway_id="g-1", peer_listen=listen) as near,
        site(tmp_path / "2", known, authorities=authorities, gateway_id="g-2", peer_listen=listen) as far,
    ):
        found = Pair(near, far)
        found.introduce()
        for one in (near, far):
            await linked(one)
        yield found


async def linked(one: Site, links: int = 1) -> None:
    """Until it can send requests to so many peers; where the first try failed, the next waits by the clock."""
    async with asyncio.timeout(20):
        while f"mesh_gateway_peer_links {links}.0" not in await one.metrics():
            await one.clock.forward(0.5)


async def reachable(one: Site) -> None:
    """Until it would send a request for the model somewhere."""
    async with asyncio.timeout(10):
        while True:
            async with one.client.get(f"{one.url}/v1/models", headers=one.headers) as answer:
                if (await answer.json())["data"]:
                    return


@asynccontextmanager
async def peer_call(one: Site, files: TlsFiles) -> AsyncIterator[Any]:
    credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
    async with secure_channel(
        str(one.peer), credentials, server_name="gateway.mesh.local", options=DATA_CHANNEL_OPTIONS
    ) as channel:
        yield PeerServiceStub(channel).Connect()


async def test_a_client_of_one_gateway_gets_the_answer_of_a_node_at_the_other(pair: Pair) -> None:
    async with node(pair.far, talk):
        await reachable(pair.near)
        assert await ask(pair.near, chat()) == (200, ANSWER)
        assert await ask(pair.near, chat(stream=True)) == (200, PLAIN)
        async with pair.near.client.get(f"{pair.near.url}/readyz") as answer:
            assert answer.status == 200, "a gateway that reaches nodes through another one can serve"
    assert len(await pair.near.records(2)) == 2
    assert not pair.far.control_plane.usage, "usage is counted where the client is"


async def test_a_long_body_and_a_long_answer_arrive_whole(pair: Pair) -> None:
    said = bytearray()

    async def echo(stream: Stream) -> None:
        octets = await body_of(stream)
        said.extend(octets)
        respond(stream)
        await stream.write(ANSWER[:-1] + b" " * 3_000_000 + b"}")
        stream.end()

    async with node(pair.far, echo):
        await reachable(pair.near)
        status, body = await ask(pair.near, chat(messages=[{"role": "user", "content": "x" * 2_000_000}]))
    assert status == 200
    assert len(body) == len(ANSWER) + 3_000_000
    assert len(said) > 2_000_000


async def test_a_slow_client_slows_the_engine_down(pair: Pair) -> None:
    written = 0

    async def flood(stream: Stream) -> None:
        nonlocal written
        await body_of(stream)
        respond(stream, kind="text/event-stream")
        piece = chunk("x" * 10_000, 1)
        while True:
            await stream.write(piece)
            written += len(piece)

    async with node(pair.far, flood):
        await reachable(pair.near)
        async with pair.near.post(chat(stream=True)) as answer:
            await answer.content.readexactly(1000)
            before = -1
            while before != written:
                before = written
                await asyncio.sleep(0.3)
            assert written < 16_000_000, "sockets and windows hold some, and then it waits"


async def test_a_client_that_leaves_stops_the_engine_at_the_other_gateway(pair: Pair) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(pair.far, engine) as attached:
        await reachable(pair.near)
        async with pair.near.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            stream = await attached.stream()
            await pair.passed_on(1)
        await eventually(lambda: stream.code is ResetCode.CANCEL)
        await pair.passed_on(0)


async def test_a_refusal_of_the_node_comes_back_as_it_was_said(pair: Pair) -> None:
    async with node(pair.far, refusing(ResetCode.TOO_MANY)):
        await reachable(pair.near)
        status, body = await ask(pair.near, chat())
    assert (status, b"workers_busy" in body) == (429, True)


async def test_a_node_that_is_lost_is_told_at_once(pair: Pair) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(pair.far, engine) as attached:
        await reachable(pair.near)
        async with pair.near.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            attached.session.close()
            rest = await asyncio.wait_for(answer.read(), 5)
    assert b'"error"' in rest
    assert b"[DONE]" not in rest
    status, body = await ask(pair.near, chat())
    assert (status, b"no_ready_worker" in body) == (503, True)


async def test_the_own_session_of_a_node_goes_before_its_way_through_a_peer(pair: Pair) -> None:
    files = pair.near.authorities.files(Kind.NODE, "n-1")
    far = Scripted()
    async with node(pair.far, far, files=files):
        await reachable(pair.near)
        async with node(pair.near, talk, files=files):
            for _ in range(5):
                assert await ask(pair.near, chat(stream=True)) == (200, PLAIN)
        assert not far.asked


async def test_an_answer_goes_on_elsewhere_when_the_other_gateway_dies(pair: Pair) -> None:
    models = [model(route("w-1"), route("w-2", node="n-2"))]
    for one in (pair.near, pair.far):
        one.control_plane.push(models=models, peers=pair.peers())
        await until(one, "mesh_gateway_snapshot_revision 3.0")
    async with node(pair.far, Scripted(chunk("one", 1))):
        await reachable(pair.near)
        async with pair.near.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            async with node(pair.near, talk, name="n-2"):
                pair.far.running.cancel()
                rest = await asyncio.wait_for(answer.read(), 10)
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_gateway_that_stops_lets_what_it_passes_on_end(pair: Pair) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(pair.far, engine) as attached:
        await reachable(pair.near)
        async with pair.near.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            stream = await attached.stream()
            pair.far.stop.set()
            async with asyncio.timeout(5):
                while (await ask(pair.near, chat()))[0] != 503:
                    pass
            await stream.write(chunk("two", 2) + b"data: [DONE]\n\n")
            stream.end()
            rest = await asyncio.wait_for(answer.read(), 5)
            assert rest.endswith(b"data: [DONE]\n\n")
    await pair.far.running


async def test_nothing_is_passed_on_to_a_third(pair: Pair) -> None:
    """The far one reaches the node only through the near one: it must not send a peer's request there."""
    async with node(pair.near, talk):
        await reachable(pair.far)
        files = pair.far.authorities.files(Kind.GATEWAY, "g-3")
        async with peer_call(pair.far, files) as call:
            nodes: list[frozenset[str]] = []
            link = DiallingLink(call, nodes.append)
            assert await link.greet("g-3") == "g-2"
            session = Session(link, initiator=True, clock=pair.far.clock)
            async with asyncio.TaskGroup() as group:
                group.create_task(session.run())
                await eventually(lambda: bool(nodes))
                assert nodes == [frozenset()], "nodes behind others are not told of"
                stream = session.open(tunnel_pb2.Open(worker_id="w-1", node_id="n-1"))
                with pytest.raises(StreamReset) as caught:
                    await stream.head()
                assert caught.value.reason is ResetCode.WORKER_UNKNOWN
                session.close()


@pytest.mark.parametrize(
    ("kind", "name", "says", "reason"),
    [
        (Kind.GATEWAY, "g-3", "g-1", "wrong_hub"),
        (Kind.GATEWAY, "g-3", "g-33", "wrong_hub"),
        (Kind.CONTROL_PLANE, "c-1", "c-1", "wrong_kind"),
    ],
)
async def test_only_gateways_may_connect_and_each_as_itself(
    pair: Pair, kind: Kind, name: str, says: str, reason: str
) -> None:
    files = pair.far.authorities.files(kind, name)
    async with peer_call(pair.far, files) as call:
        with pytest.raises(LinkLost) as caught:
            await DiallingLink(call, lambda _nodes: None).greet(says)
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    assert reason_of(caught.value.__cause__) == reason


async def test_nodes_do_not_get_through_the_handshake(pair: Pair) -> None:
    async with peer_call(pair.far, pair.far.authorities.files(Kind.NODE, "n-1")) as call:
        with pytest.raises(LinkLost):
            await DiallingLink(call, lambda _nodes: None).greet("n-1")


async def test_whoever_does_not_say_hello_is_sent_away(pair: Pair) -> None:
    async with peer_call(pair.far, pair.far.authorities.files(Kind.GATEWAY, "g-3")) as call:
        await call.write(peer_pb2.ConnectRequest(frames=b"x"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_peer_that_left_the_snapshot_gets_nothing_more(pair: Pair) -> None:
    async with node(pair.far, talk):
        await reachable(pair.near)
        pair.near.control_plane.push(peers=pair.peers()[:1])
        await linked(pair.near, 0)
        assert (await ask(pair.near, chat()))[0] == 503


async def test_a_peer_under_another_name_is_not_used(pair: Pair) -> None:
    pair.near.control_plane.push(
        peers=[pb.Peer(hub_id="g-9", endpoint=str(pair.far.peer), server_name="gateway.mesh.local")]
    )
    await linked(pair.near, 0)
    for _ in range(5):
        await pair.near.clock.forward(1.0)
        assert "mesh_gateway_peer_links 0.0" in await pair.near.metrics()
