"""The life cycle of a worker, as a table."""

import pytest

from node_agent.core.worker import (
    NEXT,
    LoopbackEndpoint,
    Signal,
    UnexpectedSignal,
    WorkerPhase,
    WorkerStatus,
    WorkerUnknown,
    WorkerUnready,
    WorkerView,
    advance,
    further,
)


def status(phase: WorkerPhase, progress: int = 0) -> WorkerStatus:
    return WorkerStatus(worker_id="w", spec_hash="h", phase=phase, progress_percent=progress)


def test_a_worker_becomes_ready_by_being_begun_listed_and_warmed() -> None:
    now = status(WorkerPhase.PENDING)
    seen = []
    for signal in (Signal.BEGUN, Signal.LISTED, Signal.WARMED):
        now = advance(now, signal, detail=str(signal))
        seen.append((now.phase, now.progress_percent, now.detail))
    assert seen == [
        (WorkerPhase.STARTING, 10, "begun"),
        (WorkerPhase.WARMING, 90, "listed"),
        (WorkerPhase.READY, 100, "warmed"),
    ]


@pytest.mark.parametrize("phase", [phase for phase in WorkerPhase if phase is not WorkerPhase.DRAINING])
def test_every_phase_can_fail_and_can_be_told_to_drain(phase: WorkerPhase) -> None:
    assert advance(status(phase), Signal.LOST, detail="").phase is WorkerPhase.FAILED
    assert advance(status(phase), Signal.DRAIN_ASKED, detail="").phase is WorkerPhase.DRAINING


def test_every_phase_can_still_reach_the_way_out() -> None:
    reaches = {WorkerPhase.DRAINING}
    while grown := {p for p, row in NEXT.items() if reaches & set(row.values())} - reaches:
        reaches |= grown
    assert reaches == set(WorkerPhase)


def test_a_step_that_the_table_does_not_know_is_our_mistake() -> None:
    with pytest.raises(UnexpectedSignal, match="warmed while pending"):
        advance(status(WorkerPhase.PENDING), Signal.WARMED, detail="")


def test_progress_never_falls_within_one_start_and_begins_anew_with_the_next() -> None:
    loading = further(status(WorkerPhase.STARTING, 60), 10, detail="still loading")
    assert (loading.progress_percent, loading.detail) == (60, "still loading")
    failed = advance(loading, Signal.LOST, detail="out of memory")
    assert failed.progress_percent == 60
    assert advance(failed, Signal.BEGUN, detail="").progress_percent == 10


def test_errors_name_the_worker_and_say_what_is_wrong() -> None:
    assert (WorkerUnknown("w").code, str(WorkerUnknown("w"))) == ("worker_unknown", "no worker 'w'")
    unready = WorkerUnready("w", WorkerPhase.FAILED, "no model")
    assert (unready.code, unready.retryable, str(unready)) == (
        "worker_unready",
        True,
        "worker 'w' is failed: no model",
    )
    assert str(WorkerUnready("w", WorkerPhase.PENDING, "")) == "worker 'w' is pending"


def test_only_a_ready_worker_is_shown_as_ready() -> None:
    endpoint = LoopbackEndpoint("127.0.0.1", 80)
    assert endpoint.base_url == "http://127.0.0.1:80"
    for phase in WorkerPhase:
        view = WorkerView(model="m", status=status(phase), endpoint=endpoint)
        assert view.ready == (phase is WorkerPhase.READY)
