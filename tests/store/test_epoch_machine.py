"""Session epochs as a machine (M2): whatever old sessions still do, only the newest one of a node counts.

Sessions of one node begin, speak and end in any order, on the real database and in a hub's roster, as they do when
a machine is frozen, cloned or cut off and comes back. A model of a few lines says what must be true.
"""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from control_plane.core.fleet import NodeState, Report
from control_plane.store import nodes
from control_plane.store.db import Pool, connection, open_pool, transaction
from mesh.kit.errors import PermissionDenied
from mesh.kit.ids import NodeId
from mesh.link.roster import Admitted, Refused, Replaced, Roster
from tests.store.rows import connect, later, make_node, make_organization

which = st.integers(0, 7)


class Bench:
    """A loop and a pool that outlive the single runs of the machine."""

    def __init__(self, dsn: str) -> None:
        self.runner = asyncio.Runner()
        self.pool: Pool = self.runner.run(open_(dsn))
        self.runs = 0
        self.runner.run(make_organization(self.pool))

    def close(self) -> None:
        self.runner.run(self.pool.close())
        self.runner.close()


async def open_(dsn: str) -> Pool:
    return await open_pool(dsn)


class Epochs(RuleBasedStateMachine):
    """``begun``: every epoch this node was ever given. ``seconds``: the clock."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.begun: list[int] = []
        self.reported: dict[int, int] = {}  # epoch → the last revision it reported
        self.stored = 0  # what the database should hold of that
        self.seconds = 0
        self.online = self.revoked = False
        self.roster: Roster[int] = Roster()
        self.in_roster: int | None = None
        self.tunnels: list[int] = []

    @initialize()
    def join(self) -> None:
        self.bench.runs += 1
        self.node_id, self.serial = self.bench.runner.run(make_node(self.bench.pool, f"t{self.bench.runs}"))

    @rule()
    def a_session_begins(self) -> None:
        self.seconds += 1

        async def begin() -> int:
            async with transaction(self.bench.pool) as db:
                return await connect(db, self.node_id, self.serial, now=later(seconds=self.seconds))

        if self.revoked:
            with pytest.raises(PermissionDenied):
                self.bench.runner.run(begin())
            return
        epoch = self.bench.runner.run(begin())
        assert epoch > max(self.begun, default=0), "epochs only rise"
        self.begun.append(epoch)
        self.online = True
        self.stored = 0

    @precondition(lambda self: self.begun)
    @rule(which=which, revision=st.integers(1, 1000))
    def a_session_reports(self, which: int, revision: int) -> None:
        epoch = self.begun[which % len(self.begun)]

        async def report() -> bool:
            async with transaction(self.bench.pool) as db:
                now = later(seconds=self.seconds)
                return await nodes.record_report(db, self.node_id, epoch, Report(revision), now=now)

        heard = self.bench.runner.run(report())
        assert heard is (epoch == self.begun[-1] and not self.revoked)
        if heard:
            self.stored = revision
            self.online = True

    @precondition(lambda self: self.begun)
    @rule(which=which)
    def a_session_ends(self, which: int) -> None:
        epoch = self.begun[which % len(self.begun)]

        async def end() -> bool:
            async with transaction(self.bench.pool) as db:
                return await nodes.end_session(db, self.node_id, epoch, now=later(seconds=self.seconds))

        self.bench.runner.run(end())
        if epoch == self.begun[-1]:
            self.online = False

    @rule()
    def the_node_is_revoked(self) -> None:
        async def revoke() -> None:
            async with transaction(self.bench.pool) as db:
                await nodes.revoke(db, self.node_id, now=later(seconds=self.seconds))

        self.bench.runner.run(revoke())
        self.revoked, self.online = True, False

    @precondition(lambda self: self.begun)
    @rule(which=which)
    def a_tunnel_attaches(self, which: int) -> None:
        """Any process with the identity may dial a hub, with the epoch it last heard of."""
        epoch = self.begun[which % len(self.begun)]
        self.tunnels.append(epoch)
        number = len(self.tunnels) - 1
        highest = max(self.tunnels[:-1], default=0)
        match self.roster.admit(NodeId(self.node_id), epoch=epoch, session=number):
            case Refused(newest=newest):
                assert epoch < newest == highest
            case Replaced(old=old):
                assert old == self.in_roster
                assert epoch >= highest
                self.in_roster = number
            case Admitted():
                assert self.in_roster is None
                assert epoch >= highest
                self.in_roster = number

    @precondition(lambda self: self.tunnels)
    @rule(which=which)
    def a_tunnel_is_cleaned_up(self, which: int) -> None:
        """As late as it likes; also of one that was refused or replaced long ago."""
        number = which % len(self.tunnels)
        self.roster.release(NodeId(self.node_id), session=number)
        if number == self.in_roster:
            self.in_roster = None

    @invariant()
    def at_most_one_session_is_routable(self) -> None:
        assert self.roster.get(NodeId(self.node_id) if hasattr(self, "node_id") else NodeId("")) == self.in_roster

    @invariant()
    def the_database_holds_what_the_newest_session_said(self) -> None:
        if not self.begun:
            return

        async def look() -> tuple[NodeState, int, int]:
            async with connection(self.bench.pool) as db:
                node = await nodes.get(db, self.node_id)
            return node.state, node.epoch, node.applied_revision

        state, epoch, applied = self.bench.runner.run(look())
        assert epoch == self.begun[-1]
        assert applied == self.stored
        wanted = NodeState.REVOKED if self.revoked else NodeState.ONLINE if self.online else NodeState.OFFLINE
        assert state is wanted


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    made = Bench(database)
    yield made
    made.close()


def test_only_the_newest_session_of_a_node_counts(bench: Bench) -> None:
    run_state_machine_as_test(
        lambda: Epochs(bench),
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        ),
    )
    assert bench.runs
