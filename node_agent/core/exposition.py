"""Numbers as the text that Prometheus reads (its format 0.0.4). Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, with a sample for each set of labels."""

    name: str
    text: str
    samples: tuple[Sample, ...]
    kind: str = "gauge"


def one(name: str, text: str, value: float, kind: str = "gauge") -> Family:
    """A metric with a single sample and no labels."""
    return Family(name, text, (({}, value),), kind)


def labelled(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float | None]]
) -> Family:
    """A metric with a sample for each row; what is not known has none."""
    samples = ((dict(zip(labels, values, strict=True)), value) for values, value in rows if value is not None)
    return Family(name, text, tuple(samples))


def render(families: Iterable[Family]) -> bytes:
    """The whole page."""
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{_labels(labels)} {float(value)!r}" for labels, value in family.samples]
    return "".join(f"{line}\n" for line in lines).encode()


def _labels(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""
