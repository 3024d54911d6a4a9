"""Limits on the way of a request: the port, and the adapter that leases shares of them from the control plane."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from gateway.core import refusals
from gateway.core.limits import NOTHING, Ask, Bound, Count, Grant, Lack, Meter, Need, Refused, Reservation, Subject
from gateway.core.refusals import limit_reached
from gateway.core.windows import Kind
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.logs import F

log = logging.getLogger(__name__)

TICK_S: Final = 2.0  # between two rounds of giving back
MAX_ASKS: Final = 200  # in one call
AWAY_S: Final = 1.0  # after a call that failed: as long, nobody waits for another one
DRY_S: Final = 0.1  # after hearing that nothing is left: as long, nobody who comes then asks again
CHUNK: Final = 10  # at most one part in so many of a limit is held beyond the need

Lease = Callable[[list[Ask]], Awaitable[list[Grant]]]
"""Grants in the order of the asks. Raises Unavailable, within a second or two, when nobody answers.

A share of requests at once must last longer than five seconds.
"""


class Quota(Protocol):
    """Counts what callers may use. A part."""

    async def reserve(self, subjects: tuple[Subject, ...], need: Need) -> Reservation:
        """Set aside the need under every limit of every subject, or nothing.

        Raises LimitReached (QuotaExhausted for budgets), or Unavailable when nobody knows. Does not yield to the
        loop when there is no limit, or room at hand.
        """

    def settle(self, reservation: Reservation, tokens: int, money: int) -> None:
        """The request is over and used this much. Only the first ending of a reservation counts; cannot fail."""

    def refund(self, reservation: Reservation) -> None:
        """As if the request had never come. Only the first ending of a reservation counts; cannot fail."""

    def headers(self, subjects: tuple[Subject, ...]) -> dict[str, str]:
        """``x-ratelimit-*`` as known here; empty without limits by the minute."""

    async def run(self) -> None:
        """Deliver and renew what others must know, until cancelled."""


def alone() -> int:
    """The number of gateways where there is one."""
    return 1


@dataclass(slots=True, eq=False)
class _Waiter:
    subjects: tuple[Subject, ...]
    need: Need


@dataclass(slots=True)
class LeasedQuota:
    """Without ``lease`` whole limits are this process's. With it, shares are asked for when they are needed.

    All gateways together never let in more than a limit. What one holds unused another is refused, for two rounds
    of giving back at most; near the end of a limit nothing is held beyond the need. Requests that wait for a share
    are decided in their order, and as many as wait are served by one call.

    While nobody grants shares, each of the ``gateways`` uses its even part of limits by the minute and at once
    where it was granted less; in the minute in which that begins they can go over a limit by what was granted
    unevenly. Budgets stay with what was granted. Counters live as long as the process: without ``lease``, budgets
    begin anew with it.
    """

    meter: Meter
    clock: Clock
    lease: Lease | None = None
    gateways: Callable[[], int] = alone
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _queue: dict[_Waiter, None] = field(init=False, default_factory=dict)
    _queued: dict[str, int] = field(init=False, default_factory=dict)
    """How many wait, by subject: whoever comes later does not overtake them."""
    _calls: int = field(init=False, default=0)
    _away_until: float = field(init=False, default=0.0)
    _next_lapse: float = field(init=False, default=math.inf)
    """Before then (monotonic) no share of requests at once lapses."""

    def __post_init__(self) -> None:
        self.meter.shared = self.lease is not None

    async def reserve(self, subjects: tuple[Subject, ...], need: Need) -> Reservation:
        """As ``Quota`` has it."""
        if not any(one.bounds for one in subjects):
            return NOTHING
        if self._queued and any(one.id in self._queued for one in subjects if one.bounds):
            return await self._wait(subjects, need)
        outcome = self._try(subjects, need, arrived=self._calls)
        return await self._wait(subjects, need) if outcome is None else outcome

    def settle(self, reservation: Reservation, tokens: int, money: int) -> None:
        """As ``Quota`` has it."""
        self.meter.settle(reservation, tokens, money)

    def refund(self, reservation: Reservation) -> None:
        """As ``Quota`` has it."""
        self.meter.refund(reservation)

    def headers(self, subjects: tuple[Subject, ...]) -> dict[str, str]:
        """As ``Quota`` has it."""
        return refusals.headers(subjects, self.meter, self.clock.now())

    async def run(self) -> None:
        """Give back what is idle and renew what would lapse, every two seconds."""
        while True:
            await self.clock.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """One such round."""
        if self.lease is None:
            return
        async with self._turn:
            asked = list(self._returns())
            rest = iter(asked)
            while batch := list(islice(rest, MAX_ASKS)):
                if not await self._call(batch):
                    break

    def _try(self, subjects: tuple[Subject, ...], need: Need, *, arrived: int) -> Reservation | None:
        """A reservation, or None when a call can still help. Raises LimitReached."""
        away = False
        if self.meter.shared:
            moment = self.clock.monotonic()
            away = moment < self._away_until
            if moment >= self._next_lapse:
                self._lapse(moment)
        gateways = max(1, self.gateways()) if away else 0
        now = self.clock.now()
        outcome = self.meter.reserve(subjects, need, now, gateways=gateways)
        if isinstance(outcome, Reservation):
            return outcome
        if isinstance(outcome, Refused):
            raise limit_reached(outcome)
        final = next((lack for lack in outcome.lacks if away or self._is_known(lack, arrived)), None)
        if final is None:
            return None
        raise limit_reached(self.meter.refusal(final, now))

    def _lapse(self, moment: float) -> None:
        """Shares of requests at once that were not renewed in time may be another's by now."""
        self._next_lapse = math.inf
        for _, kind, _, count in self.meter.counts(self.clock.now()):
            if kind is Kind.CONCURRENT_REQUESTS and count.share:
                if count.held_until <= moment:
                    count.share = 0
                else:
                    self._next_lapse = min(self._next_lapse, count.held_until)

    def _is_known(self, lack: Lack, arrived: int) -> bool:
        """Whether it was asked for after the request came, or so shortly before that asking again is useless."""
        return lack.counter.call > arrived or self.clock.monotonic() < lack.counter.dry_until

    async def _wait(self, subjects: tuple[Subject, ...], need: Need) -> Reservation:
        waiter, arrived = _Waiter(subjects, need), self._calls
        self._queue[waiter] = None
        for one in subjects:
            self._queued[one.id] = self._queued.get(one.id, 0) + 1
        try:
            async with self._turn:
                while (outcome := self._try(subjects, need, arrived=arrived)) is None:
                    await self._call(list(islice(self._demands(waiter), MAX_ASKS)))
                return outcome
        finally:
            del self._queue[waiter]
            for one in subjects:
                self._queued[one.id] -= 1
                if not self._queued[one.id]:
                    del self._queued[one.id]

    def _demands(self, first: _Waiter) -> Iterable[tuple[Ask, Count]]:
        """What all who wait need together, of limits whose share is too small; first what ``first`` needs."""
        sums: dict[tuple[str, Kind], tuple[Bound, int]] = {}
        for waiter in (first, *self._queue):
            amounts = waiter.need.amounts()
            for subject in waiter.subjects:
                for bound in subject.bounds:
                    amount = 0 if waiter is first and bound.key in sums else amounts[bound.unit]
                    asked, before = sums.get(bound.key, (bound, 0))
                    sums[bound.key] = asked, before + amount
        now, gateways = self.clock.now(), max(1, self.gateways())
        for bound, amount in sums.values():
            window, count = self.meter.window(bound.span, now), self.meter.count(bound)
            if not amount or count.used + amount <= count.share or count.share >= bound.limit:
                continue
            # Less and less beyond the need as the limit nears its end, so that no rest lies with the idle.
            spare = bound.limit // CHUNK
            if count.left is not None:
                spare = min(spare, count.left // (2 * gateways))
            count.limit = bound.limit
            wanted = max(count.share, min(bound.limit, count.used + amount + spare))
            yield Ask(bound.key[0], bound.kind, window, wanted, count.used), count

    def _returns(self) -> Iterable[tuple[Ask, Count]]:
        """What is held and not needed, what was overspent, and what must be asked for again."""
        lapses = self.clock.monotonic() + 3 * TICK_S  # time for a second attempt
        for subject, kind, window, count in self.meter.counts(self.clock.now()):
            busy, count.seen = count.used != count.seen, count.used
            keep = count.limit // CHUNK if busy else 0
            wanted = max(0, count.used, min(count.share, count.used + keep))
            running = kind is Kind.CONCURRENT_REQUESTS
            renew = running and (count.told or count.used) and count.held_until <= lapses
            if wanted != count.told or renew:  # also when more was spent than set aside
                count.share = min(count.share, wanted)
                yield Ask(subject, kind, window, wanted, count.used), count

    async def _call(self, asked: list[tuple[Ask, Count]]) -> bool:
        """Ask for all of them. False when nobody answered."""
        assert self.lease is not None, "only what is shared is asked for"
        self._calls += 1
        began = self.clock.monotonic()
        for ask, count in asked:
            count.call = self._calls
            count.told = max(count.told, ask.wanted)  # until the answer is here it may be so
        try:
            grants = await self.lease([ask for ask, _ in asked])
        except Unavailable as exc:
            self._away_until = self.clock.monotonic() + AWAY_S
            log.warning("no shares of limits", extra={F.REASON: str(exc), F.COUNT: len(asked)})
            return False
        heard = self.clock.monotonic()
        for (ask, count), grant in zip(asked, grants, strict=False):
            count.share = count.told = grant.granted
            count.left = grant.left
            if ask.kind is Kind.CONCURRENT_REQUESTS:
                count.held_until = began + grant.lease_ms / 1000
                self._next_lapse = min(self._next_lapse, count.held_until)
            count.dry_until = heard + DRY_S if grant.granted < ask.wanted and not grant.left else 0.0
        return True
