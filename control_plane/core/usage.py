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
MAX_TOKENS = 10**15 - 1  # set aside or charged: what an amount of the ledger holds
MAX_MONEY = 2**63 - 1  # nano-units: nine thousand million


class UsageOutcome(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    FAILED = "failed"  # the engine or the way to it
    CANCELLED = "cancelled"  # the client left first
    INTERRUPTED = "interrupted"  # the gateway died while it ran


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One request. Numbers that nobody gave are ``None``, never a made-up zero. Money is in nano-units."""

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
    project_id: str = ""
    deployment_id: str = ""
    endpoint: str = ""
    reserved_tokens: int = 0
    """What was set aside when the request was let in; what is charged may be less or more."""
    reserved_money: int = 0
    charged_tokens: int = 0
    charged_money: int = 0
    estimated: bool = False
    """The engine said nothing of its counts, so what is charged was estimated."""
    queue_ms: int = 0
    inter_token_us: int | None = None
    """Mean time between two pieces of a stream."""
    continuations: int = 0
    """How often another worker went on with the answer."""


_TEXTS = (
    "key_id",
    "organization_id",
    "model",
    "worker_id",
    "node_id",
    "project_id",
    "deployment_id",
    "endpoint",
)
_COUNTS = {
    "duration_ms": MAX_COUNT,
    "first_token_ms": MAX_COUNT,
    "prompt_tokens": MAX_COUNT,
    "completion_tokens": MAX_COUNT,
    "cached_tokens": MAX_COUNT,
    "reserved_tokens": MAX_TOKENS,
    "reserved_money": MAX_MONEY,
    "charged_tokens": MAX_TOKENS,
    "charged_money": MAX_MONEY,
    "queue_ms": MAX_COUNT,
    "inter_token_us": MAX_COUNT,
    "continuations": MAX_COUNT,
}


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
    for name in _TEXTS:
        text: str = getattr(record, name)
        if len(text) > MAX_TEXT or "\x00" in text:
            raise InvalidInput(name, f"at most {MAX_TEXT} characters, none of them NUL")
    for name, most in _COUNTS.items():
        count: int | None = getattr(record, name)
        if count is not None and not 0 <= count <= most:
            raise InvalidInput(name, f"must be 0 to {most}")
    if record.started_at.tzinfo is None:
        raise InvalidInput("started_at", "must name its time zone")
    if record.status and not 100 <= record.status <= 599:
        raise InvalidInput("status", "must be an HTTP status, 100 to 599, or 0 when none was given")
