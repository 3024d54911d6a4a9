"""Usage on disk: what is written survives a kill, is delivered at least once, and is bounded."""

import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.control.spool import Spool, SpoolInUse, open_spool
from gateway.core.errors import SpoolUnavailable
from gateway.core.usage import Outcome
from tests.unit.gateway.values import opening, record


@contextmanager
def spool(directory: Path, **limits: int) -> Iterator[Spool]:
    opened = open_spool(directory, **limits)
    try:
        yield opened
    finally:
        opened.close()


def drained(from_: Spool) -> list[tuple[str, Outcome]]:
    found = []
    while (batch := from_.waiting()) is not None:
        found += [(one.request_id, one.outcome) for one in batch.records]
        from_.delivered(batch)
    return found


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.log"))


def test_a_record_waits_until_it_is_delivered(tmp_path: Path) -> None:
    with spool(tmp_path) as one:
        one.begin(opening("a"))
        assert one.waiting() is None, "a request that runs is nothing to deliver"
        one.end(record("a"))
        batch = one.waiting()
        assert batch is not None
        assert batch.records == [record("a")]
        assert one.waiting() == batch, "until it is delivered it is asked for again"
        one.delivered(batch)
        assert one.waiting() is None


def test_after_a_kill_each_request_has_exactly_one_record(tmp_path: Path) -> None:
    with spool(tmp_path) as killed:
        for name in "abc":
            killed.begin(opening(name))
        killed.end(record("b"))
    with spool(tmp_path) as reborn:
        assert sorted(drained(reborn)) == [
            ("a", Outcome.INTERRUPTED),
            ("b", Outcome.COMPLETED),
            ("c", Outcome.INTERRUPTED),
        ]
    with spool(tmp_path) as again:
        assert all(outcome is not Outcome.INTERRUPTED or name != "b" for name, outcome in drained(again))


def test_a_restart_delivers_nothing_twice_that_was_forgotten(tmp_path: Path) -> None:
    with spool(tmp_path, segment_octets=600) as one:
        for at in range(40):
            one.begin(opening(f"r{at}"))
            one.end(record(f"r{at}"))
        assert len(files(tmp_path)) > 10
        assert [name for name, _ in drained(one)] == [f"r{at}" for at in range(40)]
        assert len(files(tmp_path)) == 1, "delivered segments are deleted"
    with spool(tmp_path) as again:
        assert len(drained(again)) <= 2, "only what shared a segment with the end"


def test_a_torn_last_line_is_no_harm(tmp_path: Path) -> None:
    with spool(tmp_path) as killed:
        killed.begin(opening("a"))
        killed.begin(opening("b"))
        killed.end(record("a"))
    path = tmp_path / files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-9])
    with spool(tmp_path) as reborn:
        assert sorted(drained(reborn)) == [("a", Outcome.INTERRUPTED), ("b", Outcome.INTERRUPTED)]


def test_one_long_request_does_not_keep_all_that_came_after(tmp_path: Path) -> None:
    with spool(tmp_path, segment_octets=2000) as one:
        one.begin(opening("long"))
        for at in range(200):
            one.begin(opening(f"r{at}"))
            one.end(record(f"r{at}"))
            drained(one)
        assert len(files(tmp_path)) <= 2
        assert one.octets < 5000
    with spool(tmp_path) as reborn:
        assert ("long", Outcome.INTERRUPTED) in drained(reborn)


def test_a_full_spool_lets_nobody_in_and_says_why(tmp_path: Path) -> None:
    with spool(tmp_path, max_octets=5000) as one:
        taken = 0

        def fill() -> None:
            nonlocal taken
            while taken < 100:
                one.begin(opening(f"r{taken}"))
                one.end(record(f"r{taken}"))
                taken += 1

        with pytest.raises(SpoolUnavailable, match="wait for the control plane"):
            fill()
        assert 0 < taken < 20
        assert len(drained(one)) == taken, "what was let in is complete"


@contextmanager
def disk_full_at(octets: int) -> Iterator[None]:
    """No file may grow beyond that: as on a full disk, a write is short or fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_refuses_new_requests_and_loses_no_record(tmp_path: Path) -> None:
    with spool(tmp_path) as one:
        one.begin(opening("a"))
        with disk_full_at(one.octets + 30):
            one.end(record("a"))  # does not raise: the request is over, whatever the disk says
            with pytest.raises(SpoolUnavailable, match="cannot be recorded"):
                one.begin(opening("b"))
        one.begin(opening("c"))
        one.end(record("c"))
        assert [name for name, _ in drained(one)] == ["a", "c"]
    with spool(tmp_path) as reborn:
        assert all(outcome is Outcome.COMPLETED for _, outcome in drained(reborn))


def test_a_disk_without_room_for_anything_is_an_error_not_a_crash(tmp_path: Path) -> None:
    with spool(tmp_path) as one, disk_full_at(0), pytest.raises(SpoolUnavailable, match="cannot be recorded"):
        one.begin(opening("a"))


def test_two_gateways_cannot_share_a_folder(tmp_path: Path) -> None:
    with spool(tmp_path), pytest.raises(SpoolInUse):
        open_spool(tmp_path)
    with spool(tmp_path):
        pass


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    with spool(tmp_path / "spool") as one:
        one.begin(opening("a"))
    assert {path.stat().st_mode & 0o077 for path in [tmp_path / "spool", *(tmp_path / "spool").iterdir()]} == {0}


def test_refused_records_are_put_aside_up_to_a_limit(tmp_path: Path) -> None:
    with spool(tmp_path) as one:
        for at in range(50):
            one.put_aside(record(f"r{at}"), limit=1000)
    assert 1000 < (tmp_path / "rejected.log").stat().st_size < 2000


class SpoolMachine(RuleBasedStateMachine):
    """Requests begin and end, batches are delivered or not, the process is killed at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.spool = open_spool(Path(self.folder.name), segment_octets=900)
        self.count = 0
        self.running: set[str] = set()
        self.expected: dict[str, Outcome] = {}
        self.delivered: dict[str, set[Outcome]] = {}

    @rule()
    def begin(self) -> None:
        self.count += 1
        name = f"r{self.count}"
        self.spool.begin(opening(name))
        self.running.add(name)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(name)
        self.spool.end(record(name))
        self.expected[name] = Outcome.COMPLETED

    @rule(acknowledged=st.booleans())
    def deliver(self, acknowledged: bool) -> None:
        batch = self.spool.waiting()
        if batch is None:
            return
        for one in batch.records:
            self.delivered.setdefault(one.request_id, set()).add(one.outcome)
        if acknowledged:
            self.spool.delivered(batch)

    @rule(torn=st.integers(0, 30))
    def kill(self, torn: int) -> None:
        self.spool.close()
        if torn:
            newest = max(Path(self.folder.name).glob("0*.log"), default=None)
            if newest is not None:
                with newest.open("ab") as file:
                    file.write(b"close {".ljust(torn, b"x"))
        self.expected |= dict.fromkeys(self.running, Outcome.INTERRUPTED)
        self.running.clear()
        self.spool = open_spool(Path(self.folder.name), segment_octets=900)

    @invariant()
    def nothing_is_delivered_in_two_ways(self) -> None:
        for name, outcomes in self.delivered.items():
            assert outcomes == {self.expected[name]}

    def teardown(self) -> None:
        while (batch := self.spool.waiting()) is not None:
            for one in batch.records:
                self.delivered.setdefault(one.request_id, set()).add(one.outcome)
            self.spool.delivered(batch)
        self.nothing_is_delivered_in_two_ways()
        assert set(self.delivered) == set(self.expected), "nothing is lost"
        self.spool.close()
        self.folder.cleanup()


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
