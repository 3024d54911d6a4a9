"""What survives a restart, and a crash at the wrong moment."""

import os
from pathlib import Path

import pytest

from mesh.kit.errors import InvalidInput
from node_agent.disk import Disk, NodeIdentity, NotEnrolled, StateInUse
from tests.unit.node_agent_control.test_desired import STATE

ME = NodeIdentity(
    node_id="n-1",
    trust_domain="mesh.local",
    node_endpoint="127.0.0.1:7441",
    server_name="control-plane.mesh.local",
)


def join(disk: Disk, identity: NodeIdentity = ME, key: bytes = b"key") -> None:
    disk.keep_joining_key(key)
    disk.keep_identity(identity, chain_pem="chain", trust_bundle_pem="bundle")


def test_a_new_folder_knows_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    with pytest.raises(NotEnrolled, match="mesh-agent enroll"):
        disk.identity()
    assert disk.desired() is None
    assert disk.epoch() == 0
    assert disk.joining_key() is None


def test_an_identity_is_private_and_complete(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    join(disk)
    assert disk.identity() == ME
    assert disk.joining_key() is None
    assert {path.name: path.read_text() for path in disk.identity_dir.iterdir() if path.suffix != ".json"} == {
        "tls.key": "key",
        "tls.crt": "chain",
        "trust-bundle.pem": "bundle",
    }
    for path in (tmp_path / "state", disk.identity_dir, *disk.identity_dir.iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_join_that_was_not_answered_keeps_its_key(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.keep_joining_key(b"key")
    assert Disk(tmp_path).joining_key() == b"key"
    with pytest.raises(NotEnrolled):
        disk.identity()


def test_joining_anew_replaces_the_identity_and_what_belonged_to_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    join(disk)
    disk.keep_desired(STATE)
    disk.keep_epoch(5)
    other = NodeIdentity(node_id="n-2", trust_domain="t", node_endpoint="h:1", server_name="s")
    disk.keep_joining_key(b"key 2")
    assert disk.identity() == ME  # until the answer is there
    disk.keep_identity(other, chain_pem="chain 2", trust_bundle_pem="bundle 2")
    assert disk.identity() == other
    assert (disk.identity_dir / "tls.key").read_text() == "key 2"
    assert disk.desired() is None
    assert disk.epoch() == 0
    assert not (tmp_path / "identity.old").exists()


@pytest.mark.parametrize(
    "crash", ["before the old one moved", "before the new one moved", "before the old one went"]
)
def test_a_crash_while_the_identity_is_replaced_is_finished_later(tmp_path: Path, crash: str) -> None:
    disk = Disk(tmp_path)
    join(disk)
    join(
        Disk(tmp_path / "made"),
        NodeIdentity(node_id="n-2", trust_domain="t", node_endpoint="h", server_name="s"),
        b"2",
    )
    disk.keep_desired(STATE)
    match crash:
        case "before the old one moved":
            (tmp_path / "made/identity").rename(tmp_path / "identity.new")
        case "before the new one moved":
            (tmp_path / "identity").rename(tmp_path / "identity.old")
            (tmp_path / "made/identity").rename(tmp_path / "identity.new")
        case _:
            (tmp_path / "identity").rename(tmp_path / "identity.old")
            (tmp_path / "made/identity").rename(tmp_path / "identity")
            (tmp_path / "desired.json").unlink()
    assert Disk(tmp_path).identity().node_id == "n-2"
    assert (disk.identity_dir / "tls.key").read_bytes() == b"2"
    assert disk.desired() is None
    assert not (tmp_path / "identity.old").exists()


def test_a_damaged_identity_says_what_to_do(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    join(disk)
    for text in ("{", "[]", '{"node_id": "n"}'):
        (disk.identity_dir / "identity.json").write_text(text)
        with pytest.raises(InvalidInput, match="--force"):
            disk.identity()


def test_desired_state_and_epoch_are_remembered(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.keep_desired(STATE)
    disk.keep_epoch(41)
    assert (Disk(tmp_path).desired(), Disk(tmp_path).epoch()) == (STATE, 41)


def test_what_cannot_be_read_is_unknown_and_not_empty(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (tmp_path / "desired.json").write_text("{")
    (tmp_path / "epoch").write_text("many")
    assert disk.desired() is None
    assert disk.epoch() == 0
    for damaged, epoch in (("-7", 0), (f"{2**64}", 2**63 - 1)):  # what no message could carry
        (tmp_path / "epoch").write_text(damaged)
        assert disk.epoch() == epoch


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    join(disk)
    disk.keep_desired(STATE)
    elsewhere = tmp_path / "gone"
    (tmp_path / "state").rename(elsewhere)
    with pytest.raises(OSError, match=r"."):
        disk.keep_desired(STATE)
    assert Disk(elsewhere).desired() == STATE
    assert not [path for path in elsewhere.iterdir() if path.name.startswith(".")]


def test_one_agent_per_folder(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    with disk.locked(), pytest.raises(StateInUse, match=f"pid {os.getpid()}"), Disk(tmp_path / "state").locked():
        raise AssertionError("two agents hold one folder")
    with disk.locked():
        pass  # free again
