"""An engine lost at any octet of its answer: the client reads one text, one usage and one end, or an error."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from mesh.gateway.v1 import gateway_pb2 as pb
from tests.fault.cutter import Cutter
from tests.fault.fleet import CHAT, COMPLETIONS, LONG, SEED, Answer, Fleet, chat, fleet, say
from tests.fault.spine import free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600 if LONG else 120)]

SAMPLE = 60
TOKENS = 60
LONGER = 2000
DIED = 9
ASKED: Mapping[str, dict[str, object]] = {
    CHAT: chat("Tell me of stones and rivers."),
    COMPLETIONS: {"model": "mock", "prompt": "Tell me of stones and rivers."},
}


def streamed(path: str, tokens: int, **fields: object) -> dict[str, object]:
    return {
        **ASKED[path],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "ignore_eos": True,
        **fields,
    }


@asynccontextmanager
async def two_wired(*options: str) -> AsyncIterator[tuple[Fleet, Cutter]]:
    """Two workers that say the same, on two nodes, behind wires that can be cut."""
    wires, engines = Cutter(), [free_port(), free_port()]
    reach = {at: await wires.wire(port) for at, port in enumerate(engines)}
    try:
        async with fleet(*options, ports=engines, reach=reach) as made:
            yield made, wires
    finally:
        await wires.close()


def same(answer: Answer, whole: Answer) -> bool:
    """Whether the client saw what it would have seen of one worker."""
    return (
        answer.whole
        and (answer.status, answer.error, answer.dones) == (200, "", 1)
        and answer.events[-1] == "[DONE]"
        and (answer.text, answer.finish, answer.usage) == (whole.text, whole.finish, whole.usage)
    )


async def cut_at_each(
    made: Fleet, wires: Cutter, path: str, body: dict[str, object], offsets: list[int], whole: Answer
) -> int:
    """Cut at each of the offsets; how many answers were continued."""
    octets, before = made.octets(body, path=path), wires.asked
    failed: list[tuple[int, str, list[str], bytes]] = []
    for offset in offsets:
        wires.at = offset
        answer = await made.send(octets)
        assert wires.at is None, "somebody was asked"
        if not same(answer, whole):
            failed.append((offset, answer.error, answer.finish, answer.body[-300:]))
        # A worker that does nothing but fail would be left alone, which is another test's matter.
        assert same(await made.send(octets), whole)
    assert not failed, f"{len(failed)} of {len(offsets)}: {failed[:3]}"
    return wires.asked - before - 2 * len(offsets)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_engine_lost_at_any_octet_changes_nothing(path: str) -> None:
    async with two_wired("seed=5", "seed=5") as (made, wires):
        body = streamed(path, TOKENS)
        whole = await made.ask(body, path=path)
        assert (whole.usage["completion_tokens"], whole.dones) == (TOKENS, 1)
        size = await size_of(made, wires, path, body)
        everywhere = range(1, size)
        # In no order: before its first event an answer is asked for again, and that has a budget of its own.
        offsets = random.Random(SEED).sample(everywhere, len(everywhere) if LONG else SAMPLE)
        continued = await cut_at_each(made, wires, path, body, offsets, whole)
        assert continued > len(offsets) * 0.9
        say(f"{path}: {len(offsets)} of {size} octets of {TOKENS} tokens, {continued} times another was asked")
        await made.until_quiet()
        records = await made.until_recorded(2 + 2 * len(offsets))
        assert len(records) == len({one.request_id for one in records}) == 2 + 2 * len(offsets)
        assert {(one.prompt_tokens, one.completion_tokens) for one in records} == {
            (whole.usage["prompt_tokens"], TOKENS)
        }


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_long_answer_goes_on_just_so(path: str) -> None:
    async with two_wired("seed=5,token_ms=0.2", "seed=5,token_ms=0.2") as (made, wires):
        body = streamed(path, LONGER)
        whole = await made.ask(body, path=path)
        assert whole.usage["completion_tokens"] == LONGER
        size = await size_of(made, wires, path, body)
        offsets = sorted(random.Random(SEED).sample(range(1, size), 200 if LONG else 3))
        continued = await cut_at_each(made, wires, path, body, offsets, whole)
        say(f"{path}: {len(offsets)} of {size} octets of {LONGER} tokens, {continued} times another was asked")


async def size_of(made: Fleet, wires: Cutter, path: str, body: dict[str, object]) -> int:
    """Octets of the whole answer on the wire, head and framing included."""
    wires.measure()
    await made.ask(body, path=path)
    return wires.measured


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_after_the_end_of_an_answer_nothing_is_shown(path: str) -> None:
    """The engine closes after ``[DONE]``, without HTTP's own end: the client lacks nothing."""
    async with fleet("seed=5,token_ms=1", "seed=5,token_ms=1") as made:
        whole = await made.ask(streamed(path, TOKENS), path=path)
        answer = await made.ask(streamed(path, TOKENS, simulator_fault="truncated"), path=path)
        assert same(answer, whole), answer.body[-700:]
        records = await made.until_recorded(2)
        assert {one.outcome for one in records} == {pb.USAGE_OUTCOME_COMPLETED}


REFUSED: Mapping[str, Mapping[str, object]] = {
    "tools": {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]},
    "json": {"response_format": {"type": "json_object"}, "ignore_eos": False},
    "logprobs": {"logprobs": True},
    "two answers": {"n": 2},
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_what_cannot_go_on_ends_with_an_error_and_never_in_silence(kind: str) -> None:
    async with two_wired("seed=5", "seed=5") as (made, wires):
        body = streamed(CHAT, TOKENS, **REFUSED[kind])
        whole = await made.ask(body)
        assert (whole.dones, whole.error) == (1, "")
        size = await size_of(made, wires, CHAT, body)
        first = whole.body.index(b"\n\n")
        told = 0
        for offset in sorted(random.Random(SEED).sample(range(first, size), 12)):
            wires.at = offset
            answer = await made.ask(body)
            assert (answer.status, answer.whole) == (200, True)
            if answer.dones:  # it was lost so early that it was asked again, or so late that nothing was missing
                assert (answer.text, answer.error) == (whole.text, "")
            else:
                assert answer.error == "upstream_lost", answer.body[-300:]
                told += 1
            assert (await made.ask(body)).dones == 1
        assert told > 4
        say(f"{kind}: {told} of 12 ended with an error event, the others whole")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_engine_whose_process_dies_is_continued_by_the_other(path: str) -> None:
    """``die_after_bytes``: the process is gone with all that it was doing."""
    draw = random.Random(SEED)
    for _ in range(20 if LONG else 2):
        mortal = f"seed=5,token_ms=1,fault=die_after_bytes:{draw.randrange(1, 12_000)}"
        async with fleet("seed=5,token_ms=1", mortal) as made:
            asked = [
                made.octets(streamed(path, TOKENS, **said(path, f"Tell me of {one}.")), path=path)
                for one in range(12)
            ]
            wholes = [await made.send(one, port=made.ports[0]) for one in asked]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(made.send(one)) for one in asked]
            assert made.engines[1].wait(10) == DIED
            for task, whole in zip(tasks, wholes, strict=True):
                assert same(task.result(), whole), task.result().body[-500:]
            records = await made.until_recorded(len(asked))
            assert {one.outcome for one in records} == {pb.USAGE_OUTCOME_COMPLETED}
            assert sum(one.continuations for one in records) > 0


def said(path: str, text: str) -> dict[str, object]:
    """The field with that prompt."""
    return {"prompt": text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
