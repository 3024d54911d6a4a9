"""Settings: complete, typed, and every problem at once."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from mesh.kit.settings import Address, BadSettings, Secret, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    database_url: str
    heartbeat_grace: timedelta = timedelta(seconds=30)
    listen: Address = Address("127.0.0.1", 1)
    token: Secret | None = None
    verbose: bool = False


def test_reports_every_problem_at_once() -> None:
    with pytest.raises(BadSettings) as caught:
        load(Example, {"CP_HEARTBEAT_GRACE": "soon", "CP_HARTBEAT": "3", "CP_LISTEN": "nowhere"}, prefix="CP_")
    assert caught.value.problems == [
        "CP_DATABASE_URL: required",
        "CP_HEARTBEAT_GRACE: not a valid timedelta",
        "CP_LISTEN: not a valid address",
        "CP_HARTBEAT: unknown",
    ]


def test_reads_typed_values_and_leaves_other_variables_alone() -> None:
    env = {
        "CP_DATABASE_URL": "x",
        "CP_HEARTBEAT_GRACE": "2m",
        "CP_LISTEN": "[::1]:80",
        "CP_VERBOSE": "yes",
        "HOME": "/",
    }
    assert load(Example, env, prefix="CP_") == Example(
        database_url="x", heartbeat_grace=timedelta(minutes=2), listen=Address("::1", 80), verbose=True
    )


def test_a_secret_comes_from_a_file_and_is_never_printed(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("hush\n")
    settings = load(Example, {"CP_DATABASE_URL": "x", "CP_TOKEN_FILE": str(tmp_path / "t")}, prefix="CP_")
    assert settings.token is not None
    assert settings.token.reveal() == "hush"
    assert "hush" not in repr(settings)


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as caught:
        load(Example, {"CP_DATABASE_URL": "x", "CP_TOKEN_FILE": str(tmp_path / "no")}, prefix="CP_")
    assert caught.value.problems == [f"CP_TOKEN_FILE: No such file or directory: {tmp_path / 'no'}"]
