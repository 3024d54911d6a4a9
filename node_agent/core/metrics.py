"""How busy an engine is, out of its own Prometheus text. Several engines' names for the same thing are known."""

import math
import re

RUNNING = ("llamacpp:requests_processing", "vllm:num_requests_running", "vllm_num_requests_running")
WAITING = ("llamacpp:requests_deferred", "vllm:num_requests_waiting", "vllm_num_requests_waiting")

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)


def parse_load(text: str) -> tuple[int | None, int | None]:
    """(running, waiting), each summed over its label sets; None where the text has no such metric."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        if name in RUNNING or name in WAITING:
            sums[name] = sums.get(name, 0.0) + _number(value)
    return _first(sums, RUNNING), _first(sums, WAITING)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _first(sums: dict[str, float], names: tuple[str, ...]) -> int | None:
    return next((int(sums[name]) for name in names if name in sums), None)
