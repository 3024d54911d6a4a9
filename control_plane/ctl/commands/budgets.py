"""The limits of keys and projects: their options, and how they are shown."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from control_plane.ctl import limits, output
from mesh.gateway.v1 import gateway_pb2 as pb

Command = TypeVar("Command", bound=Callable[..., Any])

# Option, field of the schema, type, help, and how a limit is shown in few characters.
_OPTIONS: tuple[tuple[str, str, click.ParamType[int], str, str], ...] = (
    ("--rpm", "requests_per_minute", limits.REQUESTS, "Requests a minute.", "rpm"),
    ("--tpm", "tokens_per_minute", limits.TOKENS, "Tokens a minute, prompts and answers together.", "tpm"),
    ("--concurrent", "concurrent_requests", limits.REQUESTS, "Requests at once.", "at once"),
    ("--tokens-per-day", "tokens_per_day", limits.TOKENS, "Tokens a day (UTC).", "tokens/day"),
    ("--tokens-per-month", "tokens_per_month", limits.TOKENS, "Tokens a month (UTC).", "tokens/month"),
    ("--eur-per-day", "money_per_day", limits.MONEY, "EUR a day (UTC), e.g. 0.50.", "EUR/day"),
    ("--eur-per-month", "money_per_month", limits.MONEY, "EUR a month (UTC).", "EUR/month"),
)


def limit_options(command: Command) -> Command:
    """Add an option for each limit; the command gets their values by the names of the schema's fields."""
    for flag, field, kind, words, _ in reversed(_OPTIONS):
        command = click.option(flag, field, type=kind, help=f"{words} Without it: unlimited.")(command)
    return command


def limits_from(values: dict[str, int | None]) -> pb.Limits:
    """The limits that those options came to; what was not given is unlimited."""
    return pb.Limits(**values)


def limit_words(found: pb.Limits) -> str:
    """All limits in one line: ``60 rpm, 0.5 EUR/day``; ``none`` when there are none."""
    return (
        ", ".join(_words(found, field, unit) for _, field, _, _, unit in _OPTIONS if found.HasField(field))
        or "none"
    )


def _words(found: pb.Limits, field: str, unit: str) -> str:
    value: int = getattr(found, field)
    return f"{output.euros(value) if field.startswith('money') else value} {unit}"
