"""The engine process, as far as it goes without a model: its exit codes and its last words."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from node_agent.engines.llamacpp import SCRIPT


async def run(*arguments: str) -> tuple[int | None, str]:
    """Its exit code and last line."""
    # Without site-packages: there is no xllamacpp then, and nothing of this project either.
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-P", str(SCRIPT), *arguments), stderr=asyncio.subprocess.PIPE
    )
    _, said = await child.communicate()
    return child.returncode, said.decode().splitlines()[-1]


async def test_a_taken_port_ends_it_with_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = await run("--model", str(tmp_path), "--alias", "m", "--port", str(port))
    assert (code, line) == (3, f"cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("port", ["-1", "65536"])
async def test_a_port_that_is_none_ends_it_with_3(tmp_path: Path, port: str) -> None:
    code, line = await run("--model", str(tmp_path), "--alias", "m", f"--port={port}")
    assert (code, line) == (3, f"cannot listen on 127.0.0.1:{port}: bind(): port must be 0-65535.")


async def test_a_missing_model_ends_it_with_4() -> None:
    code, line = await run("--model", "/no/such.gguf", "--alias", "m", "--port", "0")
    assert (code, line) == (4, "cannot load the model: no file /no/such.gguf")


async def test_a_missing_package_ends_it_with_5(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    code, line = await run("--model", str(tmp_path / "m.gguf"), "--alias", "m", "--port", "0")
    assert code == 5
    assert line.endswith("install it beside the agent: pip install xllamacpp")


async def test_a_missing_library_of_the_system_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    complaint = "libgomp.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "xllamacpp.py").write_text(f"raise ImportError({complaint!r})")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", str(SCRIPT), "--model", str(tmp_path / "m.gguf"), "--alias", "m", "--port", "0"),
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(tmp_path)},
    )
    _, said = await child.communicate()
    assert child.returncode == 5
    assert said.decode().splitlines()[-1] == f"cannot load xllamacpp: {complaint}; apt-get install libgomp1"


@pytest.mark.parametrize("arguments", [(), ("--model", "m", "--alias", "m", "--port", "many")])
async def test_bad_arguments_end_it_with_2(arguments: tuple[str, ...]) -> None:
    code, line = await run(*arguments)
    assert code == 2
    assert "error:" in line


def test_it_needs_nothing_of_this_project() -> None:
    source = SCRIPT.read_text()
    assert "import grpc" not in source
    assert "from mesh" not in source
    assert "from node_agent" not in source
