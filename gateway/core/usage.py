"""What a request cost, and how it is written down: one line when it is let in, one when it is over.

The second line is a whole record. A first line without a second is a request that ran when the gateway died.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

import orjson

from gateway.core.metering import MAX_COUNT

_OPEN, _CLOSE = b"open ", b"close "


class Outcome(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(slots=True, kw_only=True)
class Opening:
    """What is known when a request is let in. ``request_id`` is the identity of all that follows.

    Not frozen, like the record: two are made per request, and freezing doubles what one costs.
    """

    request_id: str
    key_id: str
    organization_id: str
    model: str
    worker_id: str
    node_id: str
    started_at: datetime
    streamed: bool
    project_id: str = ""
    deployment_id: str = ""
    endpoint: str = "chat"
    reserved_tokens: int = 0
    reserved_money: int = 0
    """Set aside when it was let in; money in nano-units of the currency."""


@dataclass(slots=True, kw_only=True)
class UsageRecord(Opening):
    """One request. Numbers that nobody gave are ``None``; ``status`` is 0 when the client was given none."""

    outcome: Outcome
    status: int
    duration_ms: int
    first_token_ms: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    charged_tokens: int = 0
    charged_money: int = 0
    estimated: bool = False
    """The engine said nothing of its counts, so what is charged was estimated."""
    queue_ms: int = 0
    inter_token_us: int | None = None
    continuations: int = 0


@dataclass(slots=True)
class Lines:
    """What some lines of a spool say, in their order."""

    closed: list[UsageRecord] = field(default_factory=list)
    open: dict[str, Opening] = field(default_factory=dict)
    unreadable: int = 0


def write(entry: Opening) -> bytes:
    """The line of an opening, or of a record."""
    return (_CLOSE if isinstance(entry, UsageRecord) else _OPEN) + orjson.dumps(entry) + b"\n"


def read(lines: Iterable[bytes], into: Lines | None = None) -> Lines:
    """All that the lines say, on top of ``into``. What cannot be read (a line torn by a full disk) is counted."""
    found = into if into is not None else Lines()
    for line in lines:
        entry = _entry(line)
        if entry is None:
            found.unreadable += 1
        elif isinstance(entry, UsageRecord):
            found.open.pop(entry.request_id, None)
            found.closed.append(entry)
        else:
            found.open[entry.request_id] = entry
    return found


def records(lines: Iterable[bytes]) -> list[UsageRecord]:
    """The records among the lines; openings are not even parsed."""
    return read(line for line in lines if line.startswith(_CLOSE)).closed


def interrupted(opening: Opening, *, last_sign: datetime) -> UsageRecord:
    """The record of a request that ran when its gateway died, at about ``last_sign``."""
    lasted = milliseconds(last_sign - opening.started_at)
    return UsageRecord(**asdict(opening), outcome=Outcome.INTERRUPTED, status=0, duration_ms=lasted)


def milliseconds(span: timedelta) -> int:
    """Whole milliseconds, never fewer than none and never more than a record holds."""
    return min(max(0, round(span.total_seconds() * 1000)), MAX_COUNT)


def moved(entry: Opening, *, worker_id: str, node_id: str, deployment_id: str) -> Opening:
    """The same request, now with another worker."""
    return replace(entry, worker_id=worker_id, node_id=node_id, deployment_id=deployment_id)


def _entry(line: bytes) -> Opening | None:
    kind, _, text = line.partition(b" ")
    try:
        fields = orjson.loads(text)
        fields["started_at"] = datetime.fromisoformat(fields["started_at"])
        if kind + b" " == _OPEN:
            return Opening(**fields)
        return UsageRecord(**{**fields, "outcome": Outcome(fields["outcome"])})
    except (ValueError, TypeError, KeyError):
        return None
