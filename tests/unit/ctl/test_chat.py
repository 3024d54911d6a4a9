"""meshctl chat against a real HTTP server that answers as the gateway does, and as a broken one would."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from control_plane.ctl import running
from control_plane.ctl.running import RunningMesh
from tests.unit.ctl.conftest import Meshctl, Result

KEY = "inv-abcdefghijkl-" + "s" * 43
Chat = Callable[..., Awaitable[Result]]


def piece(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": None}


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}


class Endpoint:
    """Answers /v1/chat/completions with ``events``, or with ``error``; keeps what it was sent."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.error: tuple[int, dict[str, object]] | None = None
        self.cut = False
        self.seen: list[tuple[str, dict[str, object]]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.headers.get("Authorization", ""), await request.json()))
        if self.error is not None:
            status, body = self.error
            return web.json_response(body, status=status, headers={"Retry-After": "7"})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for event in self.events:
            await answer.write(event.encode())
        if self.cut:
            assert request.transport is not None
            request.transport.abort()
        return answer


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    found = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield found
    await runner.cleanup()


@pytest.fixture
def chat(endpoint: Endpoint, bare: Meshctl) -> Chat:
    async def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
        where = {"MESHCTL_BASE_URL": endpoint.url, "MESHCTL_API_KEY": KEY}
        return await asyncio.to_thread(bare, "chat", *arguments, environ=where if environ is None else environ)

    return run


def sse(*rows: object) -> list[str]:
    return [f"data: {row if isinstance(row, str) else json.dumps(row)}\n\n" for row in rows]


async def test_the_answer_goes_to_stdout_and_its_timing_to_stderr(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.events = [": waiting\n\n", *sse(piece("7 x 8"), piece(" is"), piece(" 56."), USAGE, "[DONE]")]
    asked = await chat("small", "What is 7 times 8?", "--max-tokens", "16")
    assert asked.code == 0
    assert asked.out == "7 x 8 is 56.\n"
    [timing] = asked.lines
    assert timing.startswith("3 tokens · ")
    assert "tokens/s" in timing
    assert timing.endswith("(TTFT)")
    [(authorization, body)] = endpoint.seen
    assert authorization == f"Bearer {KEY}"
    assert body["messages"] == [{"role": "user", "content": "What is 7 times 8?"}]
    assert body["stream"] is True
    assert body["temperature"] == 0
    assert body["max_tokens"] == 16


async def test_a_model_cannot_drive_the_terminal(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.events = sse(piece("one\ntwo\x1b[2J\x07"), "[DONE]")
    assert (await chat("small", "hi")).out == "one\ntwo[2J\n"


async def test_a_piece_cut_anywhere_arrives_whole(chat: Chat, endpoint: Endpoint) -> None:
    whole = "".join(sse(piece("é"), USAGE, "[DONE]"))
    endpoint.events = list(whole)
    assert (await chat("small", "hi")).out == "é\n"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, 2, "max_tokens: at most 131072"),
        (401, 1, "the key is refused: max_tokens"),
        (404, 1, "max_tokens"),
        (413, 2, "max_tokens"),
        (429, 1, "not now: max_tokens: at most 131072 (again in 7 s)"),
        (500, 1, "max_tokens"),
        (503, 1, "not now: max_tokens: at most 131072 (again in 7 s)"),
    ],
)
async def test_a_refusal_is_the_servers_words_in_one_line(
    chat: Chat, endpoint: Endpoint, status: int, code: int, words: str
) -> None:
    endpoint.error = (
        status,
        {"error": {"message": "max_tokens: at most\n131072", "type": "invalid_request_error"}},
    )
    refused = await chat("small", "hi")
    assert refused.code == code
    assert refused.out == ""
    [line] = refused.lines
    assert words in line


async def test_an_error_in_the_middle_ends_the_answer_with_a_line(chat: Chat, endpoint: Endpoint) -> None:
    endpoint.events = sse(piece("so far"), {"error": {"message": "the worker was lost", "code": "upstream_lost"}})
    broken = await chat("small", "hi")
    assert (broken.code, broken.out) == (1, "so far\n")
    assert broken.lines == ["meshctl: the answer broke off: the worker was lost"]


@pytest.mark.parametrize("cut", [True, False], ids=["connection lost", "no [DONE]"])
async def test_an_answer_without_its_end_is_a_failure(chat: Chat, endpoint: Endpoint, cut: bool) -> None:
    endpoint.events, endpoint.cut = sse(piece("so far")), cut
    broken = await chat("small", "hi")
    assert (broken.code, broken.out) == (1, "so far\n")
    [line] = broken.lines
    assert line.startswith("meshctl: the answer broke off")


async def test_garbage_is_a_failure_and_no_traceback(chat: Chat, endpoint: Endpoint) -> None:
    for garbage in ("{", "[]", "7"):
        endpoint.events = sse(garbage)
        broken = await chat("small", "hi")
        assert broken.code == 1
        assert len(broken.lines) == 1


async def test_an_endpoint_that_is_not_there_is_one_line(chat: Chat, unused_tcp_port: int) -> None:
    where = {"MESHCTL_BASE_URL": f"http://127.0.0.1:{unused_tcp_port}/v1", "MESHCTL_API_KEY": KEY}
    refused = await chat("small", "hi", environ=where)
    assert refused.code == 1
    [line] = refused.lines
    assert "unreachable" in line
    assert "`meshctl up`" in line


async def test_the_mesh_of_this_machine_is_asked_unless_another_is_named(
    chat: Chat, endpoint: Endpoint, tmp_path: Path
) -> None:
    state = tmp_path / "up"
    state.mkdir()
    (tmp_path / "key").write_text(KEY + "\n")
    mesh = RunningMesh(
        endpoint="127.0.0.1:1",
        identity="/nowhere",
        server_name="control-plane.mesh.local",
        base_url=endpoint.url,
        api_key_file=str(tmp_path / "key"),
        model="small",
    )
    endpoint.events = sse(piece("hello"), "[DONE]")
    nowhere = await chat("small", "hi", environ={})
    assert (nowhere.code, nowhere.out) == (1, "")
    assert "`meshctl up`" in nowhere.err
    running.write(state, mesh)
    assert (await chat("small", "hi", environ={})).out == "hello\n"
    # Its key is not sent to a mesh that it was not made for.
    sent = len(endpoint.seen)
    stranger = await chat(
        "small", "hi", environ={"MESHCTL_BASE_URL": endpoint.url.replace("127.0.0.1", "localhost")}
    )
    assert stranger.code == 1
    assert "names another mesh" in stranger.err
    assert len(endpoint.seen) == sent


async def test_a_key_in_a_file_is_used_and_a_missing_file_is_named(
    chat: Chat, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.events = sse(piece("hello"), "[DONE]")
    where = {"MESHCTL_BASE_URL": endpoint.url}
    missing = await chat("small", "hi", "--api-key-file", str(tmp_path / "no"), environ=where)
    assert missing.code == 2
    assert missing.lines == [f"meshctl: --api-key-file: cannot read {tmp_path / 'no'}: No such file or directory"]
    (tmp_path / "key").write_text(KEY + "\n")
    assert (await chat("small", "hi", "--api-key-file", str(tmp_path / "key"), environ=where)).code == 0
    assert endpoint.seen[-1][0] == f"Bearer {KEY}"
