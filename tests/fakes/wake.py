"""Hints without a database: a test sends them by hand."""

import asyncio

from control_plane.store.wake import ANY, Subscription
from mesh.kit.clock import Clock


class FakeWake:
    """Implements ``control_plane.store.wake.Wake``. ``hint`` is what a NOTIFY would bring."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subscribers: set[Subscription] = set()
        self.subscribed = asyncio.Event()  # someone has subscribed, ever

    def subscribe(self, *prefixes: str) -> Subscription:
        self.subscribed.set()
        return Subscription(self._subscribers, prefixes, self._clock)

    def hint(self, *topics: str) -> None:
        """Tell whom it concerns."""
        for subscriber in [*self._subscribers]:
            for topic in topics:
                subscriber.offer(topic)

    def lose_connection(self) -> None:
        """What everybody is told after a loss: hints may have been missed."""
        self.hint(ANY)
