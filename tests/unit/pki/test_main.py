"""mesh-pki, as a person uses it."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pki.__main__ import main
from pki.bundle import load_certificates, parse_bundle, pin_of, pinned
from pki.names import Kind
from pki.tls import load_tls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert main(["init", "--dir", str(tmp_path / "pki")]) == 0
    return tmp_path / "pki"


def _issue(folder: Path, *more: str, kind: str = "gateway", name: str = "gw-1") -> int:
    return main(["issue", kind, "--id", name, "--dir", str(folder), "--out", str(folder.parent / "out"), *more])


def test_init_makes_everything_and_prints_the_pin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "state/pki"
    assert main(["init", "--dir", str(folder), "--trust-domain", "example.org"]) == 0
    shown = capsys.readouterr()
    (root,) = load_certificates((folder / "root.crt").read_bytes())
    assert shown.out == f"{pin_of(root)}\n"
    assert shown.err == ""
    assert sorted(path.name for path in folder.iterdir()) == [
        *("control-ca.crt", "control-ca.key", "node-ca.crt", "node-ca.key"),
        *("operator-ca.crt", "operator-ca.key", "root.crt", "root.key", "trust-bundle.pem", "trust-domain"),
    ]
    for path in folder.glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "trust-domain").read_text() == "example.org\n"
    assert (
        pinned(parse_bundle((folder / "trust-bundle.pem").read_bytes()), shown.out).trust_domain == "example.org"
    )


def test_init_refuses_to_touch_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    capsys.readouterr()
    assert main(["init", "--dir", str(folder)]) == 2
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"mesh-pki: {folder / 'root.crt'}: exists already, and is left as it is\n"


@pytest.mark.parametrize(("kind", "ttl"), [("control-plane", 24), ("gateway", 24), ("operator", 8)])
def test_issue_writes_a_usable_certificate(folder: Path, kind: str, ttl: int) -> None:
    assert _issue(folder, kind=kind) == 0
    files = load_tls(folder.parent / "out")
    assert (files.identity.kind, files.identity.id) == (Kind(kind), "gw-1")
    assert abs(files.not_after - datetime.now(UTC) - timedelta(hours=ttl)) < timedelta(minutes=1)
    assert files.trust_bundle_pem == (folder / "trust-bundle.pem").read_bytes()
    assert stat.S_IMODE((folder.parent / "out/tls.key").stat().st_mode) == 0o600


def test_issue_refuses_to_overwrite_unless_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _issue(folder) == 0
    before = (folder.parent / "out/tls.key").read_bytes()
    assert _issue(folder) == 2
    assert "exists already" in capsys.readouterr().err
    assert (folder.parent / "out/tls.key").read_bytes() == before
    assert _issue(folder, "--replace", "--ttl", "1h") == 0
    assert (folder.parent / "out/tls.key").read_bytes() != before
    load_tls(folder.parent / "out")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (("--ttl", "31d"), "at most 30 days"),
        (("--ttl", "0"), "more than nothing"),
        (("--ttl", "soon"), "not a duration"),
        (("--dns", "Not A Name"), "dns name"),
        (("--id", "GW"), "an id is"),
        (("--colour", "red"), "unrecognized"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], problem: str
) -> None:
    capsys.readouterr()
    assert _issue(folder, *more) == 2
    shown = capsys.readouterr()
    assert problem in shown.err
    assert shown.err.startswith("mesh-pki: ")
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert not (folder.parent / "out").exists()


def test_nodes_join_with_a_token_instead(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _issue(folder, kind="node") == 2
    assert "nodes join with a token" in capsys.readouterr().err


def test_a_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _issue(tmp_path / "nowhere") == 2
    assert capsys.readouterr().err == f"mesh-pki: {tmp_path}/nowhere/control-ca.crt: No such file or directory\n"


def test_inspect_says_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _issue(folder) == 0
    capsys.readouterr()
    assert main(["inspect", str(folder.parent / "out/tls.crt")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("spiffe://mesh.local/gateway/gw-1: valid, ")
    assert shown[3].startswith("CN=Inventiv Mesh control CA")
    assert main(["inspect", str(folder / "root.crt")]) == 0
    assert "pin sha256:" in capsys.readouterr().out


def test_keys_are_never_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder / "root.key")]) == 2
    shown = capsys.readouterr()
    assert shown.err == "mesh-pki: certificates: not PEM certificates\n"
    assert (folder / "root.key").read_text().splitlines()[1] not in shown.out + shown.err


def test_help_is_not_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "issue" in capsys.readouterr().out
