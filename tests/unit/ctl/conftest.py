"""meshctl in this process, against a control plane's double on a real connection."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.ctl import cli
from tests.unit.ctl.double import AdminDouble, make_identities


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()

    @property
    def json(self):
        return json.loads(self.out)


Meshctl = Callable[..., Result]


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identities")
    make_identities(folder)
    return folder


@pytest.fixture
def double(identities: Path) -> Iterator[AdminDouble]:
    server = AdminDouble(identities)
    yield server
    server.stop()


@pytest.fixture
def bare(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Meshctl:
    """Run a command with no mesh anywhere."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
        capsys.readouterr()
        code = cli.run(
            arguments, {"HOME": str(tmp_path), "MESHCTL_STATE": str(tmp_path / "up"), **(environ or {})}
        )
        said = capsys.readouterr()
        return Result(code, said.out, said.err)

    return run


@pytest.fixture
def meshctl(bare: Meshctl, double: AdminDouble, identities: Path) -> Meshctl:
    """Run a command against the double, as an operator."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
        where = {"MESHCTL_ENDPOINT": double.endpoint, "MESHCTL_IDENTITY": str(identities / "operator")}
        return bare(*arguments, environ={**where, **(environ or {})})

    return run
