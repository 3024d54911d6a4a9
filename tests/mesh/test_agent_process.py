"""The agent as its owner meets it: a command, its words, its exit codes."""

import asyncio
import hashlib
import io
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node_agent.__main__ import main
from node_agent.agent import AGENT_BUILD_DATE, AGENT_VERSION, agent_info
from node_agent.disk import Disk
from pki.names import Kind
from tests.fakes.node_service import enrolled, plane
from tests.fakes.pki import Mesh
from tests.fakes.upstream import until
from tests.unit.node_agent_control.test_enroll import NODE, TOKEN, enroller

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0  # for a Python process on a busy machine


@dataclass(slots=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass(slots=True)
class Command:
    """``mesh-agent`` on one state folder."""

    state: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    async def start(self, *args: str) -> asyncio.subprocess.Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "node_agent",
            *args,
            cwd=ROOT,
            env={
                **clean,
                "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
                "MESH_AGENT_STATE_DIR": str(self.state),
                "MESH_AGENT_HTTP_LISTEN": "127.0.0.1:0",
                **self.environment,
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *args: str, stdin: str = "") -> Ended:
        process = await self.start(*args)
        async with asyncio.timeout(START_S):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The agent while it runs, once it says where it listens; killed at the end if a test has not."""
        process = await self.start("run")
        assert process.stderr is not None
        try:
            async with asyncio.timeout(START_S):
                while b'"listening"' not in (line := await process.stderr.readline()):
                    assert line, "the agent ended"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    def address(self) -> str:
        address: str = json.loads((self.state / "listening.json").read_text())["http"]
        return address


async def get(address: str, path: str) -> Any:
    def ask() -> Any:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=START_S) as answer:
            return json.load(answer)

    return await asyncio.to_thread(ask)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "state")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


async def test_version_and_checksum_need_no_settings(tmp_path: Path) -> None:
    bare = Command(tmp_path, {"MESH_AGENT_HTTP_LISTEN": "nonsense"})
    version, checksum = await asyncio.gather(bare("version"), bare("checksum"))
    assert (version.code, version.out) == (0, f"{AGENT_VERSION} {AGENT_BUILD_DATE}\n")
    assert (checksum.code, checksum.out) == (0, agent_info().checksum + "\n")


async def test_a_node_joins_runs_and_stops(command: Command, mesh: Mesh) -> None:
    async with enroller(mesh) as joiner, plane(mesh) as server:
        joiner.service.change = {"node_endpoint": server.address}
        join = ("enroll", "--control-plane", joiner.address, "--ca-pin", mesh.pin)
        joined = await command(*join, stdin=TOKEN + "\n")
        assert (joined.code, joined.err) == (0, "")
        assert NODE in joined.out
        again = await command(*join, stdin=TOKEN)
        assert again.code == 0
        assert f"already enrolled as node {NODE}" in again.out
        assert len(joiner.service.asked) == 1

        async with command.running() as process:
            talk = await server.next()
            assert talk.node.endswith(NODE)
            hello = await talk.hello()
            assert hello.agent_info.checksum == agent_info().checksum
            assert hello.hardware.cpu_count > 0
            await talk.welcome(epoch=3)
            assert (await talk.report()).agent_info.version == AGENT_VERSION
            await talk.desire(1)
            while (report := await talk.report()).applied_revision != 1:
                pass
            info = await get(command.address(), "/info")
            assert (info["node_id"], info["connected"], info["checksum"]) == (NODE, True, agent_info().checksum)
            status = await command("status")
            assert status.code == 0
            assert f"node           {NODE}" in status.out
            assert "control plane  connected" in status.out
            assert json.loads((await command("status", "--json")).out)["applied_revision"] == 1

            other = await command("run")
            assert other.code == 2
            assert other.err.strip().splitlines()[-1] == (
                f"mesh-agent: another agent (pid {process.pid}) runs on {command.state}; stop it first"
            )
            assert (await command("stop-engines")).code == 2

            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(START_S):
                assert await process.wait() == 0
        assert not (command.state / "listening.json").exists()
        assert (Disk(command.state).epoch(), report.applied_revision) == (3, 1)
        gone = await command("status")
        assert gone.code == 1
        assert "start it with: mesh-agent run" in gone.err
        stopped = await command("stop-engines")
        assert (stopped.code, stopped.out) == (0, "0 engines stopped\n")


async def test_a_killed_agent_leaves_a_folder_that_the_next_one_takes(command: Command, mesh: Mesh) -> None:
    async with plane(mesh) as server:
        enrolled(command.state, mesh, server.address)
        async with command.running() as process:
            (await server.next()).over.set()
            process.kill()
            await process.wait()
        async with command.running():
            (await server.next()).over.set()


async def test_the_state_folder_and_what_is_in_it_are_private(command: Command, mesh: Mesh) -> None:
    async with enroller(mesh) as joiner:
        token = command.state.parent / "token"
        token.write_text(TOKEN)
        joined = await command(
            "enroll", "--control-plane", joiner.address, "--ca-pin", mesh.pin, "--token-file", str(token)
        )
        assert joined.code == 0
    for path in (command.state, *command.state.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "holds no identity; join first with: mesh-agent enroll"),
        ({"MESH_AGENT_HTTP_LISTEN": "0.0.0.0:0"}, "MESH_AGENT_HTTP_LISTEN: must be a loopback address"),
    ],
)
async def test_an_agent_that_cannot_start_says_why(
    command: Command, environment: dict[str, str], words: str
) -> None:
    ended = await Command(command.state, environment)("run")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert words in ended.err


PIN = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("args", "stdin", "words"),
    [
        (["--control-plane", "h:1", "--ca-pin", "sha256:12"], TOKEN, "--ca-pin: not of the form"),
        (["--control-plane", "h", "--ca-pin", PIN], TOKEN, "--control-plane: must be"),
        (["--control-plane", "h:1", "--ca-pin", PIN], "x", "token: not of the form"),
        (["--control-plane", "h:1", "--ca-pin", PIN], "", "no token"),
        (["--control-plane", "h:1", "--ca-pin", PIN, "--token-file", "/nowhere"], "", "no such file or directory"),
        (["--control-plane", "h:1", "--ca-pin", PIN, "--token-file", "/"], "", "is a directory"),
    ],
    ids=["pin", "address", "token", "no token", "no file", "folder"],  # workers must agree, and tokens are random
)
def test_bad_input_is_one_clear_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    stdin: str,
    words: str,
) -> None:
    monkeypatch.setenv("MESH_AGENT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    assert main(["enroll", *args]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert TOKEN not in said.err


def test_a_mistyped_setting_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_AGENT_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("MESH_AGENT_MODEL_DIR", "/models")
    assert main(["status"]) == 2
    assert "MESH_AGENT_MODEL_DIR: unknown" in capsys.readouterr().err


@pytest.mark.parametrize("args", [[], ["dance"], ["enroll"], ["run", "--token", "secret"]])
def test_an_unknown_command_line_is_refused_with_usage(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    assert "usage: mesh-agent" in capsys.readouterr().err


async def test_a_port_in_use_is_one_clear_line(command: Command, mesh: Mesh) -> None:
    enrolled(command.state, mesh)
    holder = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with holder:
        taken = f"127.0.0.1:{holder.sockets[0].getsockname()[1]}"
        ended = await Command(command.state, {"MESH_AGENT_HTTP_LISTEN": taken})("run")
    assert ended.code == 2
    assert f"cannot listen on {taken}" in ended.err
    assert "Traceback" not in ended.err


async def test_a_refused_token_is_one_clear_line_and_exit_code_1(command: Command, mesh: Mesh) -> None:
    async with enroller(mesh) as joiner:
        wrong = "sha256:" + hashlib.sha256(b"another root").hexdigest()
        ended = await command("enroll", "--control-plane", joiner.address, "--ca-pin", wrong, stdin=TOKEN)
    assert ended.code == 1
    assert "is not the control plane you pinned" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


async def test_an_identity_that_does_not_fit_together_is_told(command: Command, mesh: Mesh) -> None:
    disk = enrolled(command.state, mesh)
    (disk.identity_dir / "tls.key").write_bytes(mesh.files(Kind.NODE, "n-2").key_pem)
    async with command.running():
        await until(lambda: (command.state / "listening.json").exists())
        info = await get(command.address(), "/info")
        while not info["trouble"]:
            info = await get(command.address(), "/info")
        assert "the key is not the certificate's" in info["trouble"]
        assert "not connected" in (await command("status")).out
