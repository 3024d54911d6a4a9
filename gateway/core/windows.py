"""What limits count and over which time: fixed windows of UTC's clock, each known by its first second."""

from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Final

MINUTE_S: Final = 60
DAY_S: Final = 86_400


class Kind(StrEnum):
    """What a limit counts. The names are those of ``Limits``' fields."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CONCURRENT_REQUESTS = "concurrent_requests"
    TOKENS_PER_DAY = "tokens_per_day"
    TOKENS_PER_MONTH = "tokens_per_month"
    MONEY_PER_DAY = "money_per_day"
    MONEY_PER_MONTH = "money_per_month"

    @property
    def is_budget(self) -> bool:
        """Whether waiting a minute does not help."""
        return SPAN[self] >= Span.DAY


class Span(IntEnum):
    """How long a window is."""

    NOW = 0
    """No window: what is under way."""
    MINUTE = 1
    DAY = 2
    MONTH = 3


class Unit(IntEnum):
    """What is counted; also the place of its amount in a need."""

    REQUESTS = 0
    RUNNING = 1
    TOKENS = 2
    MONEY = 3


SPAN: Final = {
    Kind.REQUESTS_PER_MINUTE: Span.MINUTE,
    Kind.TOKENS_PER_MINUTE: Span.MINUTE,
    Kind.CONCURRENT_REQUESTS: Span.NOW,
    Kind.TOKENS_PER_DAY: Span.DAY,
    Kind.TOKENS_PER_MONTH: Span.MONTH,
    Kind.MONEY_PER_DAY: Span.DAY,
    Kind.MONEY_PER_MONTH: Span.MONTH,
}
UNIT: Final = {
    Kind.REQUESTS_PER_MINUTE: Unit.REQUESTS,
    Kind.TOKENS_PER_MINUTE: Unit.TOKENS,
    Kind.CONCURRENT_REQUESTS: Unit.RUNNING,
    Kind.TOKENS_PER_DAY: Unit.TOKENS,
    Kind.TOKENS_PER_MONTH: Unit.TOKENS,
    Kind.MONEY_PER_DAY: Unit.MONEY,
    Kind.MONEY_PER_MONTH: Unit.MONEY,
}


def starts_at(seconds: int) -> tuple[int, int, int, int]:
    """First second of the windows that hold this second (since 1970), by ``Span``; 0 for what has none."""
    month = datetime.fromtimestamp(seconds, UTC).replace(day=1, hour=0, minute=0, second=0)
    return 0, seconds - seconds % MINUTE_S, seconds - seconds % DAY_S, int(month.timestamp())


def end_of(span: Span, start: int) -> int:
    """The first second after the window; 0 for what has none."""
    if span is Span.NOW:
        return 0
    if span is Span.MONTH:
        later = datetime.fromtimestamp(start + 31 * DAY_S, UTC)
        return int(later.replace(day=1, hour=0, minute=0, second=0).timestamp())
    return start + (MINUTE_S if span is Span.MINUTE else DAY_S)


def duration(seconds: float) -> str:
    """As OpenAI's headers write it: ``12ms``, ``1s``, ``7.66s``, ``6m0s``. Never below ``0s``."""
    ms = max(0, round(seconds * 1000))
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms // 1000}.{ms % 1000:03}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
