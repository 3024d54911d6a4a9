"""What may be typed: parameter types whose refusals name the limit.

The limits are those written in ``proto/mesh/admin/v1``. They are checked here so that a slip is answered at once
and without a control plane; the server checks them again and has the last word.
"""

import re
from fractions import Fraction

import click

from mesh.kit.settings import Address, parse_address, parse_timedelta

_SIZE_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6}
_SIZE_UNITS |= {"gb": 10**9, "tb": 10**12, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

MIN_BYTES, MAX_BYTES = 2**20, 64 * 2**40


class Text(click.ParamType[str]):
    """Text of 1 to ``longest`` characters, all of them matching ``allowed`` (a character class)."""

    name = "text"

    def __init__(self, longest: int, allowed: str = "", words: str = "") -> None:
        self.longest, self.words = longest, words
        self.pattern = re.compile(f"[{allowed}]*") if allowed else None

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.strip() or len(value) > self.longest:
            self.fail(f"1 to {self.longest} characters, not {len(value.strip())}", param, ctx)
        if not value.isprintable():
            self.fail("printable characters only", param, ctx)
        if self.pattern is not None and self.pattern.fullmatch(value) is None:
            self.fail(f"{value!r} has more than {self.words}", param, ctx)
        return value


class Duration(click.ParamType[int]):
    """``90``, ``15m``, ``24h``, ``30d``; gives whole seconds from 1 up to the limit."""

    name = "duration"

    def __init__(self, longest_s: int, words: str) -> None:
        self.longest_s, self.words = longest_s, words

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            seconds = parse_timedelta(str(value)).total_seconds()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a duration; write 90s, 15m, 24h or 30d", param, ctx)
        if not 1 <= seconds <= self.longest_s:
            self.fail(f"1s to {self.words}, not {value}", param, ctx)
        return int(seconds)


class Size(click.ParamType[int]):
    """``512MiB``, ``1GiB``, ``2000000``; gives bytes, 1 MiB to 64 TiB."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if match is None or match[2] not in _SIZE_UNITS:
            self.fail(f"{value!r} is not a size; write 512MiB or 1GiB", param, ctx)
        octets = int(Fraction(match[1]) * _SIZE_UNITS[match[2]])
        if not MIN_BYTES <= octets <= MAX_BYTES:
            self.fail(f"1MiB to 64TiB, not {value}", param, ctx)
        return octets


class HostPort(click.ParamType[Address]):
    """``host:port``."""

    name = "host:port"

    def convert(self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            address = parse_address(value)
        except ValueError:
            self.fail(f"{value!r} is not host:port", param, ctx)
        if address.port == 0:
            self.fail("port is 1 to 65535, not 0", param, ctx)
        return address


class Euros(click.ParamType[int]):
    """``0.15``, ``20``; gives nano-units of the currency, zero to the limit (in whole units)."""

    name = "EUR"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if re.fullmatch(r"\d{1,12}(?:\.\d{1,9})?", text) is None:
            self.fail(f"{text!r} is not an amount; write 20 or 0.15, with at most 9 decimals", param, ctx)
        nano = int(Fraction(text) * NANO)
        if nano > self.most * NANO:
            self.fail(f"0 to {self.most}, not {text}", param, ctx)
        return nano


class NamedSource(click.ParamType[tuple[str, str]]):
    """``NAME=SOURCE``; gives both."""

    name = "NAME=SOURCE"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, source = value.partition("=")
        if not equals:
            self.fail(f"{value!r} is not NAME=SOURCE", param, ctx)
        return MODEL_NAME.convert(name, param, ctx), SOURCE.convert(source, param, ctx)


NANO = 10**9

_NAME_WORDS = 'letters, digits, ".", "_", "-"'

NAME = Text(64, r"A-Za-z0-9._-", _NAME_WORDS)
KEY_NAME = Text(64)
MODEL_NAME = Text(128, r"A-Za-z0-9._:/-", _NAME_WORDS + ', ":", "/"')
REFERENCE = Text(128)
"""An id or a name of something that should exist."""
SOURCE = Text(1024)
KEY_TTL = Duration(3650 * 86400, "3650d")
TOKEN_TTL = Duration(86400, "24h")
WAIT = Duration(86400, "24h")
TOKEN_USES = click.IntRange(1, 50)
CONTEXT_LENGTH = click.IntRange(128, 1_048_576)
GPU_COUNT = click.IntRange(0, 64)
REPLICAS = click.IntRange(1, 64)
SLOTS = click.IntRange(1, 256)
SCOPE = click.Choice(
    (
        *("chat", "completions", "embeddings", "responses", "messages", "rerank", "score", "tokenize", "audio"),
        *("models", "pass_through", "route_debug"),
    )
)
PROJECT = Text(129)
"""The id of a project, or its "<organization>/<name>"."""
WEIGHT = click.IntRange(1, 1000)
REQUESTS = click.IntRange(0, 10**9)
TOKENS = click.IntRange(0, 10**15)
MONEY = Euros(10**9)
PRICE = Euros(10**6)
PATH = Text(128, r"A-Za-z0-9._/-", 'letters, digits, ".", "_", "-", "/"')
PORT = click.IntRange(0, 65535)
