"""Limits, queue and priorities of a whole gateway: who is refused, who waits, and what is given back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.types.v1 import worker_pb2
from mesh.wire.stream import Stream
from pki.api_keys import ApiKey, new_api_key
from tests.fakes.patience import eventually
from tests.mesh.gateway_engines import PLAIN, Scripted, body_of, chunk, last_chunk, respond, talk
from tests.mesh.gateway_harness import ORGANIZATION, PEPPER, Site, ask, chat, model, node, route, site, until

BUSY = worker_pb2.WORKER_PHASE_STARTING


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway whose model has one worker with one slot."""
    async with site(tmp_path, model(route("w-1", slots=1))) as found:
        yield found


def entry(key: ApiKey, **fields: Any) -> pb.ApiKey:
    return pb.ApiKey(key_id=key.id, secret_mac=key.mac(PEPPER), organization_id=ORGANIZATION, **fields)


async def limited(one: Site, project: pb.Limits | None = None, **limits: int) -> None:
    """From now on the site's key has these limits, and a project, if it has any."""
    revision = one.control_plane.snapshot.revision + 1
    mine = entry(one.key, limits=pb.Limits(**limits), project_id="p-1")
    projects = [pb.Project(project_id="p-1", organization_id=ORGANIZATION, limits=project)]
    one.control_plane.push(api_keys=[mine], projects=projects)
    await until(one, f"mesh_gateway_snapshot_revision {revision}.0")


async def test_the_eleventh_request_of_a_minute_is_refused_as_openai_does(one: Site) -> None:
    await limited(one, requests_per_minute=10)
    async with node(one, talk):
        for left in range(9, -1, -1):
            async with one.post(chat(stream=True)) as answer:
                assert (answer.status, await answer.read()) == (200, PLAIN)
                assert answer.headers["x-ratelimit-limit-requests"] == "10"
                assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        async with one.post(chat(stream=True)) as answer:
            assert answer.status == 429
            error = (await answer.json())["error"]
            assert 0 < int(answer.headers["Retry-After"]) <= 60
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert error["code"] == "rate_limit_exceeded"
        assert "requests per min" in error["message"]
        await one.pass_time(62)
        assert (await ask(one, chat(stream=True)))[0] == 200
        await one.records(11)


async def test_tokens_are_set_aside_and_given_back(one: Site) -> None:
    await limited(one, tokens_per_day=100)
    async with node(one, talk):
        # Each sets aside its prompt and 90; each uses 8.
        for _ in range(3):
            assert (await ask(one, chat(stream=True, max_tokens=70)))[0] == 200
        status, body = await ask(one, chat(stream=True, max_tokens=90))
        assert (status, json.loads(body)["error"]["code"]) == (429, "insufficient_quota")
        records = await one.records(3)
    assert {record.charged_tokens for record in records} == {8}
    assert all(record.reserved_tokens > 70 for record in records)


async def test_the_projects_limit_counts_over_its_keys(one: Site) -> None:
    await limited(one, pb.Limits(money_per_month=50))
    priced = model(route("w-1", slots=1), price=pb.Price(prompt=1_000_000, completion=1_000_000))
    one.control_plane.push(models=[priced], projects=list(one.control_plane.snapshot.projects))
    await until(one, "mesh_gateway_snapshot_revision 3.0")
    async with node(one, talk):
        assert (await ask(one, chat(stream=True, max_tokens=40)))[0] == 200
        assert (await ask(one, chat(stream=True, max_tokens=45)))[0] == 429
        assert (await ask(one, chat(stream=True, max_tokens=30)))[0] == 200


async def test_what_no_worker_had_costs_nothing(one: Site) -> None:
    await limited(one, requests_per_minute=1)
    assert (await ask(one, chat()))[0] == 503
    async with node(one, talk):
        assert (await ask(one, chat(stream=True)))[0] == 200


async def test_one_too_many_at_once_is_refused_and_a_client_that_leaves_makes_room(one: Site) -> None:
    await limited(one, concurrent_requests=1)
    engine = Scripted(chunk("one", 1))
    async with node(one, engine):
        async with one.post(chat(stream=True)) as answer:
            await answer.content.readuntil(b"one")
            status, body = await ask(one, chat(stream=True))
            assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
        await until(one, "mesh_gateway_live_requests 0.0")
        async with one.post(chat(stream=True)) as answer:
            assert answer.status == 200


async def test_who_waits_is_served_in_turn_and_hears_that_we_live(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine), asyncio.TaskGroup() as group:
        first = await one.post(chat(stream=True))
        await first.content.readuntil(b"one")
        waiting = group.create_task(ask(one, chat(stream=True, user="second")))
        await eventually(lambda: len(engine.asked) == 1)
        await one.pass_time(24)
        assert len(engine.asked) == 1
        stream = await engine.get()
        await stream.write(last_chunk(1) + b"data: [DONE]\n\n")
        stream.end()
        await first.read()
        await eventually(lambda: len(engine.asked) == 2)
        stream = await engine.get()
        await stream.write(last_chunk(1) + b"data: [DONE]\n\n")
        stream.end()
    status, body = waiting.result()
    assert status == 200
    assert body.startswith(b": waiting for the engine")
    assert max(record.queue_ms for record in await one.records(2)) >= 20_000


async def test_who_waits_too_long_is_told_when_to_come_again(one: Site) -> None:
    engine = Scripted(chunk("one", 1))
    async with node(one, engine), one.post(chat(stream=True)) as answer, asyncio.TaskGroup() as group:
        await answer.content.readuntil(b"one")
        late = group.create_task(ask_with(one, chat(), {"X-Inventiv-Max-Wait": "5"}))
        await one.pass_time(10)
        status, code, retry = await late
    assert (status, code) == (503, "queue_timeout")
    assert retry >= 1


async def ask_with(one: Site, body: object, headers: dict[str, str]) -> tuple[int, str, int]:
    async with one.post(body, headers=headers) as answer:
        error = (await answer.json()).get("error", {})
        return answer.status, error.get("code", ""), int(answer.headers.get("Retry-After", 0))


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Inventiv-Priority", "urgent"), ("X-Inventiv-Max-Wait", "-1"), ("X-Inventiv-Max-Wait", "nan")],
)
async def test_a_header_that_makes_no_sense_is_400(one: Site, name: str, value: str) -> None:
    async with node(one, talk):
        assert (await ask_with(one, chat(), {name: value}))[:2] == (400, "invalid_input")


async def test_the_high_key_goes_first_and_the_low_one_last(one: Site) -> None:
    keys = {level: new_api_key() for level in ("LOW", "NORMAL", "HIGH")}
    entries = [entry(key, priority=getattr(pb, f"PRIORITY_{level}")) for level, key in keys.items()]
    one.control_plane.push(api_keys=[entry(one.key), *entries])
    await until(one, "mesh_gateway_snapshot_revision 2.0")
    served: list[str] = []
    go_on = asyncio.Event()

    async def one_by_one(stream: Stream) -> None:
        served.append(json.loads(await body_of(stream))["user"])
        await go_on.wait()
        respond(stream)
        await stream.write(b'{"usage":{}}')
        stream.end()

    async with node(one, one_by_one), asyncio.TaskGroup() as group:
        group.create_task(ask(one, chat(user="first")))
        await eventually(lambda: served)
        for number, level in enumerate(("LOW", "NORMAL", "HIGH"), 1):
            headers = {"Authorization": f"Bearer {keys[level].reveal()}"}
            group.create_task(ask_with(one, chat(user=level), headers))
            await until(one, f"mesh_gateway_live_requests {number + 1}.0")
        go_on.set()
    assert served == ["first", "HIGH", "NORMAL", "LOW"]


async def test_a_request_waits_for_a_worker_that_can_come_and_hears_how_far_it_is(one: Site) -> None:
    one.control_plane.push(models=[model(route("w-1", phase=BUSY), can_start=True)])
    await until(one, "mesh_gateway_snapshot_revision 2.0")
    load = pb.WorkerLoad(worker_id="w-1", phase=BUSY, progress_percent=40, detail="loading weights")
    one.control_plane.loads = [load]
    one.control_plane.said.set()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ask(one, chat(stream=True)))
        await until(one, "mesh_gateway_live_requests 1.0")
        await one.pass_time(24)
        async with node(one, talk):
            await waiting
    status, body = waiting.result()
    assert status == 200
    assert b": waiting for the engine: starting 40 %, loading weights\n\n" in body
    assert body.endswith(PLAIN)
