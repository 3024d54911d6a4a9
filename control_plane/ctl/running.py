"""The mesh that `meshctl up` runs on this machine, as its other commands find it: ``<state>/meshctl.json``.

The file exists while that mesh runs. It names files that hold secrets and never holds one itself.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control_plane.ctl.errors import BadInput
from pki.files import write_atomic

FILE_NAME = "meshctl.json"
ROOT_STATE = Path("/var/lib/inventiv-mesh/up")


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """Where its admin API and its OpenAI endpoint are, and what opens them."""

    endpoint: str
    """host:port of the admin listener."""
    identity: str
    """Folder with tls.crt, tls.key and trust-bundle.pem of an operator."""
    server_name: str
    """The DNS name in the control plane's certificate."""
    base_url: str
    """The OpenAI endpoint, up to and including /v1."""
    api_key_file: str
    model: str
    """What the demo deployed; what `meshctl chat` asks when no other model is named."""


def default_state(environ: Mapping[str, str]) -> Path:
    """Where `meshctl up` keeps its state unless told otherwise."""
    if os.getuid() == 0:
        return ROOT_STATE
    base = environ.get("XDG_STATE_HOME") or ""
    folder = Path(base) if base.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".local/state"
    return folder / "inventiv-mesh" / "up"


def write(state: Path, mesh: RunningMesh) -> None:
    """Let the other commands find this mesh."""
    text = json.dumps(dataclasses.asdict(mesh), indent=2) + "\n"
    write_atomic(state / FILE_NAME, text.encode(), mode=0o600)


def read(state: Path) -> RunningMesh | None:
    """The mesh running on that state folder, or None when there is none."""
    path = state / FILE_NAME
    try:
        row = json.loads(path.read_text())
        return RunningMesh(**{field.name: str(row[field.name]) for field in dataclasses.fields(RunningMesh)})
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise BadInput("--state", f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise BadInput("--state", f"{path} is not what `meshctl up` writes; start that again") from exc


def forget(state: Path) -> None:
    """The mesh on that state folder no longer runs."""
    (state / FILE_NAME).unlink(missing_ok=True)
