"""Files are whole and private."""

import os
import stat
from pathlib import Path

import pytest

from pki.files import make_private_dir, write_atomic, write_private


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def open_umask() -> object:
    """The widest umask, so that a private mode cannot come from it."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_private_file_is_only_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"one")
    assert (path.read_bytes(), _mode(path)) == (b"one", 0o600)


def test_replacing_a_wide_file_makes_it_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), _mode(path)) == (b"new", 0o600)


def test_a_file_is_replaced_in_one_step_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new and longer")
        assert reader.read() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    assert _mode(path) == 0o644


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    (tmp_path / "key").symlink_to(target)
    write_private(tmp_path / "key", b"secret")
    assert target.read_bytes() == b"untouched"
    assert not (tmp_path / "key").is_symlink()


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "inside").write_bytes(b"")
    with pytest.raises(OSError, match="taken"):
        write_atomic(folder, b"x")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_private_folder_is_only_its_owners(tmp_path: Path) -> None:
    make_private_dir(tmp_path / "a/b")
    assert _mode(tmp_path / "a") == _mode(tmp_path / "a/b") == 0o700
    make_private_dir(tmp_path / "a/b")


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    make_private_dir(folder)
    assert _mode(folder) == 0o755
