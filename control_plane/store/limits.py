"""How limits stand in a row: a column for each, named alike. Keys and projects have them."""

from typing import Any

from control_plane.core.limits import LIMITS, Limits

COLUMNS = ", ".join(LIMITS)


def limits_of(row: Any) -> Limits:
    """The limits in a row that has these columns."""
    return Limits(**{name: row[name] for name in LIMITS})


def values(limits: Limits) -> list[int | None]:
    """What goes into the columns, in their order."""
    return [getattr(limits, name) for name in LIMITS]


def places(first: int) -> str:
    """As many parameters as there are columns, from that number on: ``$5, $6, …``."""
    return ", ".join(f"${number}" for number in range(first, first + len(LIMITS)))
