"""Traces of requests, at a collector that takes OTLP, and what becomes of them without one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.api.metrics import Metrics
from gateway.settings import Settings
from gateway.start import StartFailed, tracing
from mesh.link.frames import ResetCode
from mesh.tunnel.v1 import tunnel_pb2
from mesh.wire.stream import Stream
from tests.fakes.clock import FakeClock
from tests.fakes.patience import eventually
from tests.mesh.gateway_engines import ANSWER, PLAIN, refusing, talk
from tests.mesh.gateway_harness import Site, ask, chat, model, node, route, site, until

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTLP = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
Row = dict[str, Any]


@dataclass(slots=True)
class Collector:
    """Takes OTLP over HTTP, as a real one does."""

    spans: list[Any] = field(default_factory=list)
    resources: list[Any] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        message = OTLP.ExportTraceServiceRequest.FromString(await request.read())
        for one in message.resource_spans:
            self.resources.append(one.resource)
            for scope in one.scope_spans:
                self.spans += scope.spans
        return web.Response(body=OTLP.ExportTraceServiceResponse().SerializeToString())

    async def has(self, one: Site, count: int) -> None:
        """Once so many spans have come, and no more."""
        await one.clock.forward(1.0)
        await eventually(lambda: len(self.spans) >= count)
        assert len(self.spans) == count

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    """A collector, and its URL."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        at = web.TCPSite(runner, "127.0.0.1", 0)
        await at.start()
        yield collector, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    finally:
        await runner.cleanup()


def attributes(span: Any) -> Row:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@dataclass(slots=True)
class Listening:
    """``talk``, and the headers that came with the requests."""

    headers: list[dict[str, str]] = field(default_factory=list)

    async def __call__(self, stream: Stream) -> None:
        asked = stream.request
        assert isinstance(asked, tunnel_pb2.Open)
        self.headers.append({one.name: one.value for one in asked.headers})
        await talk(stream)


async def test_a_request_is_one_tree_of_spans_under_its_client_s(tmp_path: Path) -> None:
    engine = Listening()
    async with collecting() as (collector, url):
        async with site(tmp_path, model(route("w-1")), otlp_endpoint=url) as one, node(one, engine):
            async with one.post(chat(stream=True), headers={"traceparent": PARENT}) as answer:
                await answer.read()
                request_id = answer.headers["X-Request-Id"]
            await one.metrics()
        assert len(collector.spans) == 4, "sent at the end, at the latest"
    (root,), (queue,), (tunnel,), (asked,) = map(collector.named, ("gateway", "queue", "tunnel", "engine"))
    trace, parent = bytes.fromhex(PARENT[3:35]), bytes.fromhex(PARENT[36:52])
    assert {span.trace_id for span in collector.spans} == {trace}
    assert root.parent_span_id == parent
    assert queue.parent_span_id == tunnel.parent_span_id == root.span_id
    assert asked.parent_span_id == tunnel.span_id
    assert engine.headers[0]["traceparent"] == f"00-{trace.hex()}-{tunnel.span_id.hex()}-01"
    assert all(root.start_time_unix_nano <= span.start_time_unix_nano for span in collector.spans)
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in collector.spans)
    facts = attributes(root)
    assert facts["mesh.request_id"] == request_id
    assert (facts["gen_ai.request.model"], facts["gen_ai.operation.name"]) == ("m", "chat")
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (5, 3)
    assert attributes(tunnel)["mesh.worker_id"] == "w-1"
    assert attributes(asked)["gen_ai.provider.name"] == "vllm"
    assert "hello" not in str(collector.spans), "what was asked is nobody's business"
    names = {one.key: one.value.string_value for one in collector.resources[0].attributes}
    assert (names["service.name"], names["service.instance.id"]) == ("inventiv-mesh-gateway", "g-1")


async def test_without_a_client_s_trace_the_request_s_id_is_the_trace_s(tmp_path: Path) -> None:
    async with (
        collecting() as (collector, url),
        site(tmp_path, model(route("w-1")), otlp_endpoint=url) as one,
        node(one, talk),
        one.post(chat()) as answer,
    ):
        await answer.read()
        request_id = answer.headers["X-Request-Id"]
        await collector.has(one, 4)
    (root,) = collector.named("gateway")
    assert root.trace_id.hex() == request_id.replace("-", "")
    assert not root.parent_span_id


async def test_every_worker_that_was_asked_has_its_span_and_its_error(tmp_path: Path) -> None:
    async with (
        collecting() as (collector, url),
        site(tmp_path, model(route("w-1")), otlp_endpoint=url) as one,
        node(one, refusing(ResetCode.REFUSED)),
    ):
        assert (await ask(one, chat()))[0] == 503
        await one.client.post(f"{one.url}/v1/chat/completions", json=chat())
        await collector.has(one, 4)
    (tunnel,) = collector.named("tunnel")
    assert attributes(tunnel)["error.type"] == "refused"
    assert not collector.named("engine")
    assert {attributes(root)["error.type"] for root in collector.named("gateway")} == {
        "no_ready_worker",
        "unauthenticated",
    }


async def test_a_client_that_wants_no_trace_has_none_and_neither_has_its_engine(tmp_path: Path) -> None:
    engine = Listening()
    async with (
        collecting() as (collector, url),
        site(tmp_path, model(route("w-1")), otlp_endpoint=url, trace_share=0.0) as one,
        node(one, engine),
    ):
        async with one.post(chat(), headers={"traceparent": PARENT[:-1] + "0"}) as answer:
            await answer.read()
        await ask(one, chat())
        async with one.post(chat(), headers={"traceparent": PARENT}) as answer:
            await answer.read()
        await collector.has(one, 4)
    assert {span.trace_id.hex() for span in collector.spans} == {PARENT[3:35]}, "of the last one only"
    assert engine.headers[0]["traceparent"] == PARENT[:-1] + "0"
    assert "traceparent" not in engine.headers[1]


async def test_a_collector_that_is_gone_hurts_no_request_and_what_it_missed_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("gateway.api.tracing"), "SEND_S", 0.2)
    async with (
        site(tmp_path, model(route("w-1")), otlp_endpoint="http://127.0.0.1:9/v1/traces") as one,
        node(one, talk),
    ):
        for _ in range(5):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)
        await one.clock.forward(1.0)
        await until(one, "mesh_gateway_traces_dropped_total 5.0")
        assert await ask(one, chat()) == (200, ANSWER)
    assert [row.message for row in caplog.records].count("collector does not take spans") == 1


async def test_a_collector_that_never_answers_keeps_nobody_waiting(tmp_path: Path) -> None:
    hangs, connected = asyncio.Event(), asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await hangs.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
        async with site(tmp_path, model(route("w-1")), otlp_endpoint=url) as one, node(one, talk):
            assert await ask(one, chat()) == (200, ANSWER)
            await one.clock.forward(1.0)
            await asyncio.wait_for(connected.wait(), 10)
            for _ in range(20):
                assert await ask(one, chat(stream=True)) == (200, PLAIN)
            hangs.set()


@pytest.fixture
def no_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "gateway.api.tracing", raising=False)
    yield
    sys.modules.pop("gateway.api.tracing", None)


@pytest.mark.usefixtures("no_opentelemetry")
async def test_traces_without_their_packages_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("gateway.api.tracing")
    settings = {"state_dir": tmp_path, "tls_dir": tmp_path, "node_trust": tmp_path}
    settings_with = Settings(**settings, otlp_endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(StartFailed, match=r"MESH_GW_OTLP_ENDPOINT.*pip install 'inventiv-mesh\[tracing\]'"):
        async with tracing(settings_with, FakeClock(), Metrics(FakeClock()), "g-1", "1"):
            pass
