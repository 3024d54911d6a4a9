"""Rules of this house that no linter knows."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("control_plane", "gateway", "node_agent", "pki", "proto/mesh", "tests", "bench", ".ci")
SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py" and "_pb2" not in path.name
)
PRODUCT = [path for path in SOURCES if path.parts[0] not in ("tests", "bench", ".ci")]
SPAWNERS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}
# The one reader of time; logging stamps its own records; a chat client times what it shows.
READS_TIME = {Path("proto/mesh/kit/clock.py"), Path("proto/mesh/kit/logs.py")}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    source = (ROOT / path).read_text()
    assert source.count("\n") <= 400, "split it by reason to change"
    assert ast.get_docstring(ast.parse(source)), "open with one line: what is this file for?"


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_tasks_have_parents_and_time_is_an_argument(path: Path) -> None:
    for call in calls(path):
        if not isinstance(call.func, ast.Attribute):
            continue
        owner, name = ast.unparse(call.func.value), call.func.attr
        assert not (owner == "asyncio" and name in SPAWNERS), f"line {call.lineno}: only a TaskGroup starts tasks"
        if path not in READS_TIME and "ctl" not in path.parts:
            assert (owner, name) not in {
                ("time", "time"),
                ("time", "monotonic"),
                ("datetime", "now"),
                ("asyncio", "sleep"),
            } or ast.unparse(call) == "asyncio.sleep(0)", f"line {call.lineno}: time comes from the clock"


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_queues_are_bounded(path: Path) -> None:
    for call in calls(path):
        if ast.unparse(call.func) in ("asyncio.Queue", "queue.Queue"):
            assert call.args or call.keywords, f"line {call.lineno}: every queue has a bound"


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_the_environment_is_read_in_main_only(path: Path) -> None:
    if path.name != "__main__.py":
        assert "os.environ" not in (ROOT / path).read_text()


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_everything_is_caught_only_at_an_edge_that_says_so(path: Path) -> None:
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if line.strip().startswith(("except Exception", "except BaseException", "except:")):
            assert "# edge" in line, f"line {number}: catch what you expect"


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_what_several_failures_come_to_is_raised_outside(path: Path) -> None:
    # Before 3.11.4 (Debian 12 has 3.11.2), what is raised inside `except*` is wrapped into a group again.
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        for handler in node.handlers if isinstance(node, ast.TryStar) else ():
            assert all(isinstance(line, ast.Assign | ast.Pass) for line in handler.body), f"line {handler.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_mocks_and_no_slow_client_on_the_data_path(path: Path) -> None:
    source = (ROOT / path).read_text()
    assert "unittest." + "mock" not in source
    assert "import ht" + "tpx" not in source


def test_the_kit_stays_small() -> None:
    kit = [path for path in PRODUCT if path.parts[:3] == ("proto", "mesh", "kit")]
    assert len(kit) < 10
    assert all((ROOT / path).read_text().count("\n") <= 150 for path in kit)


def test_every_folder_of_code_has_an_empty_init() -> None:
    for init in (path for folder in FOLDERS for path in (ROOT / folder).rglob("__init__.py")):
        assert init.stat().st_size == 0, init


@pytest.mark.parametrize("folder", ["control_plane", "gateway", "node_agent", "pki", "proto", "tests", "bench"])
def test_every_top_folder_has_its_page(folder: str) -> None:
    assert (ROOT / folder / "README.md").exists()
