"""The agent's version: read, raised, and demanded when the agent changed."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agent_version", ROOT / ".ci" / "agent_version.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commit(root: Path, text: str) -> None:
    subprocess.run(["git", "-C", root, "add", "-A"], check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", root, *identity, "commit", "-qm", text], check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "node_agent").mkdir()
    (tmp_path / "node_agent/agent.py").write_text('AGENT_VERSION = "1.2.3"\nAGENT_BUILD_DATE = "2026-01-03"\n')
    (tmp_path / "node_agent/loop.py").write_text("a = 1\n")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    commit(tmp_path, "first")
    return tmp_path


def test_get_prints_version_and_date(
    tool: ModuleType, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["get"], repository) == 0
    assert capsys.readouterr().out == "1.2.3 2026-01-03\n"


def test_bump_writes_both_constants(tool: ModuleType, repository: Path) -> None:
    assert tool.main(["bump", "1.3.0", "--build-date", "2026-02-01"], repository) == 0
    assert tool.get(repository) == "1.3.0 2026-02-01"
    assert tool.bump(repository, None, "2026-02-02") == "1.3.1"


@pytest.mark.parametrize(("version", "day"), [("1.2", "2026-01-01"), ("1.2.3", "2026-01-01"), ("2.0.0", "soon")])
def test_a_bump_that_makes_no_sense_is_refused(tool: ModuleType, repository: Path, version: str, day: str) -> None:
    with pytest.raises(SystemExit, match="must be"):
        tool.bump(repository, version, day)


def test_check_wants_a_new_version_when_the_agent_changed(
    tool: ModuleType, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "node_agent/loop.py").write_text("a = 2\n")
    assert tool.main(["check", "--base", "HEAD"], repository) == 1
    assert "uncommitted" in capsys.readouterr().err
    commit(repository, "change")
    assert tool.main(["check"], repository) == 1
    assert "AGENT_VERSION is still 1.2.3" in capsys.readouterr().err
    tool.bump(repository, None, "2026-02-02")
    commit(repository, "bump")
    assert tool.main(["check", "--base", "HEAD~2"], repository) == 0


def test_check_is_content_when_only_others_changed(tool: ModuleType, repository: Path) -> None:
    (repository / "README.md").write_text("hello\n")
    commit(repository, "words")
    assert tool.main(["check"], repository) == 0
