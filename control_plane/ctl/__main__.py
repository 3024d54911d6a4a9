"""Starts meshctl. Written so that a Python that is too old can still say so."""

import os
import sys

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # before grpc is imported: its fork handlers hang children
os.environ.setdefault(
    "GRPC_VERBOSITY", "NONE"
)  # its own log would come between a person and the one line that counts

OLDEST = (3, 11)


def main() -> int:
    """Run one command and return its exit code."""
    if sys.version_info < OLDEST:
        found = ".".join(str(part) for part in sys.version_info[:3])
        line = "meshctl: Python 3.11 or newer is needed, this is {}; on Debian 12: apt-get install python3"
        print(line.format(found), file=sys.stderr)
        return 2
    try:
        from control_plane.ctl.cli import run
    except ModuleNotFoundError as exc:
        line = "meshctl: the Python package {!r} is missing; install it: pip install 'inventiv-mesh[cli]'"
        print(line.format(exc.name), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:], os.environ)


if __name__ == "__main__":
    sys.exit(main())
