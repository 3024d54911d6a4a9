"""How limits are told to clients: errors and headers as OpenAI has them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from gateway.core.limits import Bound, Meter, Refused, Subject
from gateway.core.windows import Kind, Span, duration, end_of
from mesh.kit.errors import TooManyRequests

_NAMES: Final = {
    Kind.REQUESTS_PER_MINUTE: "requests per min (RPM)",
    Kind.TOKENS_PER_MINUTE: "tokens per min (TPM)",
    Kind.CONCURRENT_REQUESTS: "concurrent requests",
    Kind.TOKENS_PER_DAY: "tokens per day (TPD)",
    Kind.TOKENS_PER_MONTH: "tokens per month",
    Kind.MONEY_PER_DAY: "money per day",
    Kind.MONEY_PER_MONTH: "money per month",
}
_MONEY: Final = frozenset({Kind.MONEY_PER_DAY, Kind.MONEY_PER_MONTH})
_SHOWN: Final = ((Kind.REQUESTS_PER_MINUTE, "requests"), (Kind.TOKENS_PER_MINUTE, "tokens"))


class LimitReached(TooManyRequests):
    """A limit by the minute, or of requests at once, has no room for this request. Nothing was counted."""

    code = "rate_limit_exceeded"

    def __init__(self, refused: Refused) -> None:
        super().__init__(_text(refused), retry_after_s=refused.retry_after_s)
        self.refused = refused
        self.kind, self.subject_kind = refused.kind, refused.subject_kind


class QuotaExhausted(LimitReached):
    """A budget of a day or a month has no room for this request. Nothing was counted."""

    code = "insufficient_quota"


def limit_reached(refused: Refused) -> LimitReached:
    """The error of that refusal."""
    return QuotaExhausted(refused) if refused.kind.is_budget else LimitReached(refused)


def headers(subjects: Iterable[Subject], meter: Meter, now: datetime) -> dict[str, str]:
    """``x-ratelimit-*`` of the limits by the minute; of several, the one with the least left. Often empty."""
    least: dict[Kind, tuple[int, Bound]] = {}
    for subject in subjects:
        for bound in subject.bounds:
            if bound.span is Span.MINUTE:
                left = meter.remaining(bound, now)
                if bound.kind not in least or left < least[bound.kind][0]:
                    least[bound.kind] = left, bound
    if not least:
        return {}
    reset = duration(end_of(Span.MINUTE, meter.window(Span.MINUTE, now)) - now.timestamp())
    shown: dict[str, str] = {}
    for kind, name in _SHOWN:
        if kind in least:
            left, bound = least[kind]
            shown[f"x-ratelimit-limit-{name}"] = str(bound.limit)
            shown[f"x-ratelimit-remaining-{name}"] = str(left)
            shown[f"x-ratelimit-reset-{name}"] = reset
    return shown


def _text(refused: Refused) -> str:
    show = _money if refused.kind in _MONEY else str
    numbers = (
        f"Limit {show(refused.limit)}, Remaining {show(refused.remaining)}, Requested {show(refused.requested)}"
    )
    where = f"{refused.subject_kind} {refused.subject} on {_NAMES[refused.kind]}"
    if refused.never:
        return f"Request too large for {where}: {numbers}. It can never fit; make it smaller."
    if refused.kind.is_budget:
        return f"You exceeded your current quota for {where}: {numbers}."
    return f"Rate limit reached for {where}: {numbers}. Please try again in {duration(refused.retry_after_s)}."


def _money(nano: int) -> str:
    """In units of the currency."""
    return f"{nano // 10**9}.{nano % 10**9:09}".rstrip("0").rstrip(".")
