"""Does the gateway's memory stay flat? ``make soak``: half an hour of requests at a fixed rate, some cut short.

Prints resident memory and open files every half minute, and at the end the slope by least squares after the first
quarter. Asserts nothing; the figure goes into RESULTS.md with its date and command.
"""

import argparse
import asyncio
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from rich.console import Console

from bench import mesh
from bench.__main__ import build
from bench.peers import Spawner, start_upstream, wait_listening

EVERY_S = 30.0
BODY = b'{"model":"mock","stream":%b,"messages":[{"role":"user","content":"soak"}]}'


@dataclass(slots=True)
class Load:
    """Requests on an open schedule."""

    url: str
    key: str
    rate: float
    cancels: float
    seed: random.Random
    done: int = 0
    cut: int = 0
    bad: int = 0

    async def run(self, seconds: float) -> None:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=256)
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as client,
            asyncio.TaskGroup() as group,
        ):
            started, number = time.monotonic(), 0
            while (due := number / self.rate) < seconds:
                await asyncio.sleep(max(0.0, started + due - time.monotonic()))
                group.create_task(self.one(client, number))
                number += 1

    async def one(self, client: aiohttp.ClientSession, number: int) -> None:
        stream = number % 2 == 0
        cut = self.seed.random() < self.cancels
        try:
            async with client.post(self.url, data=BODY % (b"true" if stream else b"false")) as answer:
                if cut:
                    await answer.content.readany()
                    answer.close()
                    self.cut += 1
                    return
                await answer.read()
                self.done += answer.status == 200
                self.bad += answer.status != 200
        except aiohttp.ClientError:
            self.bad += not cut


def slope(points: list[tuple[float, float]]) -> float:
    """Of y over x, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)


async def soak(url: str, key: str, pid: int, args: argparse.Namespace, console: Console) -> None:
    load = Load(url, key, args.rate, args.cancels, random.Random(1))
    points: list[tuple[float, float]] = []
    started = time.monotonic()

    async def watch() -> None:
        process = psutil.Process(pid)
        while True:
            await asyncio.sleep(EVERY_S)
            at, mib = time.monotonic() - started, process.memory_info().rss / 2**20
            points.append((at, mib))
            said = f"{at:6.0f} s  {mib:7.2f} MiB  {process.num_fds()} files  {load.done} done  {load.cut} cut"
            console.print(f"{said}  {load.bad} bad")

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await load.run(args.minutes * 60)
        watching.cancel()
    settled = [point for point in points if point[0] >= args.minutes * 60 / 4]
    if len(settled) > 1:
        per_hour = slope(settled) * 3600
        per_request = slope(settled) * 2**20 / args.rate
        console.print(
            f"slope after the first quarter: {per_hour:+.2f} MiB/h, {per_request:+.2f} bytes per request"
            f" ({load.done + load.cut} requests, {load.cut} cut, {load.bad} bad)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--cancels", type=float, default=0.05, help="share that is cut short by the client")
    args = parser.parse_args()
    console = Console(width=150)
    build(console)
    with tempfile.TemporaryDirectory(prefix="mesh-soak-") as folder:
        Path(folder).chmod(0o755)
        spawner = Spawner(Path(folder))
        try:
            upstream, _ = start_upstream(spawner, chunks=8, delay_us=2000)
            wait_listening(upstream)
            target = mesh.start(spawner, upstream)
            key = Path(target.key_file).read_text().strip()
            url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
            asyncio.run(soak(url, key, target.measured[0], args, console))
        finally:
            spawner.stop()


if __name__ == "__main__":
    main()
