"""Which agent this is: version, build date, and the checksum of the artefact that runs.

``.ci/agent_version.py`` reads and bumps the two constants below.
"""

import functools
import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

AGENT_VERSION = "0.2.0"
AGENT_BUILD_DATE = "2026-11-25"

PACKAGES = ("mesh", "node_agent", "pki")
"""What an installed agent consists of; a checksum of a source tree is over these, and nothing else."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """The agent's own build, as the running artefact measures itself."""

    version: str
    build_date: str
    checksum: str


def agent_info() -> AgentInfo:
    """This agent. The checksum is measured once per process."""
    return AgentInfo(AGENT_VERSION, AGENT_BUILD_DATE, _get_agent_checksum())


@functools.cache
def _get_agent_checksum() -> str:
    """SHA-256 (lower-case hex) of the running artefact.

    Shipped as one file (an executable, or a zip that Python runs), it is that file's SHA-256, the number that
    ``sha256sum`` prints. Installed as a source tree, it is the SHA-256 over one line ``<path>\\0<sha256>\\n`` for
    every ``.py`` file of PACKAGES, sorted by path (``node_agent/agent.py``), wherever the packages lie.
    """
    artefact = _single_file()
    if artefact is not None:
        return _sha256(artefact)
    return tree_checksum({package: _folder_of(package) for package in PACKAGES})


def tree_checksum(folders: dict[str, Path]) -> str:
    """The checksum of packages given as name → folder; only names and contents count, not where they lie."""
    lines = sorted(
        f"{package}/{path.relative_to(folder).as_posix()}\0{_sha256(path)}\n"
        for package, folder in folders.items()
        for path in folder.rglob("*.py")
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _single_file() -> Path | None:
    if getattr(sys, "frozen", False):
        return Path(sys.executable)
    archive = getattr(__spec__.loader, "archive", None)  # a zipimporter knows the file it reads from
    return Path(archive) if archive else None


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
