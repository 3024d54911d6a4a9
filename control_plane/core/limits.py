"""What a key or a project may use, and how much of it, as values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """None: unlimited. Windows are UTC's minutes, days and months; money is in nano-units of the currency."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    money_per_day: int | None = None
    money_per_month: int | None = None


LIMITS: Final = tuple(Limits.__dataclass_fields__)
"""The names of all limits: those of the fields, of the schema's, and of the columns."""

UNLIMITED: Final = Limits()


class Priority(StrEnum):
    """Who goes first in a queue."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


ROUTE_DEBUG: Final = "route_debug"
"""The scope that no empty list implies: answers then name worker, node and reason."""

SCOPES: Final = (
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "rerank",
    "score",
    "tokenize",
    "audio",
    "models",
    "pass_through",
    ROUTE_DEBUG,
)
"""What a key may be good for. A test holds them against those that gateways know."""


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What a key may do. No scopes: every endpoint. No models: all that its organization may use."""

    scopes: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    limits: Limits = UNLIMITED
    weight: int = 1
    priority: Priority = Priority.NORMAL


ANYTHING: Final = KeyPolicy()
