"""How a limit is divided among gateways: each holds a share, and all shares together never exceed the limit. Pure.

A share is a gateway's own until its window ends, used or not. Requests at once have no window: their shares are
held for a while and must be asked for again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from mesh.kit.errors import InvalidInput

MAX_ASKS = 200  # of one call
UNLIMITED = 2**63 - 1  # what is left where there is no limit
LEASE = timedelta(seconds=30)  # how long a share of requests at once is held
# A share is counted this much longer than its holder was told: the answer travels, and clocks of replicas differ.
SLACK = timedelta(seconds=5)
AHEAD = timedelta(days=1)  # windows may be asked for this long before they begin, by gateways whose clock is ahead
LATE = timedelta(minutes=10)  # and this long after their end
KEPT = 2 * LATE  # what was granted is remembered this long after a window's end: longer than it can be asked for


class QuotaKind(StrEnum):
    """What a limit counts. Money is in nano-units of the currency."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CONCURRENT_REQUESTS = "concurrent_requests"
    TOKENS_PER_DAY = "tokens_per_day"
    TOKENS_PER_MONTH = "tokens_per_month"
    MONEY_PER_DAY = "money_per_day"
    MONEY_PER_MONTH = "money_per_month"


_SPANS = {
    QuotaKind.REQUESTS_PER_MINUTE: 60,
    QuotaKind.TOKENS_PER_MINUTE: 60,
    QuotaKind.TOKENS_PER_DAY: 86_400,
    QuotaKind.MONEY_PER_DAY: 86_400,
}


@dataclass(frozen=True, slots=True)
class Window:
    """One limit of one subject in one window. ``start``: seconds since 1970, zero for requests at once."""

    subject: str
    kind: QuotaKind
    start: int


@dataclass(frozen=True, slots=True)
class Ask:
    """What a gateway wants to hold of a limit in all, and what of that it has used."""

    window: Window
    wanted: int
    used: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What it holds from now on, and what nobody holds. ``lease``: how long; zero: until the window ends."""

    granted: int
    left: int
    lease: timedelta = timedelta(0)


def grant(limit: int, *, others: int, wanted: int, used: int) -> int:
    """A gateway's whole share, when others hold that much: no less than it used, else what is free and wanted."""
    return max(used, min(wanted, limit - others))


def divide(
    asks: Sequence[Ask], limits: Mapping[Window, int], shares: Mapping[Window, Mapping[str, int]], hub_id: str
) -> tuple[list[Grant], dict[Window, int]]:
    """Answer the asks in their order; also return what the gateway then holds of each window.

    ``shares`` is what each gateway holds. A window that ``limits`` lacks is unlimited, and nothing is held of it.
    """
    grants, held = [], {}
    for ask in asks:
        lease = LEASE if ask.window.kind is QuotaKind.CONCURRENT_REQUESTS else timedelta(0)
        limit = limits.get(ask.window)
        if limit is None:
            grants.append(Grant(max(ask.wanted, ask.used), UNLIMITED, lease))
            continue
        others = sum(share for hub, share in shares.get(ask.window, {}).items() if hub != hub_id)
        held[ask.window] = granted = grant(limit, others=others, wanted=ask.wanted, used=ask.used)
        grants.append(Grant(granted, max(0, limit - others - granted), lease))
    return grants, held


def check_asks(asks: Sequence[Ask], *, now: datetime) -> None:
    """Raise InvalidInput unless every ask names a window that there is."""
    if len(asks) > MAX_ASKS:
        raise InvalidInput("asks", f"at most {MAX_ASKS}, not {len(asks)}")
    for place, ask in enumerate(asks):
        start = ask.window.start
        if not 0 <= start <= (now + AHEAD).timestamp() or _began(ask.window.kind, start) != start:
            raise InvalidInput(f"asks[{place}].window", f"no window of {ask.window.kind} begins at {start}")


def end(window: Window, *, now: datetime) -> datetime:
    """When what is held of it ends. The window must be one that there is."""
    if window.kind is QuotaKind.CONCURRENT_REQUESTS:
        return now + LEASE + SLACK
    begin = datetime.fromtimestamp(window.start, UTC)
    span = _SPANS.get(window.kind)
    return _month(begin + timedelta(days=31)) if span is None else begin + timedelta(seconds=span)


def is_over(window: Window, *, now: datetime) -> bool:
    """Whether it ended so long ago that nothing more is given of it, and what was given may be forgotten."""
    return end(window, now=now) + LATE < now


def _began(kind: QuotaKind, at: int) -> int:
    """When the window of that moment began."""
    if kind is QuotaKind.CONCURRENT_REQUESTS:
        return 0
    span = _SPANS.get(kind)
    if span is None:
        return int(_month(datetime.fromtimestamp(at, UTC)).timestamp())
    return at - at % span


def _month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
