"""What a simulator may be told: its options, and the faults it has on purpose. Pure.

Written ``seed=7,token_ms=5,fault=stall_after_bytes:200,fault_every=10``. A request may bring a fault of its
own, in the header ``x-simulator-fault`` or in the field ``simulator_fault`` of its body, as ``name:value``, as
``name`` where there is no value, or as ``{"name": value}``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from hashlib import blake2b

from mesh.kit.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one answer. Octets are those of the body, without framing; None: does not happen."""

    die_after_bytes: int | None = None
    """The process ends at once after exactly so many octets."""
    close_after_bytes: int | None = None
    """The connection ends, whole answer or not."""
    stall_after_bytes: int | None = None
    """Nothing more comes, and the connection stays."""
    garbage_after_bytes: int | None = None
    """Noise in place of the rest, correctly framed."""
    unframed_after_bytes: int | None = None
    """Noise on the wire where HTTP's framing should be, then the end of the connection."""
    status: int | None = None
    """An error of that status in place of an answer."""
    slow_headers_ms: int | None = None
    """The answer starts so many milliseconds later."""
    no_headers: int | None = None
    """No answer at all; the connection stays."""
    truncated: int | None = None
    """All but the end: of a stream its last chunk is missing, of a sized body its last octet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a simulator behaves."""

    seed: int = 0
    ttft_ms: float = 0.0
    """Milliseconds from admission to the first token."""
    token_ms: float = 0.0
    """Milliseconds from token to token; 0: all at once."""
    prefill_us_per_token: float = 0.0
    """Microseconds that each token of the prompt adds to the first token, unless it was cached."""
    tokens: int = 0
    """Tokens of an answer that ends by itself; 0: 20 to 60, by seed and conversation."""
    cache_blocks: int = 8192
    """Blocks of 16 tokens that the prefix cache keeps."""
    loading_ms: int = 0
    """So long after the start ``/health`` says 503."""
    fault: Fault | None = None
    fault_every: int = 0
    """Each so-manieth request to a model has the fault."""
    fault_share: float = 0.0
    """Share of requests, drawn by seed and number, that have it."""
    fault_skip: int = 0
    """The first so many requests never have it (the agent's warm-up is one)."""

    def fault_of(self, number: int) -> Fault | None:
        """The fault of the request of that number, counted from 1."""
        if self.fault is None or number <= self.fault_skip:
            return None
        if self.fault_every:
            return self.fault if (number - self.fault_skip) % self.fault_every == 0 else None
        if self.fault_share:
            drawn = int.from_bytes(blake2b(b"%d:%d" % (self.seed, number), digest_size=4).digest(), "big")
            return self.fault if drawn < self.fault_share * 2**32 else None
        return self.fault


_INTEGERS = frozenset({"seed", "tokens", "cache_blocks", "loading_ms", "fault_every", "fault_skip"})
_NUMBERS = frozenset({"ttft_ms", "token_ms", "prefill_us_per_token", "fault_share"})
_FAULTS = frozenset(field.name for field in fields(Fault))
_FLAGS = frozenset({"no_headers", "truncated"})


def parse(text: str) -> Options:
    """The options written in a text. InvalidInput names the one that is wrong."""
    options = Options()
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in word.partition("="))
        if name not in _INTEGERS | _NUMBERS | {"fault"}:
            known = ", ".join(field.name for field in fields(Options))
            raise InvalidInput("simulator", f"option {name!r} is not known; options are {known}")
        if not equals or not value:
            raise InvalidInput("simulator", f"option {name!r} needs a value: {name}=…")
        options = replace(options, **{name: _option(name, value)})  # type: ignore[arg-type]  # checked by name
    if options.fault is None and (options.fault_every or options.fault_share):
        raise InvalidInput("simulator", "fault_every and fault_share need a fault: fault=name:value")
    return options


def _option(name: str, value: str) -> int | float | Fault:
    if name == "fault":
        return fault(value)
    try:
        number = int(value) if name in _INTEGERS else float(value)
    except ValueError:
        kind = "a whole number" if name in _INTEGERS else "a number"
        raise InvalidInput("simulator", f"option {name}={value!r} is not {kind}") from None
    if not (0 <= number < 2**53):
        raise InvalidInput("simulator", f"option {name}={value!r} is out of range")
    return number


def fault(asked: object) -> Fault:
    """A fault from ``name:value``, ``name`` or ``{"name": value}``. InvalidInput says what is wrong with it."""
    if isinstance(asked, str):
        name, _, value = asked.partition(":")
        asked = {name.strip(): value.strip() or 1}
    if not isinstance(asked, Mapping) or not asked:
        raise InvalidInput("simulator_fault", "is neither 'name:value' nor an object with a name and a value")
    values: dict[str, int] = {}
    for name, value in asked.items():
        if name not in _FAULTS:
            raise InvalidInput(
                "simulator_fault", f"{name!r} is not known; faults are {', '.join(sorted(_FAULTS))}"
            )
        try:
            values[name] = int(value)
        except (TypeError, ValueError):
            raise InvalidInput("simulator_fault", f"{name} needs a whole number, not {value!r}") from None
        if values[name] < 0 or (name == "status" and not 400 <= values[name] <= 599):
            raise InvalidInput("simulator_fault", f"{name} cannot be {values[name]}")
    return Fault(**{name: value for name, value in values.items() if value or name not in _FLAGS})
