"""Usage on its way to the control plane, and a gateway that dies, restarts, or is left alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from gateway.app import serve
from gateway.control import spool
from gateway.settings import Settings
from gateway.start import StartFailed
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.settings import Address
from mesh.kit.tasks import PartKeepsFailing
from pki.names import Kind
from tests.fakes.clock import FakeClock, settle
from tests.fakes.patience import eventually
from tests.fakes.pki import Mesh as Authorities
from tests.mesh.gateway_engines import PLAIN, Scripted, chunk, talk
from tests.mesh.gateway_harness import (
    Site,
    ask,
    chat,
    control_plane_server,
    model,
    node,
    put_tls,
    route,
    site,
    until,
)


@asynccontextmanager
async def one_site(folder: Path) -> AsyncIterator[Site]:
    async with site(folder, model(route("w-1")), model(route("w-1"), name="odd")) as found:
        yield found


async def test_usage_comes_again_until_it_is_stored(tmp_path: Path) -> None:
    async with one_site(tmp_path) as one:
        one.control_plane.refuse = grpc.StatusCode.UNAVAILABLE
        async with node(one, talk):
            for _ in range(7):
                assert await ask(one, chat(stream=True)) == (200, PLAIN)
        for _ in range(20):
            await one.clock.forward(1)
            await settle(100)
            if one.control_plane.calls > 1:
                break
            await asyncio.sleep(0.01)
        assert not one.control_plane.usage
        one.control_plane.refuse = None
        assert len(await one.records(7)) == 7


@pytest.mark.parametrize("how", ["poison", "silent_on"])
async def test_a_record_that_is_never_stored_does_not_hold_up_the_others(tmp_path: Path, how: str) -> None:
    async with one_site(tmp_path) as one:
        setattr(one.control_plane, how, {"odd"})
        async with node(one, talk):
            for name in ("m", "m", "odd", "m", "odd", "m"):
                assert (await ask(one, chat(name, stream=True)))[0] == 200
        assert {record.model for record in await one.records(4)} == {"m"}
        aside = tmp_path / "spool" / "rejected.log"
        for _ in range(100):
            await one.pass_time(4)
            if aside.exists():
                break
        await eventually(lambda: aside.exists() and aside.read_text().count('"odd"') == 2)


async def test_what_ran_when_the_gateway_died_is_recorded_as_interrupted_and_the_rest_only_once(
    tmp_path: Path,
) -> None:
    async with one_site(tmp_path) as one:
        one.control_plane.refuse = grpc.StatusCode.UNAVAILABLE
        async with node(one, Scripted(chunk("one", 1))), one.post(chat(stream=True)) as running:
            await running.content.readuntil(b"one")
            died = tmp_path / "died"
            await asyncio.to_thread(copy, tmp_path / "spool", died)  # what a kill -9 leaves, at this moment
            request_id = running.headers["X-Request-Id"]
        await one.end()
        await asyncio.to_thread(copy, died, tmp_path / "spool")
        one.control_plane.refuse = None
        await one.start()
        record = await one.record()
    assert (record.request_id, record.outcome) == (request_id, pb.USAGE_OUTCOME_INTERRUPTED)
    assert (record.status, record.streamed) == (0, True)
    assert not record.HasField("prompt_tokens")


def copy(source: Path, target: Path) -> None:
    """Make the target folder's segments those of the source."""
    target.mkdir(exist_ok=True)
    for path in target.glob("*.log"):
        path.unlink()
    for path in source.glob("*.log"):
        (target / path.name).write_bytes(path.read_bytes())


async def test_a_restarted_gateway_works_while_the_control_plane_is_away(tmp_path: Path) -> None:
    authorities = Authorities()
    async with site(tmp_path, model(route("w-1")), authorities=authorities) as one:
        kept = tmp_path / "snapshot.bin"
        await eventually(kept.exists)
        assert kept.stat().st_mode & 0o077 == 0, "it holds the pepper"
        await one.end()
        one.control_plane_at = Address("127.0.0.1", 1)  # nobody
        await one.start()
        async with node(one, talk):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)
            assert not one.control_plane.usage
        await one.end()
        async with control_plane_server(authorities, one.control_plane) as (at, _):
            one.control_plane_at = at
            await one.start()
            assert (await one.record()).outcome == pb.USAGE_OUTCOME_COMPLETED
            await one.end()


async def test_the_watch_comes_back_after_the_control_plane(tmp_path: Path) -> None:
    authorities = Authorities()
    async with site(tmp_path, model(route("w-1")), authorities=authorities) as one:
        await one.end()
        async with control_plane_server(authorities, one.control_plane) as (at, server):
            one.control_plane_at = at
            await one.start()
            await until(one, "mesh_gateway_snapshot_revision 1.0")
            await eventually(lambda: one.control_plane.watches == 2)
            await server.stop(None)
            one.control_plane.push(models=[])
            async with control_plane_server(authorities, one.control_plane, at):
                async with asyncio.timeout(20):
                    while "mesh_gateway_snapshot_revision 2.0" not in await one.metrics():
                        await one.clock.forward(1)
                        await asyncio.sleep(0.02)
                assert one.control_plane.endpoint == str(one.tunnel)
                await one.end()


async def test_a_disk_that_takes_nothing_refuses_with_its_reason_and_recovers(tmp_path: Path) -> None:
    async with one_site(tmp_path) as one, node(one, talk):
        in_the_way = tmp_path / "spool" / "000000000001.log"
        in_the_way.write_bytes(b"")
        status, body = await ask(one, chat(stream=True))
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (503, "usage_spool_unavailable")
        assert error["message"].startswith("usage cannot be recorded: File exists")
        in_the_way.unlink()
        assert await ask(one, chat(stream=True)) == (200, PLAIN)
        assert (await one.record()).outcome == pb.USAGE_OUTCOME_COMPLETED


async def test_a_stopping_gateway_lets_answers_end_and_takes_nothing_new(tmp_path: Path) -> None:
    async with one_site(tmp_path) as one:
        engine = Scripted(chunk("one", 1))
        async with node(one, engine) as attached:
            async with one.post(chat(stream=True)) as answer:
                await answer.content.readuntil(b"one")
                one.stop.set()
                await eventually(lambda: attached.session.draining)
                with pytest.raises(OSError):
                    await asyncio.open_connection("127.0.0.1", one.http.port)
                stream = await engine.get()
                await stream.write(b"data: [DONE]\n\n")
                stream.end()
                assert (await answer.read()).endswith(b"data: [DONE]\n\n")
            await one.running
        assert not (tmp_path / "listening.json").exists()
        (record,) = one.control_plane.usage.values()
        assert record.outcome == pb.USAGE_OUTCOME_COMPLETED, "delivered before it ended"


async def test_what_does_not_end_within_the_grace_is_told_so_and_recorded(tmp_path: Path) -> None:
    async with site(tmp_path, model(route("w-1")), stop_grace=timedelta(seconds=0.2)) as one:
        async with node(one, Scripted(chunk("one", 1))), one.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            one.stop.set()
            assert b'"upstream_lost"' in await answer.read()
            await one.running
        (record,) = one.control_plane.usage.values()
        assert record.outcome == pb.USAGE_OUTCOME_FAILED
        assert record.completion_tokens == 1


async def start(folder: Path, **more: object) -> None:
    base = {
        "state_dir": folder,
        "tls_dir": folder / "tls",
        "node_trust": folder / "node-ca.pem",
        "http_listen": Address("127.0.0.1", 0),
        "tunnel_listen": Address("127.0.0.1", 0),
    }
    stop = asyncio.Event()
    stop.set()
    await serve(Settings(**{**base, **more}), FakeClock(), stop)  # type: ignore[arg-type]


async def test_a_gateway_that_cannot_start_says_what_to_do(tmp_path: Path) -> None:
    authorities = Authorities()
    with pytest.raises(StartFailed, match="mesh-pki issue gateway"):
        await start(tmp_path)
    put_tls(tmp_path / "tls", authorities.files(Kind.NODE, "n-1"))
    with pytest.raises(StartFailed, match="no gateway"):
        await start(tmp_path)
    put_tls(tmp_path / "tls", authorities.files(Kind.GATEWAY, "g-1"))
    with pytest.raises(StartFailed, match="MESH_GW_NODE_TRUST"):
        await start(tmp_path)


async def test_a_refused_record_that_cannot_be_kept_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with one_site(tmp_path) as one:
        one.control_plane.poison = {"odd"}
        (tmp_path / "spool" / "rejected.log").symlink_to("/dev/full")  # no space left on device
        async with node(one, talk):
            for name in ("odd", "m", "odd", "m"):
                assert (await ask(one, chat(name, stream=True)))[0] == 200
        assert {record.model for record in await one.records(2)} == {"m"}
        assert not one.running.done()


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    async with one_site(tmp_path / "one") as one:
        other = tmp_path / "other"
        put_tls(other / "tls", one.authorities.files(Kind.GATEWAY, "g-2"))
        (other / "node-ca.pem").write_bytes((tmp_path / "one" / "node-ca.pem").read_bytes())
        with pytest.raises(StartFailed, match="MESH_GW_HTTP_LISTEN"):
            await start(other, http_listen=one.http)
        with pytest.raises(StartFailed, match="MESH_GW_TUNNEL_LISTEN"):
            await start(other, tunnel_listen=one.tunnel)
        with pytest.raises(StartFailed, match="MESH_GW_STATE_DIR"):
            await start(tmp_path / "one", tls_dir=tmp_path / "one" / "tls")


async def test_listening_json_says_where(tmp_path: Path) -> None:
    async with one_site(tmp_path) as one:
        assert json.loads((tmp_path / "listening.json").read_text()) == {
            "http": str(one.http),
            "tunnel": str(one.tunnel),
        }


async def test_a_new_certificate_is_shown_and_used_without_a_restart(tmp_path: Path) -> None:
    async with one_site(tmp_path) as one, node(one, talk):
        assert one.control_plane.watches == 1
        put_tls(tmp_path / "tls", one.authorities.files(Kind.GATEWAY, "g-1"))
        for _ in range(200):
            await one.pass_time(2)
            if one.control_plane.watches > 1:
                break
        assert one.control_plane.watches == 2, "over a new channel"
        assert await ask(one, chat(stream=True)) == (200, PLAIN)
        assert (await one.record()).outcome == pb.USAGE_OUTCOME_COMPLETED
        (tmp_path / "tls" / "tls.crt").write_bytes(b"half")
        await one.pass_time(12)
        assert await ask(one, chat(stream=True)) == (200, PLAIN)


async def test_a_part_that_keeps_failing_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "FRESH", 0)  # what was recorded is read from the disk

    async def lose_the_spool() -> None:
        async with one_site(tmp_path) as one:
            one.control_plane.refuse = grpc.StatusCode.UNAVAILABLE
            async with node(one, talk):
                await ask(one, chat(stream=True))
            (tmp_path / "spool").rename(tmp_path / "elsewhere")
            async with asyncio.timeout(20):
                while True:
                    await one.pass_time(2)

    with pytest.raises(ExceptionGroup) as caught:
        await lose_the_spool()
    assert caught.value.split(PartKeepsFailing)[0] is not None
