"""The ``mesh-agent`` command: environment, arguments, signals, exit code. Everything else is in ``app``.

Exit codes: 0 done; 1 refused or failed; 2 what was asked for cannot be done as asked.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # before grpc is imported: its fork handlers hang children

import argparse
import asyncio
import errno
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from node_agent.settings import Settings

# Imports inside the commands: each command loads what it needs, and a missing package is one clear line.

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
MAX_TOKEN = 4096


def say(text: str) -> None:
    """One line for the person at the keyboard, or for the unit's journal."""
    print(f"mesh-agent: {text}", file=sys.stderr)


class BadInput(Exception):
    """What was asked for makes no sense; the text says what to change."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        command: Callable[[argparse.Namespace], int] = args.command
        return command(args)
    except BadInput as exc:
        for line in str(exc).splitlines():
            say(line)
        return EXIT_BAD_INPUT
    except ModuleNotFoundError as exc:
        say(f"the package {exc.name!r} is missing; install it with: pip install 'inventiv-mesh[agent]'")
        return EXIT_BAD_INPUT
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            say("no space left on the disk of MESH_AGENT_STATE_DIR: free some and try again")
        elif exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = (exc.strerror or str(exc)).lower()
            say(f"{why}: {exc.filename}; run as the user who owns MESH_AGENT_STATE_DIR")
        else:
            raise
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mesh-agent", description="Lends this machine to a mesh.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    enroll = verbs.add_parser("enroll", help="join a mesh with a one-time token")
    enroll.add_argument("--control-plane", required=True, metavar="HOST:PORT", help="where to join")
    enroll.add_argument("--ca-pin", required=True, metavar="sha256:…", help="the root to expect there")
    enroll.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds the token; without it stdin, or a prompt"
    )
    enroll.add_argument("--force", action="store_true", help="join anew, as another node, although already joined")
    enroll.set_defaults(command=_enroll)

    run = verbs.add_parser("run", help="run the agent until SIGTERM; engines go on")
    run.add_argument("--stop-engines", action="store_true", help="at the end stop the engines, too")
    run.set_defaults(command=_run)

    status = verbs.add_parser("status", help="show how the running agent is")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.set_defaults(command=_status)

    verbs.add_parser("stop-engines", help="stop engines that an agent left running").set_defaults(
        command=_stop_engines
    )
    verbs.add_parser("version", help="print version and build date").set_defaults(command=_version)
    verbs.add_parser("checksum", help="print the SHA-256 of this agent").set_defaults(command=_checksum)
    return parser


def _settings() -> "Settings":
    from mesh.kit.settings import BadSettings, load
    from node_agent.settings import Settings

    try:
        return load(Settings, os.environ, prefix="MESH_AGENT_")
    except BadSettings as exc:
        raise BadInput("\n".join(exc.problems)) from exc


def _version(_: argparse.Namespace) -> int:
    from node_agent.agent import AGENT_BUILD_DATE, AGENT_VERSION

    print(AGENT_VERSION, AGENT_BUILD_DATE)
    return 0


def _checksum(_: argparse.Namespace) -> int:
    from node_agent.agent import agent_info

    print(agent_info().checksum)
    return 0


def _enroll(args: argparse.Namespace) -> int:
    import socket

    from mesh.kit import logs
    from mesh.kit.clock import WallClock
    from mesh.kit.errors import InvalidInput, MeshError
    from node_agent.agent import AGENT_VERSION
    from node_agent.control.enroll import enroll, joining
    from node_agent.disk import Disk, NotEnrolled

    settings = _settings()
    disk = Disk(settings.state_dir)
    if not args.force:
        try:
            print(f"already enrolled as node {disk.identity().node_id}; --force joins anew, as another node")
            return 0
        except NotEnrolled:
            pass
        except InvalidInput as exc:
            say(str(exc))
            return EXIT_FAILED
    try:
        asked = joining(control_plane=args.control_plane, ca_pin=args.ca_pin, token=_token(args.token_file))
    except InvalidInput as exc:
        raise BadInput(str(exc)) from exc
    logs.set_up("warning")
    try:
        with disk.locked():
            identity = asyncio.run(
                enroll(
                    asked,
                    disk=disk,
                    clock=WallClock(),
                    hostname=socket.gethostname(),
                    agent_version=AGENT_VERSION,
                )
            )
    except MeshError as exc:
        say(str(exc))
        return EXIT_FAILED
    print(f"enrolled as node {identity.node_id} of {identity.trust_domain}; now start: mesh-agent run")
    return 0


def _token(file: Path | None) -> str:
    """The token from the file, from stdin, or asked for; never from the command line, which others can read."""
    try:
        if file is not None:
            with file.open() as opened:
                text = opened.read(MAX_TOKEN)
        elif sys.stdin.isatty():
            import getpass

            text = getpass.getpass("join token: ")
        else:
            text = sys.stdin.read(MAX_TOKEN)
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else "not text"
        raise BadInput(f"--token-file: {why.lower()}: {file}") from exc
    if not text.strip():
        raise BadInput("no token: give --token-file, or write it to stdin")
    return text.strip()


def _run(args: argparse.Namespace) -> int:
    from mesh.kit import logs
    from mesh.kit.clock import WallClock
    from mesh.kit.process import allow_many_files
    from node_agent.app import serve

    settings = _settings()
    logs.set_up(settings.log_level)
    allow_many_files()
    return _until_stopped(
        lambda stop: serve(
            settings, WallClock(), stop, environment=dict(os.environ), stop_engines=args.stop_engines
        )
    )


def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    import signal

    import uvloop

    from mesh.kit.tasks import PartKeepsFailing
    from node_agent.app import StartFailed

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await work(stop)

    try:
        uvloop.run(run())
    except StartFailed as exc:
        raise BadInput(str(exc)) from exc
    except PartKeepsFailing as exc:
        say(f"{exc} keeps failing; see the log above")
        return EXIT_FAILED
    return 0


def _stop_engines(_: argparse.Namespace) -> int:
    from mesh.kit import logs
    from node_agent.app import StartFailed, stop_all_engines

    settings = _settings()
    logs.set_up("warning")
    try:
        count = asyncio.run(stop_all_engines(settings, environment=dict(os.environ)))
    except StartFailed as exc:
        raise BadInput(str(exc)) from exc
    print(f"{count} engine{'' if count == 1 else 's'} stopped")
    return 0


def _status(args: argparse.Namespace) -> int:
    from node_agent.status import ask, shown, where

    settings = _settings()
    address = where(settings.state_dir, settings.http_listen)
    try:
        info = ask(address)
    except OSError as exc:
        say(f"no agent answers on {address} ({exc}); start it with: mesh-agent run")
        return EXIT_FAILED
    if args.json:
        import json

        print(json.dumps(info, indent=2))
    else:
        print(shown(info))
    return 0


if __name__ == "__main__":
    sys.exit(main())
