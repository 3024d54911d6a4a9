"""A client that leaves reaches the engine: every time, and how soon. The times are printed, not judged."""

import asyncio
import random
import time

import pytest

from tests.fault.fleet import LONG, SEED, Fleet, chat, fleet, say
from tests.fault.spine import SSE_HEAD, event, framed, upstream

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600 if LONG else 120)]

ABORTS = 10_000 if LONG else 200
AT_ONCE = 16


class Engine:
    """Says a token now and then; writes down when each of its clients left."""

    def __init__(self) -> None:
        self.left: dict[str, asyncio.Future[float]] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        name = body.partition(b'"content": "')[2].partition(b'"')[0].decode()
        writer.write(SSE_HEAD)

        async def talk() -> None:
            while True:
                writer.write(framed(event("tick")))
                await asyncio.sleep(0.02)

        talking = asyncio.ensure_future(talk())
        try:
            await reader.read(1)  # nothing more comes, until the other side is gone
        except OSError:
            pass
        finally:
            talking.cancel()
            self.left[name].set_result(time.monotonic())


async def leave(made: Fleet, engine: Engine, name: str, draw: random.Random) -> float:
    """Ask, read a little, leave; milliseconds until the engine's connection ended."""
    noticed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    engine.left[name] = noticed
    reader, writer = await made.connect()
    writer.write(made.octets(chat(name, stream=True)))
    for _ in range(draw.randrange(1, 4)):
        await reader.readuntil(b"tick")
    gone = time.monotonic()
    if draw.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    async with asyncio.timeout(30):
        return (await noticed - gone) * 1e3


async def test_every_abort_reaches_the_engine() -> None:
    engine, draw = Engine(), random.Random(SEED)
    async with upstream(engine) as port, fleet("seed=1", reach={0: port}) as made:
        names = iter(range(ABORTS))
        took: list[float] = []

        async def client() -> None:
            for number in names:
                took.append(await leave(made, engine, f"client-{number}", draw))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(client())
        await made.until_quiet()
        records = await made.until_recorded(ABORTS)
    assert len(took) == ABORTS
    assert len(records) == len({one.request_id for one in records}) == ABORTS
    took.sort()
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    say(f"{ABORTS} aborts, {AT_ONCE} at once: p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {took[-1]:.1f} ms")
