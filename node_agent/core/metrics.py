"""How busy an engine is, out of its own Prometheus text. Several engines' names for the same thing are known."""

import math
import re

RUNNING = ("llamacpp:requests_processing", "vllm:num_requests_running", "vllm_num_requests_running")
WAITING = ("llamacpp:requests_deferred", "vllm:num_requests_waiting", "vllm_num_requests_waiting")
KV_CACHE = (
    "vllm:kv_cache_usage_perc",  # a share, despite its name
    "vllm_kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",  # its older name
    "vllm_gpu_cache_usage_perc",
    "llamacpp:kv_cache_usage_ratio",
)

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)


def parse_load(text: str) -> tuple[int | None, int | None, float | None]:
    """(running, waiting, share of the KV cache in use); None where the text has no such metric.

    Requests are summed over label sets. Of the cache the fullest counts, 0 to 1: an engine of several ranks waits
    for the one that has no room.
    """
    sums: dict[str, float] = {}
    fullest: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        if name in RUNNING or name in WAITING:
            sums[name] = sums.get(name, 0.0) + _number(value)
        elif name in KV_CACHE:
            fullest[name] = max(fullest.get(name, 0.0), min(_number(value), 1.0))
    return _first(sums, RUNNING), _first(sums, WAITING), next((fullest[n] for n in KV_CACHE if n in fullest), None)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _first(sums: dict[str, float], names: tuple[str, ...]) -> int | None:
    return next((int(sums[name]) for name in names if name in sums), None)
