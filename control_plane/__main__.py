"""Starts the control plane: environment, signals, exit code. Everything else is in ``app``."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # before grpc is imported: its fork handlers hang children
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a stranger's failed handshake is not worth a line of C++ each

import asyncio
import errno
import signal
import sys

EXIT_BAD_INPUT = 2
"""What was asked for cannot be done as asked: settings, files, ports. Trying again will not help."""


def _say(text: str) -> None:
    sys.stderr.write(f"mesh-control-plane: {text}\n")


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    try:
        import uvloop

        from control_plane.app import StartFailed, serve
        from control_plane.settings import Settings
        from mesh.kit import logs
        from mesh.kit.clock import WallClock
        from mesh.kit.process import allow_many_files
        from mesh.kit.settings import BadSettings, load
        from mesh.kit.tasks import PartKeepsFailing
    except ModuleNotFoundError as exc:
        _say(f"the package {exc.name!r} is missing; install it with: pip install 'inventiv-mesh[control-plane]'")
        return EXIT_BAD_INPUT

    try:
        settings = load(Settings, os.environ, prefix="MESH_CP_")
    except BadSettings as exc:
        for problem in exc.problems:
            for line in problem.splitlines():
                _say(line)
        return EXIT_BAD_INPUT
    logs.set_up(settings.log_level)
    allow_many_files()

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(settings, WallClock(), stop)

    try:
        uvloop.run(run())
    except StartFailed as exc:
        _say(str(exc))
        return EXIT_BAD_INPUT
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _say(f"no space left on the disk of {settings.state_dir}: free some and start again")
        return 1
    except PartKeepsFailing as exc:
        _say(f"{exc} keeps failing; see the log above")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
