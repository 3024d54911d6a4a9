"""What every command knows of how it was called: options, environment, and the control plane they lead to."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from control_plane.ctl import running
from control_plane.ctl.admin import Admin, Target, connect
from control_plane.ctl.errors import BadInput, CommandFailed
from control_plane.ctl.limits import HostPort
from control_plane.ctl.running import RunningMesh
from mesh.kit.clock import Clock, WallClock
from mesh.kit.settings import Address, parse_address

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")


@dataclass(slots=True)
class Invocation:
    """One call of meshctl. An option wins over its variable, a variable over the mesh that runs here."""

    environ: Mapping[str, str]
    clock: Clock = field(default_factory=WallClock)
    endpoint: Address | None = None
    identity: Path | None = None
    state: Path | None = None

    @property
    def state_dir(self) -> Path:
        """The state folder of `meshctl up` that this call is about."""
        named = self.state or (Path(text) if (text := self.environ.get("MESHCTL_STATE")) else None)
        return (named or running.default_state(self.environ)).absolute()

    def running(self) -> RunningMesh | None:
        """The mesh that runs on this machine's state folder, if one does."""
        return running.read(self.state_dir)

    def target(self) -> Target:
        """The control plane to call; BadInput or CommandFailed says what is missing."""
        endpoint, identity = self.endpoint, self.identity
        if endpoint is None and (text := self.environ.get("MESHCTL_ENDPOINT")):
            try:
                endpoint = parse_address(text)
            except ValueError as exc:
                raise BadInput("MESHCTL_ENDPOINT", f"{text!r} is not host:port") from exc
        if identity is None and (text := self.environ.get("MESHCTL_IDENTITY")):
            identity = Path(text)
        if endpoint is None or identity is None:
            mesh = self.running()
            if mesh is None:
                missing = "--endpoint" if endpoint is None else "--identity"
                raise CommandFailed(
                    f"no mesh runs on {self.state_dir}: start one with `meshctl up`, or name another with "
                    f"{missing} (MESHCTL_{missing[2:].upper()})"
                )
            endpoint = endpoint or parse_address(mesh.endpoint)
            identity = identity or Path(mesh.identity)
        return Target(str(endpoint), identity)

    def admin(self, work: Callable[[Admin], Awaitable[Result]]) -> Result:
        """Run the work against the control plane this call is about."""
        target = self.target()

        async def run() -> Result:
            async with connect(target, self.clock) as admin:
                return await work(admin)

        return asyncio.run(run())


pass_invocation = click.make_pass_decorator(Invocation)


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        assert param.name is not None
        setattr(ctx.find_object(Invocation), param.name, value)


def state_option(command: Command) -> Command:
    """Add --state, which names the folder of `meshctl up`."""
    option = click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        callback=_remember,
        help="State folder of `meshctl up` (MESHCTL_STATE).",
    )
    return option(command)


def connection_options(command: Command) -> Command:
    """Add the options that say which control plane, and as whom."""
    command = state_option(command)
    command = click.option(
        "--identity",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        callback=_remember,
        help="Folder with an operator's tls.crt, tls.key and trust-bundle.pem (MESHCTL_IDENTITY).",
    )(command)
    return click.option(
        "--endpoint",
        type=HostPort(),
        expose_value=False,
        callback=_remember,
        help="Admin listener of the control plane, host:port (MESHCTL_ENDPOINT).",
    )(command)


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")(command)


def yes_option(command: Command) -> Command:
    """Add --yes, which answers the question that ``confirm`` asks."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person before something is gone for good; a program is not asked."""
    if yes or not sys.stdin.isatty():
        return
    if not click.confirm(question, default=False, err=True):
        raise CommandFailed("nothing was deleted")
