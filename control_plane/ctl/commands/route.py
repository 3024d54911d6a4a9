"""meshctl route: routing decisions that a gateway recorded, made once more on this machine."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from control_plane.ctl import output
from control_plane.ctl.errors import BadInput, CommandFailed
from control_plane.ctl.invocation import json_option
from mesh.kit.errors import InvalidInput
from mesh.routing.record import Record, Report, from_row, replay
from mesh.routing.values import POLICIES, Decision

MAX_LINE = 1024 * 1024  # characters of one decision: some thousand workers
SHOWN = 20  # differences that a person reads; --json gives all


@click.group()
def route() -> None:
    """Why requests went where they went."""


@route.command("replay")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--policy", type=click.Choice(POLICIES), help="What would another policy have done?")
@json_option
def replay_(file: Path, policy: str | None, as_json: bool) -> None:
    """Make the recorded decisions in FILE again: one JSON object a line, `-` for standard input.

    Without --policy every decision must come out as recorded; if one does not, the exit code is 1. With it, each
    is made on its own, by the load as it was recorded.
    """
    report = replay(_records(file), policy)
    if not report.decisions:
        raise BadInput("FILE", "no decisions in it")
    if as_json:
        print(json.dumps(_json(report), indent=2, ensure_ascii=False), flush=True)
    else:
        _show(report, policy)
    differ = f"{len(report.differences)} of {report.decisions} decisions differ"
    if report.differences and policy is None:
        raise CommandFailed(f"{differ}: they were made by another version, or the file was changed")
    if not as_json:
        output.say(differ if report.differences else f"{report.decisions} decisions, all the same")


def _records(file: Path) -> Iterator[Record]:
    try:
        with click.open_file(str(file), encoding="utf-8") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE + 1), ""), 1):
                if line.strip() or len(line) > MAX_LINE:
                    yield _record(line, number)
    except UnicodeDecodeError as exc:
        raise BadInput("FILE", "not text in UTF-8") from exc
    except OSError as exc:
        raise BadInput("FILE", f"cannot read {file}: {exc.strerror}") from exc


def _record(line: str, number: int) -> Record:
    if len(line) > MAX_LINE:
        raise BadInput("FILE", f"line {number} is longer than {MAX_LINE} characters")
    try:
        return from_row(json.loads(line))
    except InvalidInput as exc:
        raise BadInput("FILE", f"line {number}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise BadInput("FILE", f"line {number} is not JSON: one recorded decision a line") from exc


def _show(report: Report, policy: str | None) -> None:
    now = policy or "REPLAYED"
    for title, (recorded, replayed) in (("WORKER", report.workers), ("REASON", report.reasons)):
        output.show_table(
            (title, "RECORDED", "", now.upper(), ""), _shares(recorded, replayed, report.decisions), empty=""
        )
        print()
    if policy is None and report.differences:
        output.show_table(
            ("REQUEST", "MODEL", "RECORDED", now),
            (
                (one.request_id, one.model, _words(one.recorded), _words(one.replayed))
                for one in report.differences[:SHOWN]
            ),
            empty="",
        )


def _shares(recorded: Counter[str], replayed: Counter[str], all_of_them: int) -> Iterable[tuple[str, ...]]:
    for name in sorted({*recorded, *replayed}):
        one, other = recorded[name], replayed[name]
        yield name, str(one), f"{one / all_of_them:.1%}", str(other), f"{other / all_of_them:.1%}"


def _words(decision: Decision) -> str:
    return f"{decision.worker_id} ({decision.reason})"


def _json(report: Report) -> dict[str, object]:
    def both(counts: tuple[Counter[str], Counter[str]]) -> dict[str, dict[str, int]]:
        names = sorted({*counts[0], *counts[1]})
        return {name: {"recorded": counts[0][name], "replayed": counts[1][name]} for name in names}

    return {
        "decisions": report.decisions,
        "different": len(report.differences),
        "workers": both(report.workers),
        "reasons": both(report.reasons),
        "differences": [
            {
                "request_id": one.request_id,
                "model": one.model,
                "recorded": one.recorded._asdict(),
                "replayed": one.replayed._asdict(),
            }
            for one in report.differences
        ],
    }
