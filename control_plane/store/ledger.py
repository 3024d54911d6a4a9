"""Questions about the ledger. Entries are only ever added, each once per request, kind and unit."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from control_plane.core.ledger import Kind, Unit, accounts, postings
from control_plane.core.usage import UsageRecord
from control_plane.store.db import Db

NANO = Decimal(10) ** 9
EVER = datetime(1970, 1, 1, tzinfo=UTC)

# Multiplied, not divided: a quotient of numerics is rounded to its first digits.
_RECORD = """
INSERT INTO ledger_entries (request_id, posting, unit, debit, credit, amount, at)
SELECT p.request_id, p.posting, p.unit, p.debit, p.credit,
       p.amount * CASE p.unit WHEN 'EUR' THEN 0.000000001 ELSE 1 END, $2
  FROM jsonb_to_recordset($1) AS p (
       request_id uuid, posting text, unit text, debit text, credit text, amount numeric)
 ORDER BY p.request_id
    ON CONFLICT (request_id, posting, unit) DO NOTHING
"""
_OF_KEY = "SELECT unit, sum(amount) AS amount FROM ledger_entries WHERE credit = $1 AND at >= $2 GROUP BY unit"
_OF_PROJECT = """
SELECT e.unit, sum(e.amount) AS amount
  FROM usage_records AS r
  JOIN ledger_entries AS e USING (request_id)
 WHERE r.project_id = $1 AND r.project_id <> '' AND e.posting = ANY($3::text[]) AND e.at >= $2
 GROUP BY e.unit
"""
_DRIFT = """
SELECT COALESCE(sum(abs(balance)), 0)
  FROM (SELECT sum(amount) AS balance
          FROM (SELECT credit AS account, unit, amount FROM ledger_entries
                UNION ALL
                SELECT debit, unit, -amount FROM ledger_entries) AS moved
         WHERE account LIKE 'key:%:reserved'
         GROUP BY account, unit) AS reserved
"""
_SPENDING = [Kind.SETTLE, Kind.OVERRUN]


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens, and nano-units of the currency."""

    tokens: int = 0
    money: int = 0


async def record(db: Db, records: Iterable[UsageRecord], *, now: datetime) -> None:
    """Post what those records come to. What is posted already stays as it is."""
    entries: list[dict[str, Any]] = [
        {
            "request_id": one.request_id,
            "posting": posting.kind,
            "unit": posting.unit,
            "debit": posting.debit,
            "credit": posting.credit,
            "amount": posting.amount,
        }
        for one in records
        for posting in postings(one)
    ]
    if entries:
        await db.execute(_RECORD, entries, now)


async def spent(db: Db, *, key_id: str, since: datetime = EVER) -> Spent:
    """What was posted as spent by that key, from that moment on."""
    return _spent(await db.fetch(_OF_KEY, accounts(key_id).spent, since))


async def spent_by_project(db: Db, *, project_id: str, since: datetime = EVER) -> Spent:
    """What was posted as spent by all keys of that project together, from that moment on."""
    return _spent(await db.fetch(_OF_PROJECT, project_id, since, _SPENDING))


async def drift(db: Db) -> Decimal:
    """What is still set aside, over all keys and units: zero, or the books are wrong. Reads the whole ledger."""
    found: Decimal = await db.fetchval(_DRIFT)
    return found


def _spent(rows: Iterable[Any]) -> Spent:
    sums = {row["unit"]: row["amount"] for row in rows}
    return Spent(int(sums.get(Unit.TOKEN, 0)), int(sums.get(Unit.EUR, 0) * NANO))
