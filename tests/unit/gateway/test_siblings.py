"""One page for all processes: labels, and who does not answer."""

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.api import siblings
from gateway.api.siblings import Siblings


def page(count: int) -> bytes:
    registry = CollectorRegistry()
    Counter("asked", "Requests.", ["model"], registry=registry).labels('a"b\n').inc(count)
    Gauge("here", "Nodes.", registry=registry).set(count)
    Histogram("took", "Seconds.", buckets=(1.0,), registry=registry).observe(count)
    return generate_latest(registry)


def folder(root: Path, number: int) -> Path:
    path = root / f"process-{number}"
    path.mkdir(exist_ok=True)
    return path


def test_every_number_says_whose_it_is(tmp_path: Path) -> None:
    async def scrape() -> list[str]:
        first, second = (Siblings(folder(tmp_path, at), at, 2, lambda at=at: page(at + 1)) for at in (0, 1))
        async with first.answering(), second.answering():
            return (await second.page()).decode().splitlines()

    lines = asyncio.run(scrape())
    assert 'asked_total{model="a\\"b\\n",process="0"} 1.0' in lines
    assert 'asked_total{model="a\\"b\\n",process="1"} 2.0' in lines
    assert 'here{process="1"} 2.0' in lines
    assert 'took_bucket{le="+Inf",process="0"} 1.0' in lines
    assert 'took_sum{process="1"} 2.0' in lines
    assert 'mesh_gateway_processes_left_out_total{process="1"} 0.0' in lines
    assert sum(line.startswith("# TYPE here ") for line in lines) == 1
    assert not list(tmp_path.rglob("*.sock")), "nothing stays"


def test_who_is_silent_or_away_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(siblings, "WAIT_S", 0.05)

    async def scrape() -> str:
        asking = Siblings(folder(tmp_path, 0), 0, 3, lambda: page(1))
        silent = await asyncio.get_running_loop().create_unix_server(
            asyncio.Protocol, folder(tmp_path, 1) / siblings.SOCKET
        )
        async with silent:
            await asking.page()
            return (await asking.page()).decode()

    text = asyncio.run(scrape())
    assert 'here{process="0"} 1.0' in text
    assert 'process="1"' not in text
    assert 'mesh_gateway_processes_left_out_total{process="0"} 4.0' in text


def test_only_the_owner_may_ask_and_an_old_socket_is_replaced(tmp_path: Path) -> None:
    async def look() -> int:
        one = Siblings(folder(tmp_path, 0), 0, 2, lambda: page(1))
        siblings.socket_of(one.state_dir).touch()
        async with one.answering():
            return siblings.socket_of(one.state_dir).stat().st_mode & 0o777

    assert asyncio.run(look()) == 0o600
