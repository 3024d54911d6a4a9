"""Spans made of stories, and how little is kept for a collector that takes none."""

from pathlib import Path
from typing import Any

import pytest

from gateway.api.story import Story
from gateway.core.queue import QueueTimeout
from gateway.settings import Settings
from mesh.kit.logs import F
from tests.fakes.clock import FakeClock

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
from gateway.api.tracing import WAITING, Exporter


class Sink(Exporter):
    """Keeps the spans, or refuses them."""

    taken: list[Any]
    takes: bool

    def _send(self, batch: list[Any]) -> bool:
        self.taken += [span for told in batch for span in self._spans(*told)]
        return self.takes


def exporter(*, takes: bool = True) -> Sink:
    found = Sink("http://127.0.0.1:9/v1/traces", 1.0, FakeClock(), "g-1", "1")
    found.taken, found.takes = [], takes
    return found


def facts(**more: object) -> dict[str, object]:
    return {F.REQUEST: "r-1", F.ENDPOINT: "chat", F.MODEL: "m", F.STATUS: 200, **more}


async def test_what_there_is_no_room_for_is_counted_and_lost() -> None:
    one = exporter()
    for number in range(WAITING + 3):
        one.ended(Story(1, number + 1, 0, True), facts(), 0.0)
    assert one.dropped == 3
    await one.flush()
    assert (one.sent, len(one.taken)) == (WAITING, WAITING)
    await one.close()


async def test_a_collector_that_takes_nothing_makes_nothing_wait() -> None:
    one = exporter(takes=False)
    one.ended(Story(1, 2, 0, True), facts(), 0.0)
    await one.flush()
    await one.flush()
    assert (one.sent, one.dropped, len(one.taken)) == (0, 1, 1)
    await one.close()


async def test_a_request_that_waited_in_vain_shows_its_queue() -> None:
    one = exporter()
    one.ended(Story(1, 2, 0, True), facts(**{F.CODE: QueueTimeout.code}), 0.0)
    await one.close()
    root, queue = one.taken
    assert (root.name, queue.name) == ("gateway", "queue")
    assert queue.parent.span_id == root.context.span_id
    assert queue.attributes == {"error.type": QueueTimeout.code}
    assert not root.status.is_ok


@pytest.mark.parametrize(
    ("name", "bad"),
    [("request_log", "some"), ("otlp_endpoint", "127.0.0.1:4318"), ("trace_share", 1.5), ("trace_share", -0.1)],
)
def test_what_is_no_way_of_seeing_is_refused_by_its_name(name: str, bad: object) -> None:
    here: dict[str, Any] = {"state_dir": Path("s"), "tls_dir": Path("t"), "node_trust": Path("n")}
    with pytest.raises(ValueError, match=f"MESH_GW_{name.upper()}"):
        Settings(**here, **{name: bad})
