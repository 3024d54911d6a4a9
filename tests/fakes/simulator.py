"""The simulator inside a test: its HTTP over a transport that remembers, its timer moved by hand."""

import asyncio
import heapq
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

from node_agent.engines.simulator_http import Connection
from node_agent.engines.simulator_options import parse
from node_agent.engines.simulator_server import Simulator, build
from tests.fakes.clock import FakeClock


class FakeTimer:
    """Implements the simulator's ``Timer``."""

    def __init__(self) -> None:
        self.now = 0.0
        self._calls: list[tuple[float, int, FakeHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        handle = FakeHandle(callback)
        heapq.heappush(self._calls, (when, id(handle), handle))
        return cast("asyncio.TimerHandle", handle)

    @property
    def set(self) -> int:
        """Alarms that are set."""
        return sum(handle.callback is not None for _, _, handle in self._calls)

    def forward(self, seconds: float) -> None:
        """Let that much time pass, alarm after alarm."""
        target = self.now + seconds
        while self._calls and self._calls[0][0] <= target:
            when, _, handle = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            if handle.callback is not None:
                handle.callback()
        self.now = target


@dataclass(eq=False)
class FakeHandle:
    """Something to be called later."""

    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


@dataclass
class Answer:
    """An HTTP answer as a strict parser sees it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    broken: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of every server-sent event, [DONE] left as text."""
        blocks = self.body.decode().split("\n\n")[:-1]
        data = [block.partition("data: ")[2] for block in blocks]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    @property
    def text(self) -> str:
        """What a chat stream or a completion stream says."""
        choices = [event["choices"][0] for event in self.events if event != "[DONE]" and event["choices"]]
        return "".join(one["text"] if "text" in one else one["delta"].get("content") or "" for one in choices)


class Wire:
    """A connection to a simulator. Implements as much of a transport as it uses."""

    def __init__(self, simulator: Simulator, *, draining: bool = False) -> None:
        self.octets = b""
        self.closed = False
        self.connection = Connection(simulator.handle, simulator.connections, lambda: draining)
        self.connection.connection_made(cast("asyncio.BaseTransport", self))

    def write(self, data: bytes) -> None:
        self.octets += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def send(self, octets: bytes) -> None:
        self.connection.data_received(octets)

    def leave(self) -> None:
        """The client goes away."""
        self.closed = True
        self.connection.connection_lost(None)

    def answer(self) -> Answer:
        """The first answer on it, as far as it has come."""
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        try:
            parser.feed_data(self.octets)
        except httptools.HttpParserError:
            answer.broken = True
        answer.status = parser.get_status_code()
        return answer


def octets(method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> bytes:
    """A request; a body that is not octets is written as JSON."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


class World:
    """A simulator and all around it."""

    def __init__(
        self, options: str = "", *, slots: int = 4, context: int = 0, adapters: tuple[str, ...] = ()
    ) -> None:
        self.timer, self.clock = FakeTimer(), FakeClock()
        self.simulator = build(
            parse(options),
            model="tiny",
            adapters=adapters,
            slots=slots,
            context=context,
            clock=self.clock,
            timer=self.timer,
        )

    def ask(self, path: str, body: object = None, **headers: str) -> Wire:
        """A request on a connection of its own: GET without a body, else POST."""
        wire = Wire(self.simulator)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        wire.send(octets("GET" if body is None else "POST", path, body, named))
        return wire

    def answer(self, path: str, body: object = None, **headers: str) -> Answer:
        """The answer to a request."""
        return self.ask(path, body, **headers).answer()

    def metric(self, name: str) -> float:
        """The sum over a metric's samples."""
        text = self.answer("/metrics").body.decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + "{"))
