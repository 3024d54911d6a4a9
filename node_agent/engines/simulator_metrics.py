"""The simulator's counters under vLLM's names, as the text that Prometheus reads.

Only what is really counted is shown; every name but ``simulator:…`` is one that vLLM 0.32 has.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
REASONS: Final = ("stop", "length", "abort", "error", "repetition")
TTFT_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
WHOLE_S: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
TOKENS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


class Histogram:
    """Counts values into buckets."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one value, ``times`` over."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Metrics:
    """Everything the simulator counts. Gauges are the caller's, at the time of asking."""

    def __init__(self) -> None:
        self.cache_queries = self.cache_hits = 0
        self.prompt_tokens = self.generation_tokens = 0
        self.aborted = self.faults = self.requests = 0
        self.finished = dict.fromkeys(REASONS, 0)
        self.ttft = Histogram(TTFT_S)
        self.token = Histogram(TOKEN_S)
        self.per_token = Histogram(TOKEN_S)
        self.whole = Histogram(WHOLE_S)
        self.queue = Histogram(WHOLE_S)
        self.inference = Histogram(WHOLE_S)
        self.prefill = Histogram(WHOLE_S)
        self.decode = Histogram(WHOLE_S)
        self.prompt = Histogram(TOKENS)
        self.generated = Histogram(TOKENS)

    def text(self, model: str, *, running: int, waiting: int, cache_usage: float, blocks: int) -> bytes:
        """The whole page. ``cache_usage`` is a share of ``blocks``."""
        model = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        page = _Page(f'engine="0",model_name="{model}"')
        page.one("num_requests_running", "Number of requests in model execution batches.", "gauge", running)
        page.one("num_requests_waiting", "Number of requests waiting to be processed.", "gauge", waiting)
        page.by("num_requests_waiting_by_reason", "Number of waiting requests by reason.", "gauge", "reason",
                {"capacity": waiting, "deferred": 0})  # fmt: skip
        page.one("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", "gauge", cache_usage)
        for name, what, value in (
            (
                "prefix_cache_queries",
                "Prefix cache queries, in terms of number of queried tokens.",
                self.cache_queries,
            ),
            ("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", self.cache_hits),
            ("num_preemptions", "Cumulative number of preemption from the engine.", 0),
            ("prompt_tokens", "Number of prefill tokens processed.", self.prompt_tokens),
            ("prompt_tokens_cached", "Number of cached prompt tokens (local + external).", self.cache_hits),
            ("generation_tokens", "Number of generation tokens processed.", self.generation_tokens),
        ):
            page.one(f"{name}_total", what, "counter", value)
        page.by("prompt_tokens_by_source_total", "Number of prompt tokens by source.", "counter", "source",
                {"local_compute": self.prompt_tokens - self.cache_hits, "local_cache_hit": self.cache_hits,
                 "external_kv_transfer": 0})  # fmt: skip
        page.by("request_success_total", "Count of successfully processed requests.", "counter", "finished_reason",
                self.finished)  # fmt: skip
        for name, what, histogram in (
            ("request_prompt_tokens", "Number of prefill tokens processed.", self.prompt),
            ("request_generation_tokens", "Number of generation tokens processed.", self.generated),
            ("time_to_first_token_seconds", "Histogram of time to first token in seconds.", self.ttft),
            ("inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", self.token),
            ("request_time_per_output_token_seconds", "Seconds per output token, per request.", self.per_token),
            ("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", self.whole),
            ("request_queue_time_seconds", "Seconds that a request waits.", self.queue),
            ("request_inference_time_seconds", "Seconds that a request runs.", self.inference),
            ("request_prefill_time_seconds", "Seconds from admission to the first token.", self.prefill),
            ("request_decode_time_seconds", "Seconds from the first token to the last.", self.decode),
        ):
            page.histogram(name, what, histogram)
        page.head("vllm:cache_config_info", "Information of the cache configuration.", "gauge")
        page.lines.append(
            f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="True",engine="0",'
            f'num_gpu_blocks="{blocks}"}} 1.0'
        )
        for name, what, value in (
            ("requests_total", "Requests to a model.", self.requests),
            ("aborted_requests_total", "Requests whose client left before the end.", self.aborted),
            ("faults_total", "Answers spoilt on purpose.", self.faults),
        ):
            page.one(name, what, "counter", value, prefix="simulator:")
        return "\n".join([*page.lines, ""]).encode()


class _Page:
    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.lines: list[str] = []

    def head(self, name: str, what: str, kind: str) -> None:
        self.lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]

    def one(self, name: str, what: str, kind: str, value: float, *, prefix: str = "vllm:") -> None:
        self.head(f"{prefix}{name}", what, kind)
        self.lines.append(f"{prefix}{name}{{{self.labels}}} {float(value)}")

    def by(self, name: str, what: str, kind: str, label: str, values: dict[str, int]) -> None:
        self.head(f"vllm:{name}", what, kind)
        engine, model = self.labels.split(",", 1)
        first, second = (f'{label}="', '"') if label < "model_name" else ("", "")
        for key, value in values.items():
            pair = f"{first}{key}{second}" if first else f'{label}="{key}"'
            inner = f"{engine},{pair},{model}" if first else f"{engine},{model},{pair}"
            self.lines.append(f"vllm:{name}{{{inner}}} {float(value)}")

    def histogram(self, name: str, what: str, histogram: Histogram) -> None:
        self.head(f"vllm:{name}", what, "histogram")
        engine, model = self.labels.split(",", 1)
        total = 0
        for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
            total += count
            self.lines.append(f'vllm:{name}_bucket{{{engine},le="{bound}",{model}}} {float(total)}')
        self.lines += [
            f"vllm:{name}_count{{{self.labels}}} {float(total)}",
            f"vllm:{name}_sum{{{self.labels}}} {histogram.sum}",
        ]
