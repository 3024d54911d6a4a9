"""Which agent this is."""

import hashlib
import re
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from node_agent.agent import AGENT_BUILD_DATE, AGENT_VERSION, agent_info, tree_checksum
from node_agent.settings import Settings, is_loopback

ROOT = Path(__file__).resolve().parents[3]


def test_version_and_date_are_constants() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", AGENT_VERSION)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", AGENT_BUILD_DATE)
    info = agent_info()
    assert (info.version, info.build_date) == (AGENT_VERSION, AGENT_BUILD_DATE)


def test_the_checksum_of_a_tree_follows_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    def tree(where: str, files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / where / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tree_checksum({"agent": tmp_path / where})

    files = {"a.py": "1", "sub/b.py": "2"}
    one = tree("here", files)
    assert tree("there", {**files, "notes.txt": "x", "a.pyc": "y"}) == one
    assert tree("changed", {**files, "a.py": "3"}) != one
    assert tree("renamed", {"c.py": "1", "sub/b.py": "2"}) != one
    assert tree("more", {**files, "c.py": ""}) != one
    line = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    text = f"agent/a.py\0{line['a.py']}\nagent/sub/b.py\0{line['sub/b.py']}\n"
    assert one == hashlib.sha256(text.encode()).hexdigest()


def test_the_running_tree_is_measured_over_the_three_packages() -> None:
    folders = {"mesh": ROOT / "proto/mesh", "node_agent": ROOT / "node_agent", "pki": ROOT / "pki"}
    assert re.fullmatch(r"[0-9a-f]{64}", agent_info().checksum)
    assert tree_checksum(folders) != tree_checksum({**folders, "pki": ROOT / "gateway"})


def test_of_an_agent_shipped_as_one_file_the_checksum_is_that_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "node_agent").mkdir(parents=True)
    for name in ("__init__.py", "agent.py"):
        (source / "node_agent" / name).write_text((ROOT / "node_agent" / name).read_text())
    artefact = tmp_path / "mesh-agent.pyz"
    (source / "__main__.py").write_text("from node_agent.agent import agent_info\nprint(agent_info().checksum)\n")
    zipapp.create_archive(source, artefact)
    ran = subprocess.run([sys.executable, "-I", str(artefact)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == hashlib.sha256(artefact.read_bytes()).hexdigest()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_where_nobody_else_gets(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", ""])
def test_anything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_settings_name_every_value_outside_its_bounds() -> None:
    from mesh.kit.settings import BadSettings, load  # noqa: PLC0415 - only this test needs them

    with pytest.raises(BadSettings) as caught:
        load(
            Settings,
            {
                "MESH_AGENT_STATE_DIR": "/tmp/x",
                "MESH_AGENT_HTTP_LISTEN": "0.0.0.0:7460",
                "MESH_AGENT_MAX_REQUESTS": "0",
                "MESH_AGENT_LOG_LEVEL": "loud",
            },
            prefix="MESH_AGENT_",
        )
    text = "\n".join(caught.value.problems)
    for name in ("HTTP_LISTEN", "MAX_REQUESTS", "LOG_LEVEL"):
        assert f"MESH_AGENT_{name}" in text
