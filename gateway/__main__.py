"""Starts the gateway: environment, signals, exit code. Everything else is in ``app``."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # before grpc is imported: its fork handlers hang children
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a stranger's failed handshake is not worth a line of C++ each

import argparse
import asyncio
import errno
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

EXIT_BAD_INPUT = 2
"""What was asked for cannot be done as asked: settings, files, ports. Trying again will not help."""


def _say(text: str) -> None:
    sys.stderr.write(f"mesh-gateway: {text}\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _say(f"{message}; see --help")
        sys.exit(EXIT_BAD_INPUT)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError("from 1 to 64")
    return int(text)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = _Parser("mesh-gateway", description="The OpenAI endpoint of a mesh. Settings: MESH_GW_… variables.")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes, 1 to 64 (default: 1)")
    parser.add_argument("--stop-at-eof", action="store_true", help="also stop when standard input ends")
    return parser.parse_args(argv)


async def _until_told(work: Callable[[asyncio.Event], Awaitable[int]], *, stop_at_eof: bool) -> int:
    """Run it with an event that signals set; its exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if stop_at_eof:

        def readable() -> None:
            if not os.read(0, 4096):
                loop.remove_reader(0)
                stop.set()

        loop.add_reader(0, readable)
    return await work(stop)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    arguments = _arguments(argv)
    try:
        import uvloop

        from gateway.app import serve
        from gateway.settings import Settings
        from gateway.start import StartFailed
        from gateway.workers import Workers
        from mesh.kit import logs
        from mesh.kit.clock import WallClock
        from mesh.kit.process import allow_many_files
        from mesh.kit.settings import BadSettings, load
        from mesh.kit.tasks import PartKeepsFailing
    except ModuleNotFoundError as exc:
        _say(f"the package {exc.name!r} is missing; install it with: pip install 'inventiv-mesh[gateway]'")
        return EXIT_BAD_INPUT

    try:
        settings = load(Settings, os.environ, prefix="MESH_GW_")
    except BadSettings as exc:
        for problem in exc.problems:
            for line in problem.splitlines():
                _say(line)
        return EXIT_BAD_INPUT
    logs.set_up(settings.log_level)
    allow_many_files()

    async def one(stop: asyncio.Event) -> int:
        await serve(settings, WallClock(), stop)
        return 0

    try:
        if arguments.workers > 1:
            workers = Workers(settings, arguments.workers, os.environ, WallClock())
            return uvloop.run(_until_told(workers.run, stop_at_eof=arguments.stop_at_eof))
        # A request makes a hundred small objects and no cycles; the default has the collector run every few
        # requests.
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        return uvloop.run(_until_told(one, stop_at_eof=arguments.stop_at_eof))
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


if __name__ == "__main__":
    sys.exit(main())
