"""The last thing `meshctl up` says: where the endpoint is and how to use it. Goes to stdout, to be pasted."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from control_plane.ctl import running
from control_plane.ctl.up.steps import ORGANIZATION, Mesh

PROMPT = "Write one sentence about the sea."


def curl(base_url: str, api_key: str, model: str) -> str:
    """A command that asks the model; pasting it streams an answer."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    return " \\\n    ".join(
        (
            f"curl -N {shlex.quote(f'{base_url}/chat/completions')}",
            f"-H {shlex.quote(f'Authorization: Bearer {api_key}')}",
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body, separators=(',', ':')))}",
        )
    )


def meshctl(environ: Mapping[str, str], prefix: Path, here: Path) -> str:
    """What to type for ``meshctl``: its path, when it is in a virtual environment that is not activated."""
    ours = prefix / "bin"
    # `make` puts the folder on the path of what it runs, not on that of the shell it was typed in.
    others = [folder for folder in environ.get("PATH", "").split(os.pathsep) if Path(folder) != ours]
    if environ.get("VIRTUAL_ENV") == str(prefix) or shutil.which("meshctl", path=os.pathsep.join(others)):
        return "meshctl"
    path = ours / "meshctl"
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def how_to_use(mesh: Mesh) -> None:
    """Endpoint, key, a command to paste, and where to look further."""
    layout, environ = mesh.plan.layout, mesh.plan.environ
    usual = layout.root == running.default_state(environ)
    command = meshctl(environ, Path(sys.prefix), Path.cwd())
    if not usual:
        command += f" --state {shlex.quote(str(layout.root))}"
    opened = mesh.plan.reach.advertised
    lines = (
        "",
        "The mesh is up.",
        "",
        f"  endpoint  {mesh.base_url}",
        f"  key       {mesh.api_key}",
        f"  model     {mesh.model.name}",
        f"  logs      {layout.logs}",
        "",
        "Ask it:",
        "",
        f"  {curl(mesh.base_url, mesh.api_key, mesh.model.name)}",
        "",
        f"  {command} chat {mesh.model.name} 'What is 7 times 8?'",
        "",
        "Look at it:",
        "",
        f"  {command} node list",
        f"  {command} deployment list",
        *((f"  {command} token create -o {ORGANIZATION}   (lets another machine in)",) if opened else ()),
        "",
        "Ctrl-C stops everything.",
    )
    print("\n".join(lines), flush=True)
