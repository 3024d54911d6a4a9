"""What every long-lived process asks of the system when it starts."""

import resource


def allow_many_files() -> None:
    """As many open files as we may have: each connection is one, and the usual soft limit is 1024.

    That limit is meant for programs that use select(), which none of ours does.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
