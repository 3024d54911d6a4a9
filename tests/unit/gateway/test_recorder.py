"""The flight recorder."""

import json

from gateway.core.recorder import Recorder
from mesh.routing.record import from_row, replay
from mesh.routing.values import BALANCED, Ask, Candidate, Decision
from tests.unit.gateway.values import NOW

ALONE = (Candidate("w", "n", 0, 0.0, 4, 1.0, 0.0, 0),)
ASK = Ask(BALANCED, 5, None, (1, 2), 0)


def test_the_last_decisions_are_kept_in_their_order() -> None:
    recorder = Recorder(3)
    for at in range(5):
        recorder.add(NOW, f"r-{at}", "m", ASK, ALONE, Decision("w", "only"))
    assert len(recorder) == 3
    assert [row["request_id"] for row in recorder.dump()] == ["r-2", "r-3", "r-4"]


def test_what_is_dumped_can_be_replayed() -> None:
    recorder = Recorder(1)
    recorder.add(NOW, "r", "m", ASK, ALONE, Decision("w", "only"))
    [row] = recorder.dump()
    report = replay([from_row(json.loads(json.dumps(row)))])
    assert (report.decisions, report.differences) == (1, [])
