"""What a request cost as postings of a double-entry ledger: what one account gives, another takes. Pure.

A key has three accounts for each unit: what it may still use, what is set aside for requests under way, and what
it spent. A record arrives when its request is over, so its postings leave nothing set aside.
"""

from dataclasses import dataclass
from enum import StrEnum

from control_plane.core.usage import UsageRecord


class Unit(StrEnum):
    """What is counted. Amounts of money are in nano-units of the currency."""

    TOKEN = "token"  # noqa: S105 - of text, not of anyone
    EUR = "EUR"


class Kind(StrEnum):
    """What a posting does."""

    RESERVE = "reserve"  # available to reserved: what was set aside when the request was let in
    SETTLE = "settle"  # reserved to spent: what of it was charged
    REFUND = "refund"  # reserved to available: what of it was not
    OVERRUN = "overrun"  # available to spent: what was charged beyond it


@dataclass(frozen=True, slots=True)
class Posting:
    """One transfer. ``amount`` is above zero: tokens, or nano-units of the currency."""

    kind: Kind
    unit: Unit
    debit: str
    credit: str
    amount: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """The names of a key's accounts."""

    available: str
    reserved: str
    spent: str


def accounts(key_id: str) -> Accounts:
    """The accounts of that key."""
    return Accounts(f"key:{key_id}:available", f"key:{key_id}:reserved", f"key:{key_id}:spent")


def postings(record: UsageRecord) -> tuple[Posting, ...]:
    """What that record comes to, at most one posting of each kind and unit; nothing for what is zero."""
    of = accounts(record.key_id)
    return (
        *_transfers(of, Unit.TOKEN, record.reserved_tokens, record.charged_tokens),
        *_transfers(of, Unit.EUR, record.reserved_money, record.charged_money),
    )


def _transfers(of: Accounts, unit: Unit, reserved: int, charged: int) -> tuple[Posting, ...]:
    settled = min(charged, reserved)
    transfers = (
        Posting(Kind.RESERVE, unit, of.available, of.reserved, reserved),
        Posting(Kind.SETTLE, unit, of.reserved, of.spent, settled),
        Posting(Kind.REFUND, unit, of.reserved, of.available, reserved - settled),
        Posting(Kind.OVERRUN, unit, of.available, of.spent, charged - settled),
    )
    return tuple(one for one in transfers if one.amount)
