"""meshctl route replay: recorded decisions, made again."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.ctl.commands import route
from mesh.routing.choose import choose
from mesh.routing.record import Record, to_row
from mesh.routing.values import Decision
from tests.unit.ctl.conftest import Meshctl
from tests.unit.routing.values import ask, candidate

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)


def lines(count: int = 6) -> list[str]:
    fleet = (candidate("w-a", outstanding=1), candidate("w-b"))
    rows = []
    for turn in range(count):
        decision = choose(fleet, ask(turn=turn))
        assert decision is not None
        rows.append(json.dumps(to_row(Record(AT, f"r-{turn}", "m", ask(turn=turn), fleet, decision))))
    return rows


def changed(line: str) -> str:
    return json.dumps({**json.loads(line), "decision": Decision("w-a", "prefix")._asdict()})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    path.write_text("\n".join(lines()) + "\n\n")
    return path


def test_decisions_that_come_out_as_recorded_end_with_0(bare: Meshctl, file: Path) -> None:
    done = bare("route", "replay", str(file))
    assert (done.code, done.lines) == (0, ["6 decisions, all the same"])
    assert "w-b" in done.out
    assert "100.0%" in done.out


def test_a_decision_that_differs_is_shown_and_ends_with_1(bare: Meshctl, file: Path) -> None:
    file.write_text("\n".join([*lines(), changed(lines()[0])]))
    done = bare("route", "replay", str(file))
    assert done.code == 1
    [line] = done.lines
    assert line.startswith("meshctl: 1 of 7 decisions differ")
    assert "w-a (prefix)" in done.out
    assert "w-b (least_load)" in done.out


def test_another_policy_is_shown_beside_what_was(bare: Meshctl, file: Path) -> None:
    done = bare("route", "replay", str(file), "--policy", "round_robin")
    assert (done.code, done.lines) == (0, ["6 of 6 decisions differ"])
    [row] = [line.split() for line in done.out.splitlines() if line.startswith("w-b")]
    assert row == ["w-b", "6", "100.0%", "3", "50.0%"]


def test_json_holds_the_counts_and_every_difference(bare: Meshctl, file: Path) -> None:
    file.write_text("\n".join([*lines(40), *(changed(line) for line in lines(40))]))
    done = bare("route", "replay", str(file), "--json")
    assert done.code == 1
    assert (done.json["decisions"], done.json["different"]) == (80, 40)
    assert done.json["workers"] == {
        "w-a": {"recorded": 40, "replayed": 0},
        "w-b": {"recorded": 40, "replayed": 80},
    }
    assert done.json["differences"][0] == {
        "request_id": "r-0",
        "model": "m",
        "recorded": {"worker_id": "w-a", "reason": "prefix"},
        "replayed": {"worker_id": "w-b", "reason": "least_load"},
    }
    person = bare("route", "replay", str(file))
    assert person.out.count("w-a (prefix)") == route.SHOWN


def test_decisions_come_from_standard_input_as_well(bare: Meshctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines()).encode())))
    done = bare("route", "replay", "-", "--json")
    assert (done.code, done.err, done.json["decisions"]) == (0, "", 6)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "FILE: no decisions in it"),
        (b"\n\n", "FILE: no decisions in it"),
        (b"\n{", "FILE: line 2 is not JSON"),
        (b"[" * 100_000, "FILE: line 1 is not JSON"),
        (b"[]", "FILE: line 1: the record: must be an object"),
        (lines()[0].replace("balanced", "best").encode(), "FILE: line 1: ask.policy: must be one of"),
        (lines()[0].replace('"slots": 4', '"slots": 0').encode(), "FILE: line 1: candidates[0].slots"),
        (b"\xff\xfe", "FILE: not text in UTF-8"),
        (b" " * (route.MAX_LINE + 5) + b"{}", "FILE: line 1 is longer than"),
    ],
    ids=range(9),
)
def test_what_is_no_record_is_one_line_that_says_where(
    bare: Meshctl, file: Path, text: bytes, problem: str
) -> None:
    file.write_bytes(text)
    refused = bare("route", "replay", str(file))
    assert (refused.code, refused.out) == (2, "")
    [line] = refused.lines
    assert problem in line


def test_a_file_that_cannot_be_read_is_named(bare: Meshctl, tmp_path: Path) -> None:
    refused = bare("route", "replay", str(tmp_path / "nowhere"))
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "nowhere: No such file" in refused.err
    assert bare("route", "replay", str(tmp_path)).code == 2
    assert bare("route", "replay").code == 2
    assert bare("route", "replay", "x", "--policy", "best").code == 2
