"""What an operator sees of requests: the metrics page and the log; and what nobody sees: prompts."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.logs import JsonFormatter
from mesh.link.frames import ResetCode
from mesh.wire.stream import Stream
from tests.fakes.patience import eventually
from tests.mesh.gateway_engines import ANSWER, DONE, PLAIN, Scripted, body_of, chunk, refusing, respond, talk
from tests.mesh.gateway_harness import Site, ask, chat, model, node, route, site, until

CANARY = "canary-7f3a"
Row = dict[str, Any]


@asynccontextmanager
async def seen(folder: Path, *models: pb.Model, **settings: Any) -> AsyncIterator[Site]:
    priced = model(route("w-1"), price=pb.Price(prompt=10**14, completion=10**15))
    async with site(folder, *(models or (priced,)), **settings) as one:
        yield one


def rows(caplog: pytest.LogCaptureFixture) -> list[Row]:
    """The request log."""
    shown = JsonFormatter()
    return [json.loads(shown.format(one)) for one in caplog.records if one.name == "gateway.api.seeing"]


async def broken(stream: Stream) -> None:
    """An engine that says its own error."""
    await body_of(stream)
    respond(stream, 500)
    await stream.write(b'{"error": {"message": "out of memory"}}')
    stream.end()


# Metrics ---------------------------------------------------------------------------------------------------------


async def test_the_page_tells_every_way_a_request_can_end(tmp_path: Path) -> None:
    async with seen(tmp_path) as one:
        assert (await ask(one, chat()))[0] == 503
        async with node(one, talk):
            assert await ask(one, chat(stream=True)) == (200, PLAIN)
            assert await ask(one, chat()) == (200, ANSWER)
            await one.client.post(f"{one.url}/v1/chat/completions", json=chat())
        async with node(one, broken, epoch=2):
            await until(one, "mesh_gateway_tunnel_sessions 1.0")
            assert (await ask(one, chat()))[0] == 500
        async with node(one, refusing(ResetCode.REFUSED), epoch=3):
            await until(one, "mesh_gateway_tunnel_sessions 1.0")
            assert (await ask(one, chat()))[0] == 503
        page = await one.metrics()
    ours = 'deployment="d-1"'
    for line in (
        'mesh_gateway_requests_total{model="m",status="200"} 2.0',
        'mesh_gateway_requests_total{model="m",status="500"} 1.0',
        'mesh_gateway_requests_total{model="m",status="503"} 2.0',
        'mesh_gateway_requests_total{model="",status="401"} 1.0',
        'mesh_gateway_errors_total{model="",reason="unauthenticated"} 1.0',
        'mesh_gateway_errors_total{model="m",reason="no_ready_worker"} 2.0',
        'mesh_gateway_errors_total{model="m",reason="engine_error"} 1.0',
        f'mesh_gateway_failed_attempts_total{{{ours},model="m",reason="refused"}} 1.0',
        f'mesh_gateway_outcomes_total{{{ours},model="m",outcome="completed"}} 2.0',
        f'mesh_gateway_outcomes_total{{{ours},model="m",outcome="failed"}} 2.0',
        f'mesh_gateway_tokens_total{{{ours},kind="prompt",model="m"}} 10.0',
        f'mesh_gateway_cost_total{{{ours},model="m"}} 7.0',
        f'mesh_gateway_first_token_seconds_count{{{ours},model="m"}} 1.0',
        f'mesh_gateway_request_seconds_count{{{ours},model="m"}} 4.0',
        f'mesh_gateway_queue_wait_seconds_count{{{ours},model="m"}} 4.0',
        'mesh_gateway_queue_depth{model="m"} 0.0',
        'mesh_gateway_outstanding_requests{deployment="d-1"} 0.0',
        "mesh_gateway_breakers_open 0.0",
    ):
        assert line in page.splitlines()


async def test_retries_continuations_and_the_time_between_tokens_are_counted(tmp_path: Path) -> None:
    engine = Scripted(chunk("one", 1))
    by_turns = model(route("w-1"), route("w-2", node="n-2"), policy=pb.ROUTING_POLICY_ROUND_ROBIN)
    async with seen(tmp_path, by_turns) as one, node(one, talk, name="n-2"):
        async with node(one, refusing(ResetCode.REFUSED)):
            await until(one, "mesh_gateway_tunnel_sessions 2.0")
            for _ in range(2):  # a retry takes a turn, so both go to the same one first
                assert (await ask(one, chat(stream=True)))[0] == 200
        async with node(one, engine, epoch=2):
            await until(one, "mesh_gateway_tunnel_sessions 2.0")
            async with one.post(chat(stream=True)) as answer:
                assert b"one" in await answer.content.readany()
                await one.clock.forward(0.25)
                stream = await engine.get()
                await stream.write(chunk("two", 2))
                stream.reset(ResetCode.UPSTREAM_LOST)
                assert (await answer.read()).endswith(DONE)
        page = await one.metrics()
    for line in (
        'mesh_gateway_retries_total{deployment="d-1",model="m"} 2.0',
        'mesh_gateway_continuations_total{deployment="d-1",model="m"} 1.0',
        'mesh_gateway_failed_attempts_total{deployment="d-1",model="m",reason="interrupted"} 1.0',
    ):
        assert line in page.splitlines()
    found = dict(line.rsplit(" ", 1) for line in page.splitlines() if "inter_token_seconds" in line)
    all_of_them = found['mesh_gateway_inter_token_seconds_count{deployment="d-1",model="m"}']
    at_once = found['mesh_gateway_inter_token_seconds_bucket{deployment="d-1",le="0.002",model="m"}']
    assert float(all_of_them) - float(at_once) == 1, "one took its time"


async def test_what_a_limit_refused_is_counted_by_its_kind(tmp_path: Path) -> None:
    async with seen(tmp_path) as one, node(one, talk):
        key = pb.ApiKey()
        key.CopyFrom(one.control_plane.snapshot.api_keys[0])
        key.limits.requests_per_minute = 1
        one.control_plane.push(api_keys=[key])
        await until(one, "mesh_gateway_snapshot_revision 2.0")
        statuses = [(await ask(one, chat()))[0] for _ in range(3)]
        page = await one.metrics()
    assert statuses == [200, 429, 429]
    assert 'mesh_gateway_limited_total{limit="requests_per_minute",model="m"} 2.0' in page
    assert 'mesh_gateway_errors_total{model="m",reason="rate_limit_exceeded"} 2.0' in page


# The log ---------------------------------------------------------------------------------------------------------


async def test_a_request_is_one_line_with_all_that_was_known_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with seen(tmp_path, request_log="all") as one, node(one, talk):
        async with one.post(chat(stream=True)) as answer:
            await answer.read()
            request_id = answer.headers["X-Request-Id"]
        await one.records(1)
    (row,) = rows(caplog)
    assert row["message"] == "request"
    assert (row["request_id"], row["key_id"], row["organization_id"]) == (request_id, one.key.id, "org-1")
    assert (row["model"], row["endpoint"], row["status"], row["outcome"]) == ("m", "chat", 200, "completed")
    assert (row["worker_id"], row["node_id"], row["deployment_id"]) == ("w-1", "n-1", "d-1")
    assert (row["prompt_tokens"], row["completion_tokens"], row["charged_tokens"]) == (5, 3, 8)
    assert (row["queue_ms"], row["continuations"], row["attempts"], row["route"]) == (0, 0, 1, "only")
    assert {"duration_ms", "first_token_ms", "charged_money", "project_id"} <= row.keys()
    assert "code" not in row


@pytest.mark.parametrize(("setting", "expected"), [("off", []), ("errors", [500]), ("all", [200, 404, 500])])
async def test_an_operator_chooses_which_requests_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str, expected: list[int]
) -> None:
    caplog.set_level(logging.INFO)
    async with seen(tmp_path, request_log=setting) as one:
        async with node(one, talk):
            await ask(one, chat())
            await ask(one, chat("nope"))
        async with node(one, broken, epoch=2):
            await until(one, "mesh_gateway_tunnel_sessions 1.0")
            await ask(one, chat())
        await one.metrics()
    assert [row["status"] for row in rows(caplog)] == expected


async def test_a_client_that_left_is_logged_as_that(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = Scripted(chunk("one", 1))
    async with seen(tmp_path) as one, node(one, engine):
        async with one.post(chat(stream=True)) as answer:
            await answer.content.readany()
            answer.close()
        await eventually(lambda: rows(caplog))
    (row,) = rows(caplog)
    assert (row["code"], row["outcome"], row["completion_tokens"]) == ("client_left", "cancelled", 1)


async def test_no_log_line_holds_a_word_of_a_request_or_its_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canaries = {"messages": [{"role": "user", "content": CANARY}], "user": CANARY}

    async def says_it(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, kind="text/event-stream")
        await stream.write(chunk(CANARY, 1))
        stream.reset(ResetCode.UPSTREAM_LOST)

    async def fails_with_it(stream: Stream) -> None:
        await body_of(stream)
        respond(stream, 500)
        await stream.write(json.dumps({"error": {"message": CANARY}}).encode())
        stream.end()

    async with seen(tmp_path, request_log="all") as one:
        for epoch, engine in enumerate((talk, says_it, fails_with_it), 1):
            async with node(one, engine, epoch=epoch):
                await until(one, "mesh_gateway_tunnel_sessions 1.0")
                for stream in (False, True):
                    await ask(one, {**chat(stream=stream), **canaries})
        await ask(one, {**chat(max_tokens=CANARY), **canaries})
        await ask(one, f'{{"model": "m", "messages": {CANARY}'.encode())
        await ask(one, {**chat(), **canaries})
    shown = JsonFormatter()
    assert len(rows(caplog)) == 9
    assert not [line for line in map(shown.format, caplog.records) if CANARY in line]
