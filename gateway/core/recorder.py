"""The flight recorder: the last routing decisions, with all they depended on. Adding one keeps references only."""

from collections import deque
from datetime import datetime
from typing import Any

from mesh.routing.record import Record, to_row
from mesh.routing.values import Ask, Candidate, Decision


class Recorder:
    """Holds the last ``capacity`` decisions (at least one). A decision among n workers weighs some 200 n bytes."""

    def __init__(self, capacity: int) -> None:
        assert capacity > 0, "a recorder that records"
        self._records: deque[Record] = deque(maxlen=capacity)

    def add(
        self,
        at: datetime,
        request_id: str,
        model: str,
        ask: Ask,
        candidates: tuple[Candidate, ...],
        decision: Decision,
    ) -> None:
        """Keep this one; the oldest gives way."""
        self._records.append(Record(at, request_id, model, ask, candidates, decision))

    def dump(self) -> list[dict[str, Any]]:
        """All of them as JSON takes them, oldest first: one a line is what ``meshctl route replay`` reads.

        They hold hashes of prompts and sessions, never their text.
        """
        return [to_row(record) for record in self._records]

    def __len__(self) -> int:
        return len(self._records)
