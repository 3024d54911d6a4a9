"""Measures the spine beside its peers, in one run: ``make bench``.

Layout: the gateway alone on core 0; load client, upstream and (for tunnels) the agent on core 1. Peers take
turns inside each round, so that a drifting machine hurts all alike. The primary figure is CPU per request of
the gateway's process; only ratios from one run mean anything. ``others`` is the CPU that strangers burnt
meanwhile, in cores.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench import mesh, table
from bench.measure import Meter, memory_mib
from bench.peers import BACK_CORE, PEERS, NotListening, Spawner, Target, start_upstream, wait_listening

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    title: str
    connections: int
    rate: float
    stream: bool
    chunks: int
    delay_us: int
    warmup_s: float


SCENARIOS = [
    Scenario("c64", "Plain requests, 64 clients", 64, 0, False, 2, 0, 0.5),
    Scenario("s100", "100 streams, a chunk every 20 ms", 100, 0, True, 1000, 20_000, 1.5),
    Scenario("ttft", "Streams opened at 200 per second, 8 chunks", 256, 200, True, 8, 5_000, 0.5),
    Scenario("s1000", "1,000 streams, a chunk every 50 ms", 1000, 0, True, 1000, 50_000, 2.5),
]


def build(console: Console) -> None:
    """Compile the load client and the upstream when their sources are newer."""
    (HERE / "bin").mkdir(exist_ok=True)
    for name in ("load", "upstream"):
        source, binary = HERE / "native" / f"{name}.c", HERE / "bin" / name
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            console.print(f"compiling {source.name}", style="dim")
            subprocess.run(["gcc", "-O2", "-Wall", "-o", binary, source], check=True)


def load(target: Target, scenario: Scenario, seconds: float, upstream_pid: int) -> table.Row:
    """One measured stretch of load; figures per second, per request and per chunk."""
    meter = Meter(target.measured, [upstream_pid, *target.helpers])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [
        *("taskset", "-c", BACK_CORE, HERE / "bin" / "load", target.port, target.model, target.key_file),
        *(scenario.connections, seconds, scenario.warmup_s, scenario.rate, int(scenario.stream)),
    ]
    meter.start()
    out = subprocess.run([str(part) for part in argv], capture_output=True, check=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = meter.stop(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    row: table.Row = json.loads(out)
    took = seconds + scenario.warmup_s
    # The meter ran over the warm-up too: what was done then is what the rates say.
    requests, chunks = row["rps"] * took, row["chunks_per_s"] * took
    if target.measured:
        if not scenario.stream and requests:
            row["cpu_us_per_request"] = cost.measured / requests * 1e6
        if scenario.stream and chunks:
            row["cpu_us_per_chunk"] = cost.measured / chunks * 1e6
        row["cores"] = cost.measured / took
        row["rss_mib"] = memory_mib(target.measured)
    row["others"] = cost.others / took
    row["bad"] = row["errors"] + row["not_200"]
    if scenario.stream and not scenario.rate:
        row["offered_percent"] = row["chunks_per_s"] / (scenario.connections * 1e6 / scenario.delay_us) * 100
    return row


def run_scenario(
    scenario: Scenario, names: list[str], rounds: int, seconds: float, progress: Progress
) -> dict[str, list[table.Row]]:
    """Every target in turn, several rounds."""
    results: dict[str, list[table.Row]] = {name: [] for name in names}
    task = progress.add_task(scenario.title, total=rounds * len(names))
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
        spawner = Spawner(Path(folder))
        Path(folder).chmod(0o755)
        try:
            upstream, upstream_pid = start_upstream(spawner, chunks=scenario.chunks, delay_us=scenario.delay_us)
            wait_listening(upstream)
            targets = []
            for name in names:
                target = mesh.start(spawner, upstream) if name == mesh.NAME else PEERS[name](spawner, upstream)
                wait_listening(target.port)
                targets.append(target)
            for _ in range(rounds):
                for target in targets:
                    progress.update(task, description=f"{scenario.title}: {target.name}")
                    results[target.name].append(load(target, scenario, seconds, upstream_pid))
                    progress.advance(task)
        except NotListening:
            progress.console.print(spawner.last_words(), style="red")
            raise
        finally:
            spawner.stop()
    return results


def add_ttft(results: dict[str, list[table.Row]]) -> None:
    """Added time to first token: a round's own minus the same round's without any gateway."""
    for rows in results.values():
        for row, bare in zip(rows, results["direct"], strict=True):
            for p in ("p50", "p99"):
                row[f"added_ttft_{p}_ms"] = max(0.0, row[f"ttft_{p}_ms"] - bare[f"ttft_{p}_ms"])


COLUMNS = {
    "c64": {
        "rps": "requests/s",
        "cpu_us_per_request": "CPU µs/request",
        "latency_p50_ms": "p50 ms",
        "latency_p99_ms": "p99 ms",
        "rss_mib": "RSS MiB",
    },
    "ttft": {
        "ttft_p50_ms": "TTFT p50 ms",
        "ttft_p99_ms": "p99 ms",
        "added_ttft_p50_ms": "added p50 ms",
        "added_ttft_p99_ms": "added p99 ms",
    },
}
STREAM_COLUMNS = {
    "chunks_per_s": "chunks/s",
    "offered_percent": "% of offered",
    "cpu_us_per_chunk": "CPU µs/chunk",
    "chunk_p50_ms": "chunk p50 ms",
    "chunk_p99_ms": "chunk p99 ms",
}
RATIO = {"c64": "rps", "ttft": "ttft_p50_ms"}


def report(console: Console, scenario: Scenario, results: dict[str, list[table.Row]]) -> None:
    """Print one scenario's table."""
    columns = COLUMNS.get(scenario.name, STREAM_COLUMNS) | {"bad": "bad", "others": "others"}
    ratio = RATIO.get(scenario.name, "cpu_us_per_chunk")
    peers = [peer for peer in ("nginx", "ssh -R", "vllm-router", "sglang-router") if peer in results]
    title = f"{scenario.title} (ratios of {columns[ratio]})"
    table.show(console, title, results, columns, ratio=(ratio, peers))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument(
        "--only", action="append", choices=[s.name for s in SCENARIOS], help="scenario (repeatable)"
    )
    parser.add_argument("--through", action="append", choices=[mesh.NAME, *PEERS], help="target (repeatable)")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    build(console)
    names = args.through or [mesh.NAME, *PEERS]
    if "direct" not in names:
        names.append("direct")
    everything: dict[str, dict[str, list[table.Row]]] = {}
    with Progress(console=console, transient=True) as progress:
        for scenario in SCENARIOS:
            if args.only and scenario.name not in args.only:
                continue
            results = run_scenario(scenario, names, args.rounds, args.seconds, progress)
            if scenario.name == "ttft":
                add_ttft(results)
            report(progress.console, scenario, results)
            everything[scenario.name] = results
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    path = HERE / "results" / f"{stamp}.json"
    path.parent.mkdir(exist_ok=True)
    about = {
        "at": stamp,
        "argv": sys.argv[1:],
        "python": platform.python_version(),
        "machine": platform.processor(),
    }
    path.write_text(json.dumps({"about": about, "results": everything}, indent=1))
    console.print(f"all figures: {path.relative_to(HERE.parent)}", style="dim")
    return 0


if __name__ == "__main__":
    sys.exit(main())
