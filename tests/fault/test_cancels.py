"""Clients, engines and nodes that go at any moment: afterwards nothing is held, and every book balances."""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httptools
import pytest

from control_plane.core import ledger
from control_plane.core.usage import MAX_BATCH
from control_plane.rpc.convert_usage import usage_records
from mesh.gateway.v1 import gateway_pb2 as pb
from tests.fault.fleet import CHAT, COMPLETIONS, LONG, SEED, Answer, Fleet, chat, fleet, parsed, say, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600 if LONG else 120)]

REQUESTS = 10_000 if LONG else 500
WARM_UP = 100
AT_ONCE = 64
SLOTS = 12  # of each of two workers: less than half of those at once, so that the rest queues
SETTINGS = {"IDLE_TIMEOUT": "1s", "FIRST_BYTE_TIMEOUT": "1500ms", "ANSWER_TIMEOUT": "1500ms", "MAX_WAIT": "3s"}
LIMITS = {"tokens_per_day": 10**9, "tokens_per_month": 10**10, "concurrent_requests": 1000}
MAY_GROW_MIB = 48
HURT_EVERY = 1000  # requests, in the long form
TEXT = "Please tell me everything there is to know about lighthouses and harbours."

Fault = Callable[[random.Random], str]
FAULTS: Mapping[str, tuple[int, Fault]] = {
    "close": (20, lambda draw: f"close_after_bytes:{draw.randrange(12_000)}"),
    "stall": (2, lambda draw: f"stall_after_bytes:{draw.randrange(12_000)}"),
    "status": (5, lambda draw: f"status:{draw.choice((400, 429, 500, 503))}"),
    "garbage": (4, lambda draw: f"garbage_after_bytes:{draw.randrange(12_000)}"),
    "unframed": (4, lambda draw: f"unframed_after_bytes:{draw.randrange(12_000)}"),
    "truncated": (4, lambda _: "truncated"),
    "slow headers": (4, lambda draw: f"slow_headers_ms:{draw.randrange(300)}"),
    "no headers": (1, lambda _: "no_headers"),
    "none": (256, lambda _: ""),
}
LEAVINGS: Mapping[str, int] = {"stays": 45, "bytes": 30, "before headers": 15, "half a request": 5, "no wait": 5}


@dataclass(slots=True)
class Story:
    """One client's request: what it is to do, and what it saw."""

    number: int
    leaving: str
    fault: str
    answer: Answer | None = None
    ids: set[str] = field(default_factory=set)


async def play(made: Fleet, number: int, draw: random.Random) -> Story:
    """One request, as the draw has it."""
    (leaving,) = draw.choices(list(LEAVINGS), list(LEAVINGS.values()))
    (kind,) = draw.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])
    story = Story(number, leaving, kind)
    fields: dict[str, object] = {"max_tokens": draw.randrange(1, 80), "stream": draw.random() < 0.8}
    if fault := FAULTS[kind][1](draw):
        fields["simulator_fault"] = fault
    path = draw.choice((CHAT, CHAT, COMPLETIONS))
    body = chat(f"{TEXT} {number}", **fields)
    if path == COMPLETIONS:
        body = {"model": "mock", "prompt": f"{TEXT} {number}", **fields}
    headers = {"x-inventiv-max-wait": "0.05"} if leaving == "no wait" else {}
    octets = made.octets(body, path=path, key="all", headers=headers)
    reader, writer = await made.connect()
    seen = b""
    try:
        async with asyncio.timeout(60):
            if leaving == "half a request":
                writer.write(octets[: draw.randrange(len(octets))])
                await asyncio.sleep(draw.random() * 0.05)
                return story
            writer.write(octets)
            if leaving == "before headers":
                await asyncio.sleep(draw.random() ** 2 * 0.3)
            elif leaving == "bytes":
                seen = await some(reader, draw.randrange(15_000))
            else:
                seen = await reader.read(-1)
    except ConnectionError:
        pass  # an answer that is cut off for want of any way to say so
    finally:
        if draw.random() < 0.5:
            writer.transport.abort()
        writer.close()
    with contextlib.suppress(httptools.HttpParserError):
        story.answer = parsed(seen)
    return story


async def some(reader: asyncio.StreamReader, octets: int) -> bytes:
    try:
        return await reader.readexactly(octets)
    except asyncio.IncompleteReadError as exc:
        return exc.partial


async def play_all(made: Fleet, count: int, draw: random.Random, *, hurt: bool = False) -> list[Story]:
    """So many requests, some at once."""
    stories: list[Story] = []
    numbers = iter(range(count))

    async def client(mine: random.Random) -> None:
        for number in numbers:
            if hurt and number % HURT_EVERY == HURT_EVERY - 1:
                await hurt_somebody(made, mine, number)
            story = await play(made, number, mine)
            stories.append(story)
            if story.answer is not None and story.answer.status == 503:
                await asyncio.sleep(0.2 + mine.random())  # as it was told to; else these would be all there is

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client(random.Random(draw.random())))
    return stories


async def hurt_somebody(made: Fleet, draw: random.Random, epoch: int) -> None:
    """Kill a node or an engine, and start it again."""
    at = draw.randrange(2)
    if draw.random() < 0.5:
        made.engines[at].kill()
        await asyncio.to_thread(made.engines[at].wait)
        made.start_engine(at)
        return
    name = f"n-{at}"
    victim = made.attached[name]
    victim.send_signal(signal.SIGKILL)
    await asyncio.to_thread(victim.wait)
    made.start_node(name, epoch=epoch)


def balances(records: list[pb.UsageRecord]) -> Counter[str]:
    """The accounts after the control plane has posted all of them."""
    found: Counter[str] = Counter()
    for at in range(0, len(records), MAX_BATCH):
        for record in usage_records(records[at : at + MAX_BATCH]):
            for posting in ledger.postings(record):
                found[f"{posting.unit} {posting.debit}"] -= posting.amount
                found[f"{posting.unit} {posting.credit}"] += posting.amount
    return found


async def test_whoever_goes_at_whatever_moment_nothing_stays_behind() -> None:
    draw = random.Random(SEED)
    engines = ("seed=3,token_ms=1", "seed=3,token_ms=1")
    async with fleet(*engines, slots=SLOTS, keys={"all": LIMITS}, settings=SETTINGS) as made:
        stories = await play_all(made, WARM_UP, draw)
        await made.until_quiet()
        fds, rss = await lowest_fds(made), made.rss_mib()
        stories += await play_all(made, REQUESTS, draw, hurt=LONG)
        await made.until_ready()
        await made.until_quiet()
        grown = made.rss_mib() - rss

        page = await made.page()
        records = await made.until_recorded(int(page["mesh_gateway_outcomes_total"]))
        check_records(stories, records, int(page["mesh_gateway_outcomes_total"]))
        drift = await check_money(made, records)
        assert await lowest_fds(made, fds) <= fds
        assert grown < MAY_GROW_MIB
        outcomes = Counter(pb.UsageOutcome.Name(one.outcome)[len("USAGE_OUTCOME_") :].lower() for one in records)
        statuses = Counter(story.answer.status for story in stories if story.answer is not None)
        say(
            f"{len(stories)} requests: statuses {dict(statuses)} (0: left before it), records {dict(outcomes)}, "
            f"{sum(one.continuations for one in records)} times gone on with; drift {drift} tokens, "
            f"open files {fds} and {await lowest_fds(made, fds)}, memory {grown:+.1f} MiB"
        )


def check_records(stories: list[Story], records: list[pb.UsageRecord], ended: int) -> None:
    """One record for each request that a worker had, and it says what the client saw."""
    by_id = {one.request_id: one for one in records}
    assert len(records) == len(by_id) == ended
    for story in stories:
        answer = story.answer
        if answer is None or not answer.request_id:
            continue
        record = by_id.get(answer.request_id)
        if answer.status == 200:
            assert record is not None, story
            done = answer.whole and (answer.dones == 1 if answer.is_stream else True)
            assert not done or record.outcome == pb.USAGE_OUTCOME_COMPLETED, story
            if answer.whole and answer.is_stream:
                assert (answer.dones == 1) != bool(answer.error), "an end or an error, and never both or silence"
        elif answer.whole and (answer.status == 429 or answer.error in ("queue_timeout", "no_ready_worker")):
            assert record is None or record.charged_tokens == 0, story
    for record in records:
        assert record.charged_tokens <= record.reserved_tokens, record


async def check_money(made: Fleet, records: list[pb.UsageRecord]) -> int:
    """What the ledger says, and what the gateway's own counters say; the difference, which is nothing."""
    accounts = ledger.accounts(made.key_id("all"))
    charged = sum(one.charged_tokens for one in records)
    found = balances(records)
    assert found[f"token {accounts.reserved}"] == 0
    assert found[f"token {accounts.spent}"] == -found[f"token {accounts.available}"] == charged
    key = made.key_id("all")
    wanted = {"tokens_per_day": charged, "tokens_per_month": charged, "concurrent_requests": 0}

    def used() -> dict[str, int]:
        told = made.used()
        return {kind: told.get((key, kind), -1) for kind in wanted}

    async def told_all() -> bool:
        return used() == wanted

    await until(told_all)
    assert used() == wanted
    return used()["tokens_per_day"] - found[f"token {accounts.spent}"]


async def lowest_fds(made: Fleet, enough: int = 0) -> int:
    """Open files of the gateway once the connections of clients are gone."""
    lowest = made.fds()
    for _ in range(100):
        lowest = min(lowest, made.fds())
        if lowest <= enough:
            break
        await asyncio.sleep(0.02)
    return lowest
