"""Environment to frozen dataclass, or every problem at once.

A settings class is a frozen dataclass with keyword-only fields; each field's variable is the prefix plus its
name in capitals. A value may come from a file: ``<VARIABLE>_FILE`` names it. Supported field types: str, int,
float, bool, Path, timedelta (``"30"``, ``"30s"``, ``"15m"``, ``"24h"``), Address, Secret, and any of these
``| None``.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

T = typing.TypeVar("T")

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class BadSettings(Exception):
    """The environment does not make a valid settings object; ``problems`` holds every reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that must not be printed; ``reveal()`` gives it to the one who needs it."""

    _text: str

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on or to dial. ``str()`` gives host:port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``host:port`` or ``[v6]:port``; ValueError otherwise."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    return Address(host, int(port))


def parse_timedelta(text: str) -> timedelta:
    """A number with an optional unit (ms, s, m, h, d); seconds without. ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text.strip())
    if match is None:
        raise ValueError(text)
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]])


def parse_bool(text: str) -> bool:
    """true/false, yes/no, on/off, 1/0; ValueError otherwise."""
    try:
        return {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


_PARSERS: dict[object, Callable[[str], object]] = {
    str: str,
    int: int,
    float: float,
    bool: parse_bool,
    Path: Path,
    timedelta: parse_timedelta,
    Address: parse_address,
    Secret: Secret,
}


def _plain(annotation: object) -> object:
    """``X | None`` as X; anything else as it is."""
    if isinstance(annotation, types.UnionType):
        return next(arg for arg in typing.get_args(annotation) if arg is not types.NoneType)
    return annotation


def load(cls: type[T], environ: Mapping[str, str], *, prefix: str) -> T:
    """Build ``cls`` from the environment. BadSettings names every missing, malformed and unknown variable."""
    problems: list[str] = []
    values: dict[str, object] = {}
    known: set[str] = set()
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        variable = prefix + field.name.upper()
        known |= {variable, variable + "_FILE"}
        text = environ.get(variable)
        if text is None and (named := environ.get(variable + "_FILE")) is not None:
            try:
                text = Path(named).read_text().strip()
            except OSError as exc:
                problems.append(f"{variable}_FILE: {exc.strerror}: {named}")
                continue
        if text is None:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                problems.append(f"{variable}: required")
            continue
        kind = _plain(hints[field.name])
        try:
            values[field.name] = _PARSERS[kind](text)
        except ValueError:
            problems.append(f"{variable}: not a valid {getattr(kind, '__name__', str(kind)).lower()}")
    problems.extend(f"{name}: unknown" for name in environ if name.startswith(prefix) and name not in known)
    if problems:
        raise BadSettings(problems)
    try:
        return cls(**values)
    except ValueError as exc:  # a field's own bounds, checked in __post_init__
        raise BadSettings([str(exc)]) from exc
