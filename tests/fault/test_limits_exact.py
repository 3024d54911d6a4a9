"""A thousand at once against the last ten places of a limit: ten get in, and everybody else is told so."""

import asyncio
import time
from collections import Counter

import pytest

from tests.fault.fleet import Answer, Fleet, chat, fleet, parsed, say

pytestmark = pytest.mark.real

CROWD = 1000
WORD = (
    "abcdefghi"  # nine letters: estimated as three tokens, which is what the simulator counts for it as a message
)
ANSWER = 9
NEED = 3 + ANSWER
EXACT = chat(WORD, max_tokens=ANSWER, ignore_eos=True)
"""Takes all that it sets aside: no more, no less."""
FAILING = chat(WORD, max_tokens=ANSWER, simulator_fault="status:500")
HANGING = chat(WORD, max_tokens=ANSWER, simulator_fault="no_headers")


async def crowd(made: Fleet, body: dict[str, object], key: str, size: int = CROWD) -> list[Answer]:
    """So many requests at once, on connections of their own; all are connected before the first asks."""
    octets = made.octets(body, key=key)
    gate, connected = asyncio.Event(), asyncio.Semaphore(200)

    async def one() -> Answer:
        async with connected:
            reader, writer = await made.connect()
        await gate.wait()
        writer.write(octets)
        async with asyncio.timeout(60):
            answer = await reader.read(-1)
        writer.close()
        return parsed(answer)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(size)]
        await made.until_has("mesh_gateway_client_connections", size)
        gate.set()
    return [task.result() for task in tasks]


def check_refusals(answers: list[Answer], *, code: str, kind: str, longest_s: float) -> None:
    """Each has OpenAI's shape, and says when to come back."""
    for answer in answers:
        error = answer.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["type"], error["param"]) == (code, kind, None)
        assert "Limit" in error["message"]
        assert "Requested" in error["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= longest_s
        assert answer.headers["content-type"] == "application/json"


def split(answers: list[Answer]) -> tuple[int, list[Answer]]:
    """How many were answered, and the refusals; there is nothing else."""
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) <= {200, 429}, statuses
    return statuses[200], [answer for answer in answers if answer.status == 429]


async def in_one(
    window_s: int, attempt: str, keys: tuple[str, ...], made: Fleet, body: dict[str, object]
) -> list[Answer]:
    """The crowd, within one window of the limit: where a window ended meanwhile, again with another key."""
    for key in keys:
        before = int(time.time()) // window_s
        answers = await crowd(made, body, f"{attempt}-{key}")
        if int(time.time()) // window_s == before:
            return answers
    raise AssertionError("two windows in a row were over")


async def test_a_thousand_requests_at_ten_a_minute_are_ten_answers() -> None:
    keys = {f"minute-{name}": {"requests_per_minute": 10} for name in "ab"}
    async with fleet("seed=1", keys=keys) as made:
        answers = await in_one(60, "minute", ("a", "b"), made, EXACT)
        served, refused = split(answers)
        assert (served, len(refused)) == (10, CROWD - 10)
        check_refusals(refused, code="rate_limit_exceeded", kind="rate_limit_error", longest_s=60)
        assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"10"}
        assert {answer.headers["x-ratelimit-remaining-requests"] for answer in refused} == {"0"}
        assert len(await made.until_recorded(10)) == 10
        say(f"requests per minute: {served} answered, {len(refused)} refused")


async def test_a_thousand_requests_at_the_last_ten_places_of_a_budget_are_ten_answers() -> None:
    keys = {"day": {"tokens_per_day": 50 * NEED, "concurrent_requests": 500}}
    async with fleet("seed=1", keys=keys) as made:
        for _ in range(2):  # failures and all that follows them leave the budget as it was
            assert {answer.status for answer in await crowd(made, FAILING, "day", 5)} == {500}
        assert split(await crowd(made, EXACT, "day", 40)) == (40, [])
        served, refused = split(await crowd(made, EXACT, "day"))
        assert (served, len(refused)) == (10, CROWD - 10)
        check_refusals(refused, code="insufficient_quota", kind="insufficient_quota", longest_s=86_400)
        records = [one for one in await made.until_recorded(60) if one.status == 200]
        assert sum(one.charged_tokens for one in records) == 50 * NEED, "the last token is used"
        say(f"tokens per day: {served} answered, {len(refused)} refused, {50 * NEED} of {50 * NEED} tokens used")


async def test_what_is_given_back_can_be_used_again_to_the_last_token() -> None:
    async with fleet("seed=1", keys={"day": {"tokens_per_day": 10 * NEED}}) as made:
        octets = made.octets(HANGING, key="day")
        hanging = [await made.connect() for _ in range(10)]
        for _, writer in hanging:
            writer.write(octets)
        await made.until_has("mesh_gateway_outstanding_requests", 10)
        # Ten that have not said anything yet hold all of it.
        assert split(await crowd(made, EXACT, "day"))[0] == 0
        for _, writer in hanging:
            writer.transport.abort()
        await made.until_quiet()
        # They are charged their prompts; the rest is there again, and not a token more.
        assert {one.charged_tokens for one in await made.until_recorded(10)} == {3}
        free = 10 * (NEED - 3)
        served, refused = split(await crowd(made, EXACT, "day"))
        assert (served, len(refused)) == (free // NEED, CROWD - free // NEED)
        last = chat(WORD, max_tokens=free % NEED - 3, ignore_eos=True)
        assert [(await made.ask(last, key="day")).status for _ in range(2)] == [200, 429]
        charged = sum(one.charged_tokens for one in await made.until_recorded(10 + served + 1))
        assert charged == 10 * NEED
        say(f"given back: {free} tokens, {served} + 1 more answers, {charged} of {10 * NEED} tokens charged")
