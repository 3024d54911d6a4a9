"""What a gateway refuses, and how: in OpenAI's shape, with a request id, and without a usage record."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pki.api_keys import new_api_key
from tests.mesh.gateway_engines import PLAIN, talk
from tests.mesh.gateway_harness import Site, ask, chat, http_request, model, node, route, site, until


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[Site]:
    models = model(route("w-1")), model(route("w-1"), name="own", organization="org-2")
    async with site(tmp_path, *models, max_body_bytes=4096, max_requests=2) as found:
        yield found


async def refusal(one: Site, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    async with one.client.request(method, f"{one.url}{path}", **more) as answer:
        body = await answer.json()
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert len(answer.headers["X-Request-Id"]) == 36
        return answer.status, body["error"], dict(answer.headers)


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_json"),
        (b"{", None, "invalid_json"),
        (b"[]", None, "invalid_json"),
        (b"\xff\xfe", None, "invalid_json"),
        (b"{}", "model", "invalid_input"),
        (json.dumps(chat(messages=[])).encode(), "messages", "invalid_input"),
        (json.dumps(chat(stream="x")).encode(), "stream", "invalid_input"),
    ],
)
async def test_a_bad_body_is_400_and_names_the_field(one: Site, body: bytes, param: str | None, code: str) -> None:
    headers = {**one.headers, "Content-Type": "application/json"}
    status, error, _ = await refusal(one, "POST", CHAT, data=body, headers=headers)
    assert (status, error["param"], error["code"]) == (400, param, code)


async def test_a_wrong_key_is_401(one: Site) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer inv-x"},
        {"Authorization": f"Bearer {new_api_key().reveal()}"},
        {"Authorization": f"Basic {one.key.reveal()}"},
        {"X-API-Key": "x"},
    ):
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/m")):
            status, error, shown = await refusal(one, method, path, headers=headers)
            assert (status, error["code"]) == (401, "invalid_api_key")
            assert shown["WWW-Authenticate"] == "Bearer"


async def test_the_key_may_come_as_x_api_key(one: Site) -> None:
    async with one.client.get(f"{one.url}/v1/models", headers={"X-API-Key": one.key.reveal()}) as answer:
        assert answer.status == 200


async def test_a_model_that_is_unknown_or_someone_elses_is_404(one: Site) -> None:
    for name in ("nope", "own"):
        status, error, _ = await refusal(one, "POST", CHAT, json=chat(name), headers=one.headers)
        assert (status, error["param"], error["code"]) == (404, "model", "model_not_found")
        status, error, _ = await refusal(one, "GET", f"/v1/models/{name}", headers=one.headers)
        assert (status, error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/../metrics/x", 404, "unknown_url"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
async def test_a_route_that_is_not_there_is_refused(
    one: Site, method: str, path: str, status: int, code: str
) -> None:
    got, error, shown = await refusal(one, method, path, headers=one.headers)
    assert (got, error["code"]) == (status, code)
    assert ("Allow" in shown) == (status == 405)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_what_is_not_plain_json_is_415(one: Site, headers: dict[str, str]) -> None:
    status, error, _ = await refusal(one, "POST", CHAT, data=b"{}", headers={**one.headers, **headers})
    assert (status, error["code"]) == (415, "unsupported_media_type")


async def test_a_body_that_is_too_long_is_413_whether_it_says_so_or_not(one: Site) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    headers = {**one.headers, "Content-Type": "application/json"}
    for data in (b" " * 5000, chunked()):
        status, error, _ = await refusal(one, "POST", CHAT, data=data, headers=headers)
        assert (status, error["code"]) == (413, "request_too_large")


async def test_a_client_is_refused_before_it_sends_a_body_it_announced(one: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_a_client_that_asks_first_is_told_to_go_on(one: Site) -> None:
    async with node(one, talk):
        head, _, body = http_request(one, chat(stream=True)).partition(b"\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port)
        writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(body.replace(b'"m"', b'"x"'))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404")
        writer.close()


async def test_a_body_that_never_comes_is_408(one: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port)
    writer.write(http_request(one, chat())[:-5])
    await until(one, "mesh_gateway_live_requests 1.0")
    await one.clock.forward(61)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
    writer.close()


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\0\x01", b"GARBAGE\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n"])
async def test_octets_that_are_no_http_are_told_so_and_the_listener_goes_on(one: Site, octets: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.http.port)
    writer.write(octets)
    got = await reader.read()
    writer.close()
    assert got.startswith(b"HTTP/1.1 400")
    assert b"X-Request-Id: " in got
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
    async with one.client.get(f"{one.url}/healthz") as answer:
        assert answer.status == 200


async def test_more_requests_than_can_be_held_are_503(one: Site) -> None:
    connections = []
    for _ in range(2):
        connections.append(await asyncio.open_connection("127.0.0.1", one.http.port))
        connections[-1][1].write(http_request(one, chat())[:-5])
    await until(one, "mesh_gateway_live_requests 2.0")
    status, error, headers = await refusal(one, "POST", CHAT, json=chat(), headers=one.headers)
    assert (status, error["code"]) == (503, "gateway_overloaded")
    assert int(headers["Retry-After"]) > 0
    for _, writer in connections:
        writer.close()
    await until(one, "mesh_gateway_live_requests 0.0")


async def test_a_model_without_a_reachable_worker_is_503_with_retry_after(one: Site) -> None:
    status, error, headers = await refusal(one, "POST", CHAT, json=chat(), headers=one.headers)
    assert (status, error["code"]) == (503, "no_ready_worker")
    assert int(headers["Retry-After"]) > 0


async def test_nothing_that_was_refused_leaves_a_usage_record(one: Site) -> None:
    await ask(one, b"{")
    await ask(one, chat("nope"))
    await ask(one, chat())
    async with node(one, talk):
        assert await ask(one, chat(stream=True)) == (200, PLAIN)
        assert (await one.record()).model == "m"


async def test_models_are_listed_that_can_be_reached(one: Site) -> None:
    async def listed() -> list[str]:
        async with one.client.get(f"{one.url}/v1/models", headers=one.headers) as answer:
            assert answer.status == 200
            return [entry["id"] for entry in (await answer.json())["data"]]

    assert await listed() == []
    async with node(one, talk):
        assert await listed() == ["m"], "and not what is another organization's"
        async with one.client.get(f"{one.url}/v1/models/m", headers=one.headers) as answer:
            shown = await answer.json()
    assert shown["object"] == "model"
    assert (shown["ready"], shown["max_model_len"]) == (True, 4096)


async def test_ready_means_a_snapshot_and_a_node(one: Site) -> None:
    async with one.client.get(f"{one.url}/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["reasons"] == ["no node is attached"]
    async with node(one, talk), one.client.get(f"{one.url}/readyz") as answer:
        assert answer.status == 200
    async with one.client.head(f"{one.url}/healthz") as answer:
        assert answer.status == 200


async def test_metrics_have_no_label_that_a_client_chose(one: Site) -> None:
    async with node(one, talk):
        await ask(one, chat("chosen-by-client"))
        await ask(one, chat(stream=True))
        await one.records(1)
        page = await one.metrics()
    assert "chosen-by-client" not in page
    assert 'mesh_gateway_requests_total{model="m",status="200"} 1.0' in page
    assert 'mesh_gateway_tokens_total{deployment="d-1",kind="completion",model="m"} 3.0' in page
    assert "mesh_gateway_tunnel_sessions 1.0" in page
