"""What a request cost, as gateways record it. The request id is the record's identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from mesh.kit.errors import InvalidInput

MAX_BATCH = 500  # records per call: about 200 kB, far below the message limit of the gateway listener
MAX_TEXT = 256  # characters of any name or id in a record
MAX_COUNT = 2**31 - 1  # tokens and milliseconds are kept as 32-bit integers


class UsageOutcome(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    FAILED = "failed"  # the engine or the way to it
    CANCELLED = "cancelled"  # the client left first
    INTERRUPTED = "interrupted"  # the gateway died while it ran


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One request. Numbers that nobody gave are ``None``, never a made-up zero."""

    request_id: str
    key_id: str
    organization_id: str
    model: str
    worker_id: str
    node_id: str
    outcome: UsageOutcome
    started_at: datetime
    duration_ms: int
    streamed: bool
    status: int
    first_token_ms: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


def check_batch(records: Sequence[UsageRecord]) -> None:
    """Raise InvalidInput unless every record could be stored."""
    if len(records) > MAX_BATCH:
        raise InvalidInput("records", f"at most {MAX_BATCH}, not {len(records)}")
    for record in records:
        check(record)


def check(record: UsageRecord) -> None:
    """Raise InvalidInput naming the field that is outside its limits."""
    try:
        canonical = str(UUID(record.request_id)) == record.request_id
    except ValueError:
        canonical = False
    if not canonical:
        raise InvalidInput("request_id", "must be a UUID in lower-case text form")
    for name in ("key_id", "organization_id", "model", "worker_id", "node_id"):
        text: str = getattr(record, name)
        if len(text) > MAX_TEXT or "\x00" in text:
            raise InvalidInput(name, f"at most {MAX_TEXT} characters, none of them NUL")
    for name in ("duration_ms", "first_token_ms", "prompt_tokens", "completion_tokens", "cached_tokens"):
        count: int | None = getattr(record, name)
        if count is not None and not 0 <= count <= MAX_COUNT:
            raise InvalidInput(name, f"must be 0 to {MAX_COUNT}")
    if record.started_at.tzinfo is None:
        raise InvalidInput("started_at", "must name its time zone")
    if record.status and not 100 <= record.status <= 599:
        raise InvalidInput("status", "must be an HTTP status, 100 to 599, or 0 when none was given")
