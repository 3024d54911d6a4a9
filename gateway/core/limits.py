"""Limits, exactly: set aside what a request may need when it is let in, put right what it used when it is over.

A ``Meter`` holds the counters of one holder. Alone, it may use whole limits; ``shared``, only what was granted to
it of each. A request that is refused changes nothing. Money is in nano-units of the currency.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from gateway.core.snapshot import Limits
from gateway.core.windows import SPAN, UNIT, Kind, Span, Unit, end_of, starts_at

BUSY_S: Final = 1.0  # after which to try again when too many requests run at once
STEP_BACK_S: Final = 60  # a clock set back by no more than this begins no earlier window anew


class Bound(NamedTuple):
    """One limit of a subject, and where it is counted."""

    kind: Kind
    limit: int
    span: Span
    unit: Unit
    key: tuple[str, Kind]


@dataclass(frozen=True, slots=True)
class Subject:
    """A key or a project (``what``) and its limits. Made once for each snapshot, not for each request."""

    id: str
    limits: Limits
    what: str = "key"
    bounds: tuple[Bound, ...] = field(init=False)
    """The limits that are set."""

    def __post_init__(self) -> None:
        bounds = (
            Bound(kind, limit, SPAN[kind], UNIT[kind], (self.id, kind))
            for kind in Kind
            if (limit := getattr(self.limits, kind.value)) is not None
        )
        object.__setattr__(self, "bounds", tuple(bounds))


@dataclass(frozen=True, slots=True)
class Need:
    """What a request takes at most, beside being one request and running."""

    tokens: int = 0
    money: int = 0

    def amounts(self) -> tuple[int, int, int, int]:
        """By ``Unit``."""
        return 1, 1, self.tokens, self.money


@dataclass(slots=True, eq=False)
class Count:
    """One limit in one window, as its holder knows it. ``used``: set aside and spent."""

    used: int = 0
    share: int = 0
    """What this holder may use of a limit it shares."""
    told: int = 0
    """The most that others may believe this holder to have."""
    left: int | None = None
    """What nobody held of the limit when that was last heard."""
    limit: int = 0
    seen: int = 0
    """``used``, when it was last looked at for giving back."""
    call: int = 0
    """The last call that asked for a share."""
    dry_until: float = 0.0
    """Until then (monotonic) nothing is to be had."""
    held_until: float = 0.0
    """For what has no window: when (monotonic) the share is no longer ours."""


@dataclass(slots=True, eq=False)
class Reservation:
    """What a request has set aside. It ends once, by ``settle`` or ``refund``; a second ending changes nothing."""

    parts: tuple[tuple[Count, Unit, int], ...] = ()
    is_open: bool = True


NOTHING: Final = Reservation()
"""Of requests without limits, all of them."""


@dataclass(frozen=True, slots=True)
class Refused:
    """One limit that the request does not fit into; of several, the one that lasts longest."""

    subject: str
    subject_kind: str
    kind: Kind
    limit: int
    remaining: int
    requested: int
    retry_after_s: float
    never: bool = False
    """It alone is more than the whole limit."""


class Lack(NamedTuple):
    """A share that is too small, of a limit that may have room."""

    subject: Subject
    bound: Bound
    window: int
    amount: int
    counter: Count


@dataclass(frozen=True, slots=True)
class Short:
    """The request would fit if the holder were granted more."""

    lacks: tuple[Lack, ...]


class Ask(NamedTuple):
    """One limit in one window: ``wanted`` is the whole share, used and unused; less than before gives back."""

    subject: str
    kind: Kind
    window: int
    wanted: int
    used: int


class Grant(NamedTuple):
    """The whole share from now on, what nobody holds, and how long a share without a window lasts."""

    granted: int
    left: int
    lease_ms: int = 0


@dataclass(slots=True)
class Meter:
    """Counters of one holder. Synchronous; costs as much as limits are set. Old windows are forgotten."""

    shared: bool = False
    _latest: int = field(init=False, default=0)
    _starts: tuple[int, int, int, int] = field(init=False, default=(0, 0, 0, 0))
    _books: list[dict[tuple[str, Kind], Count]] = field(init=False, default_factory=lambda: [{} for _ in Span])

    def reserve(
        self, subjects: tuple[Subject, ...], need: Need, now: datetime, *, gateways: int = 0
    ) -> Reservation | Refused | Short:
        """Set aside the need under every limit, or nothing at all.

        ``Short`` only when shared. ``gateways``: nobody can be asked for a share, so that this one of so many uses
        its even part of what is limited by the minute or at once.
        """
        takes: list[tuple[Count, Unit, int]] = []
        failed: list[Lack] = []
        amounts = need.amounts()
        for subject in subjects:
            if not subject.bounds:
                continue
            if not takes:
                self._turn_to(now)
            for bound in subject.bounds:
                amount = amounts[bound.unit]
                count = self.count(bound)
                takes.append((count, bound.unit, amount))
                most = bound.limit
                if self.shared:
                    even = most // gateways if gateways and bound.span <= Span.MINUTE else 0
                    most = min(most, max(count.share, even))
                if amount and count.used + amount > most:
                    failed.append(Lack(subject, bound, self._starts[bound.span], amount, count))
        if failed:
            return self._failed(failed, now)
        if not takes:
            return NOTHING
        for count, _, amount in takes:
            count.used += amount
        return Reservation(tuple(takes))

    def settle(self, reservation: Reservation, tokens: int, money: int) -> None:
        """The request is over and used this much, which may be more than was set aside: spent is spent.

        It counts in the windows in which it was set aside. Only the first ending of a reservation counts.
        """
        if not reservation.is_open:
            return
        if reservation.parts:
            reservation.is_open = False
        actual = (1, 0, tokens, money)
        for count, unit, amount in reservation.parts:
            count.used += actual[unit] - amount

    def refund(self, reservation: Reservation) -> None:
        """As if the request had never come. Only the first ending of a reservation counts."""
        if not reservation.is_open:
            return
        if reservation.parts:
            reservation.is_open = False
        for count, _, amount in reservation.parts:
            count.used -= amount

    def refusal(self, lack: Lack, now: datetime) -> Refused:
        """The refusal for a share that cannot be had."""
        subject, bound, window, amount, count = lack
        wait_s = end_of(bound.span, window) - now.timestamp() if bound.span else BUSY_S
        return Refused(
            subject=subject.id,
            subject_kind=subject.what,
            kind=bound.kind,
            limit=bound.limit,
            remaining=self._remaining(bound, count),
            requested=amount,
            retry_after_s=max(0.0, wait_s),
            never=amount > bound.limit,
        )

    def remaining(self, bound: Bound, now: datetime) -> int:
        """What is left of the limit, as far as is known here; never below zero."""
        self._turn_to(now)
        count = self._books[bound.span].get(bound.key)
        return bound.limit if count is None else self._remaining(bound, count)

    def window(self, span: Span, now: datetime) -> int:
        """First second of the window in force; 0 for what has none."""
        self._turn_to(now)
        return self._starts[span]

    def count(self, bound: Bound) -> Count:
        """The counter in the window in force."""
        book = self._books[bound.span]
        count = book.get(bound.key)
        if count is None:
            count = book[bound.key] = Count()
        return count

    def counts(self, now: datetime) -> Iterator[tuple[str, Kind, int, Count]]:
        """Every counter in force: subject, kind, window, counter."""
        self._turn_to(now)
        for span, book in zip(Span, self._books, strict=True):
            for (subject, kind), count in book.items():
                yield subject, kind, self._starts[span], count

    def _remaining(self, bound: Bound, count: Count) -> int:
        if not self.shared or count.left is None:
            return max(0, bound.limit - max(0, count.used))
        return max(0, min(bound.limit, count.share + count.left) - count.used)

    def _failed(self, failed: list[Lack], now: datetime) -> Refused | Short:
        final = [one for one in failed if not self.shared or one.counter.used + one.amount > one.bound.limit]
        if not final:
            return Short(tuple(failed))
        return max((self.refusal(one, now) for one in final), key=lambda one: (one.never, one.retry_after_s))

    def _turn_to(self, now: datetime) -> None:
        """Forget the windows that are over."""
        seconds = int(now.timestamp())
        if self._latest - STEP_BACK_S <= seconds <= self._latest:
            return
        self._latest = seconds
        starts = starts_at(seconds) if not 0 <= seconds - self._starts[Span.MINUTE] < 60 else self._starts
        if starts is self._starts:
            return
        for span in Span:
            if starts[span] != self._starts[span]:
                self._books[span] = {}
        self._starts = starts
        running = self._books[Span.NOW]
        for key in [key for key, count in running.items() if not (count.used or count.share or count.told)]:
            del running[key]
