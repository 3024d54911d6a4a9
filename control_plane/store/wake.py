"""Hints: "something about X changed". A hint may come twice, late or never; the rows are the truth.

Whoever changes rows calls ``notify`` in the same transaction, so that a hint never runs ahead of its rows.
Whoever waits subscribes to topic prefixes and looks at the rows after every hint, and now and then without one.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Protocol, Self

import asyncpg

from control_plane.store.db import CONNECT_S, Db, translated
from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.ids import NodeId
from mesh.kit.logs import F

log = logging.getLogger(__name__)

CHANNEL = "mesh"
HUBS = "hubs"  # every node's desired state changed
SNAPSHOT = "snapshot"  # what gateways are told changed
PLACEMENT = "placement"  # nodes or deployments changed: place again
NODE = "node:"  # prefix; one node's desired state changed
REVOCATION = "revocation:"  # prefix; one node may not return, nor go on
ANY = "*"  # hints may have been lost: look at everything

PENDING_MAX = 1000  # topics one subscriber may leave unread; beyond it they become one ANY
PROBE_S = 15.0  # how often the listening connection is tried: a dead peer sends no hints, and no error either


def node_topic(node_id: NodeId) -> str:
    """The topic of that node's desired state."""
    return NODE + node_id


def revocation_topic(node_id: NodeId) -> str:
    """The topic of that node's revocation."""
    return REVOCATION + node_id


async def notify(db: Db, *topics: str) -> None:
    """Send the hints when the transaction around this commits; repeats within it are sent once."""
    await db.execute("SELECT pg_notify($1, topic) FROM unnest($2::text[]) AS topic", CHANNEL, topics)


class Subscription:
    """One consumer's unread hints: a set, so a storm of one topic is one hint. Use it in a ``with`` block."""

    def __init__(self, subscribers: set["Subscription"], prefixes: tuple[str, ...], clock: Clock) -> None:
        self._subscribers, self._prefixes, self._clock = subscribers, prefixes, clock
        self._topics: set[str] = set()
        self._arrived = asyncio.Event()

    def __enter__(self) -> Self:
        self._subscribers.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._subscribers.discard(self)

    def offer(self, topic: str) -> None:
        """Take the hint if it is one of ours."""
        if topic != ANY and not topic.startswith(self._prefixes):
            return
        if len(self._topics) >= PENDING_MAX:
            self._topics = {ANY}
        self._topics.add(topic)
        self._arrived.set()

    async def wait(self, timeout_s: float) -> frozenset[str]:
        """The topics hinted at since the last call; waits for one, and returns none after the timeout."""
        if not self._topics:
            await _within(self._arrived, self._clock, timeout_s)
        self._arrived.clear()
        topics, self._topics = frozenset(self._topics), set()
        return topics


class Wake(Protocol):
    """Where hints come from."""

    def subscribe(self, *prefixes: str) -> Subscription:
        """Hints whose topic begins with one of the prefixes, from the ``with`` on; also ANY, whenever needed."""


class PostgresWake:
    """Hints by LISTEN/NOTIFY on a connection of its own. A part: it hears only while ``run`` runs.

    After every loss of the connection it listens again and then tells everybody to look at everything.
    """

    def __init__(self, dsn: str, clock: Clock) -> None:
        self._dsn, self._clock = dsn, clock
        self._subscribers: set[Subscription] = set()
        self.listening = asyncio.Event()

    def subscribe(self, *prefixes: str) -> Subscription:
        return Subscription(self._subscribers, prefixes, self._clock)

    async def run(self) -> None:
        """Listen until cancelled."""
        async for _ in Backoff(self._clock, first_s=0.5, cap_s=5.0).attempts():
            try:
                with translated():
                    await self._listen()
            except Unavailable as exc:
                log.warning("hints interrupted", extra={F.REASON: str(exc)})
            finally:
                self.listening.clear()

    async def _listen(self) -> None:
        """Listen on one connection until it is lost."""
        lost = asyncio.Event()
        db = await asyncpg.connect(self._dsn, timeout=CONNECT_S, command_timeout=CONNECT_S)
        try:
            db.add_termination_listener(lambda _: lost.set())
            await db.add_listener(CHANNEL, self._heard)
            self.listening.set()
            self._tell([ANY])
            while not await _within(lost, self._clock, PROBE_S):
                await db.fetchval("SELECT 1")
            log.warning("hints interrupted", extra={F.REASON: "the connection was lost"})
        finally:
            db.terminate()

    def _heard(self, _db: Any, _pid: int, _channel: str, topic: str) -> None:
        self._tell([topic])

    def _tell(self, topics: Iterable[str]) -> None:
        for subscriber in [*self._subscribers]:
            for topic in topics:
                subscriber.offer(topic)


async def _within(event: asyncio.Event, clock: Clock, timeout_s: float) -> bool:
    """Wait for the event for at most that long; whether it came."""
    async with asyncio.TaskGroup() as group:
        timer = group.create_task(clock.sleep(timeout_s))
        waiter = group.create_task(event.wait())
        timer.add_done_callback(lambda _: waiter.cancel())
        waiter.add_done_callback(lambda _: timer.cancel())
    return event.is_set()
