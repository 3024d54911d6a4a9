"""Routing decisions as they are kept: with all they depended on, as rows of JSON, and decided once more.

Hashes are written in hexadecimal: not every reader of JSON keeps 64 bits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from mesh.kit.errors import InvalidInput
from mesh.routing.choose import choose
from mesh.routing.values import POLICIES, REASONS, Ask, Candidate, Decision

MAX: Final = 10**15
"""Of every number in a record but hashes."""
LEAST_WEIGHT: Final = 0.001
"""Weights come in thousandths."""

_NOBODY: Final = Decision("", "")


class Record(NamedTuple):
    """One decision, and its inputs."""

    at: datetime
    request_id: str
    model: str
    ask: Ask
    candidates: tuple[Candidate, ...]
    decision: Decision


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that comes out otherwise now."""

    request_id: str
    model: str
    recorded: Decision
    replayed: Decision


@dataclass(slots=True)
class Report:
    """What came of deciding again. ``workers``, ``reasons``: how often each, as recorded and as replayed."""

    decisions: int = 0
    differences: list[Difference] = field(default_factory=list)
    workers: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    reasons: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))


def replay(records: Iterable[Record], policy: str | None = None) -> Report:
    """Decide each again, on its own, by the load as recorded. ``policy``: as if that one had been in force."""
    report = Report()
    for record in records:
        ask = record.ask if policy is None else record.ask._replace(policy=policy)
        replayed = choose(record.candidates, ask) or _NOBODY
        report.decisions += 1
        for at, decision in enumerate((record.decision, replayed)):
            report.workers[at][decision.worker_id] += 1
            report.reasons[at][decision.reason] += 1
        if replayed != record.decision:
            report.differences.append(Difference(record.request_id, record.model, record.decision, replayed))
    return report


def to_row(record: Record) -> dict[str, Any]:
    """The record as JSON takes it."""
    ask = record.ask
    return {
        "at": record.at.isoformat(),
        "request_id": record.request_id,
        "model": record.model,
        "ask": {
            **ask._asdict(),
            "prefix": None if ask.prefix is None else f"{ask.prefix:016x}",
            "session": None if ask.session is None else f"{ask.session:016x}",
            "draw": list(ask.draw),
        },
        "candidates": [one._asdict() for one in record.candidates],
        "decision": record.decision._asdict(),
    }


def from_row(row: object) -> Record:
    """The record that ``to_row`` wrote. Raises InvalidInput naming the field; fields it does not know are left."""
    whole = _Fields(row, "the record")
    ask = _Fields(whole.get("ask"), "ask")
    decision = _Fields(whole.get("decision"), "decision")
    listed = whole.get("candidates")
    if not isinstance(listed, list) or not listed:
        raise InvalidInput("candidates", "must be a list that is not empty")
    candidates = tuple(_candidate(_Fields(one, f"candidates[{at}]")) for at, one in enumerate(listed))
    names = {one.worker_id for one in candidates}
    if len(names) < len(candidates):
        raise InvalidInput("candidates", "name a worker twice")
    try:
        at = datetime.fromisoformat(whole.text("at"))
    except ValueError:
        raise InvalidInput("at", "must be a moment in ISO 8601") from None
    return Record(
        at,
        whole.text("request_id"),
        whole.text("model"),
        Ask(
            ask.one_of("policy", POLICIES),
            ask.hash("prefix"),
            ask.hash("session"),
            ask.pair("draw"),
            ask.whole("turn", least=0),
            ask.text("last"),
        ),
        candidates,
        Decision(decision.one_of("worker_id", names), decision.one_of("reason", REASONS)),
    )


def _candidate(fields: "_Fields") -> Candidate:
    weight = fields.number("weight")
    if weight < LEAST_WEIGHT:
        raise InvalidInput(f"{fields.name}.weight", f"must be at least {LEAST_WEIGHT}")
    return Candidate(
        fields.text("worker_id"),
        fields.text("node_id"),
        fields.whole("outstanding", least=0),
        fields.number("foreign"),
        fields.whole("slots", least=1),
        weight,
        fields.number("kv"),
        fields.whole("cost", least=0),
    )


class _Fields:
    """An object of JSON whose fields are what they should be, or InvalidInput."""

    def __init__(self, row: object, name: str) -> None:
        if not isinstance(row, Mapping):
            raise InvalidInput(name, "must be an object")
        self.row, self.name = row, name

    def get(self, key: str) -> object:
        return self.row.get(key)

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "must be a string")
        return value

    def one_of(self, key: str, known: Iterable[str]) -> str:
        value = self.text(key)
        if value not in known:
            raise self._wrong(key, f"must be one of {', '.join(sorted(known))}")
        return value

    def whole(self, key: str, *, least: int) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX:
            raise self._wrong(key, f"must be a whole number from {least} to {MAX}")
        return value

    def number(self, key: str) -> float:
        value = self.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX:
            raise self._wrong(key, f"must be a number from 0 to {MAX}")
        return value

    def hash(self, key: str) -> int | None:
        value = self.get(key)
        if value is None:
            return None
        try:
            number = int(value, 16) if isinstance(value, str) else -1
        except ValueError:
            number = -1
        if not 0 <= number < 1 << 64:
            raise self._wrong(key, "must be 64 bits in hexadecimal")
        return number

    def pair(self, key: str) -> tuple[int, int]:
        value = self.get(key)
        match value:
            case [int(one), int(other)] if 0 <= one <= MAX and 0 <= other <= MAX:
                return one, other
        raise self._wrong(key, f"must be two whole numbers from 0 to {MAX}")

    def _wrong(self, key: str, problem: str) -> InvalidInput:
        return InvalidInput(key if self.name == "the record" else f"{self.name}.{key}", problem)
