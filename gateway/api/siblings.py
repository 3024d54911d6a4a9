"""One page of metrics for all processes of a gateway: each tells the others its own over a socket in its folder.

Clients' port is shared, so a scrape reaches whichever process the kernel picks. That one asks the others, and
every number gets the label ``process``.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from mesh.kit.logs import F

log = logging.getLogger(__name__)

SOCKET: Final = "metrics.sock"
WAIT_S: Final = 1.0  # a process that takes longer to say some numbers has other worries
MAX_PAGE: Final = 16 * 1024 * 1024
MAX_PATH: Final = 100  # octets; systems allow a socket's path 104 or 108


def socket_of(state_dir: Path) -> Path:
    """Where a process with that folder answers."""
    return state_dir / SOCKET


@dataclass(slots=True, eq=False)
class Siblings:
    """The processes of one gateway, as seen from one of them."""

    state_dir: Path
    """Of this process; the others' folders lie beside it, ``process-<number>`` each."""
    process: int
    count: int
    own: Callable[[], bytes]
    """This process's page."""
    left_out: int = field(init=False, default=0)
    """How often another process did not answer in time."""

    async def page(self) -> bytes:
        """Everyone's numbers. Takes at most ``WAIT_S``; who does not answer by then is left out."""
        others = [number for number in range(self.count) if number != self.process]
        async with asyncio.TaskGroup() as group:
            asked = {number: group.create_task(self._ask(number)) for number in others}
        pages = {self.process: self.own().decode()}
        pages |= {number: text for number, task in asked.items() if (text := task.result()) is not None}
        self.left_out += self.count - len(pages)
        registry = CollectorRegistry()
        registry.register(_Merged(pages, self.process, self.left_out))
        return generate_latest(registry)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """While the block lasts, others are told our page. OSError when there can be no socket."""
        path = socket_of(self.state_dir)
        path.unlink(missing_ok=True)  # of an earlier run; two at once are kept apart by the spool's lock
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o600)  # before anyone can connect: nobody listens yet
            server = await asyncio.get_running_loop().create_unix_server(lambda: _Teller(self.own), sock=listener)
            try:
                yield
            finally:
                server.close()
                path.unlink(missing_ok=True)

    async def _ask(self, number: int) -> str | None:
        path = socket_of(self.state_dir.parent / f"process-{number}")
        try:
            async with asyncio.timeout(WAIT_S):
                reader, writer = await asyncio.open_unix_connection(path, limit=MAX_PAGE)
                try:
                    octets = await _all(reader)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as exc:
            log.info("process left out of the metrics", extra={F.PATH: str(path), F.REASON: str(exc)})
            return None
        return octets.decode() or None


class _Teller(asyncio.Protocol):
    """Says the page to whoever connects, and hangs up."""

    def __init__(self, page: Callable[[], bytes]) -> None:
        self._page = page

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        into = cast("asyncio.WriteTransport", transport)
        into.write(self._page())
        into.close()


class _Merged(Collector):
    """Several pages as one, with a label more."""

    def __init__(self, pages: dict[int, str], asked: int, left_out: int) -> None:
        self._pages = pages
        self._asked = asked
        self._left_out = left_out

    def collect(self) -> Iterator[Metric]:
        yield from merged(self._pages)
        silent = CounterMetricFamily(
            "mesh_gateway_processes_left_out",
            "Processes that did not tell their numbers in time.",
            labels=("process",),
        )
        silent.add_metric((str(self._asked),), self._left_out)
        yield silent


def merged(pages: dict[int, str]) -> Iterable[Metric]:
    """The families of all pages, each number with the process that said it."""
    families: dict[str, Metric] = {}
    for number, page in sorted(pages.items()):
        with contextlib.suppress(ValueError):  # half a page: what was read of it counts
            for family in text_string_to_metric_families(page):
                into = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = {**sample.labels, "process": str(number)}
                    into.samples.append(sample._replace(labels=labels))
    return families.values()


async def _all(reader: asyncio.StreamReader) -> bytes:
    """Up to the end. OSError when that is too far."""
    found = bytearray()
    while octets := await reader.read(65_536):
        found += octets
        if len(found) > MAX_PAGE:
            raise OSError("a page too long")
    return bytes(found)
