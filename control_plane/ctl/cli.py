"""The command line: its tree, and the one place where failures become a line and an exit code."""

import errno
import os
import sys
from collections.abc import Mapping, Sequence

import click

from control_plane.ctl.commands.chat import chat
from control_plane.ctl.commands.deployment import deployment
from control_plane.ctl.commands.key import key
from control_plane.ctl.commands.model import model
from control_plane.ctl.commands.node import node
from control_plane.ctl.commands.organization import organization
from control_plane.ctl.commands.project import project
from control_plane.ctl.commands.route import route
from control_plane.ctl.commands.token import token
from control_plane.ctl.commands.up import up
from control_plane.ctl.errors import BAD_INPUT, INTERRUPTED, REFUSED, CommandFailed, one_line
from control_plane.ctl.invocation import Invocation, connection_options
from mesh.kit.errors import MeshError

DEBUG = "MESHCTL_DEBUG"  # when set, an unexpected failure also shows its traceback


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@connection_options
def meshctl() -> None:
    """Run a mesh on this machine, and look after any mesh.

    \b
    meshctl up                           a whole mesh on this machine, with a real model
    meshctl chat MODEL PROMPT            ask it something
    meshctl node list                    which machines joined
    """


for command in (up, chat, node, deployment, model, key, token, project, organization, route):
    meshctl.add_command(command)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command; everything that goes wrong is one line on stderr. Returns the exit code."""
    try:
        result = meshctl.main(
            args=list(arguments), prog_name="meshctl", standalone_mode=False, obj=Invocation(environ)
        )
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        return 0
    except CommandFailed as exc:
        return _fail(str(exc), exc.exit_code)
    except click.UsageError as exc:
        return _fail(f"{exc.format_message().rstrip('.')}{_help_hint(exc)}", BAD_INPUT)
    except click.ClickException as exc:
        return _fail(exc.format_message(), exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MeshError as exc:
        return _fail(str(exc), REFUSED)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"the disk is full: free some space{_where(exc)} and try again", REFUSED)
        return _unexpected(exc, environ)
    except Exception as exc:  # edge: a person sees a line, never a traceback
        return _unexpected(exc, environ)
    return result if isinstance(result, int) else 0


def _fail(line: str, exit_code: int) -> int:
    print(f"meshctl: {one_line(line)}", file=sys.stderr, flush=True)
    return exit_code


def _unexpected(exc: Exception, environ: Mapping[str, str]) -> int:
    if environ.get(DEBUG):
        sys.excepthook(type(exc), exc, exc.__traceback__)
    elif isinstance(exc, OSError):
        return _fail(f"{exc.strerror or exc}{_where(exc)}", REFUSED)
    return _fail(f"unexpected {type(exc).__name__}: {exc} ({DEBUG}=1 shows where)", REFUSED)


def _help_hint(exc: click.UsageError) -> str:
    return f" (see `{exc.ctx.command_path} --help`)" if exc.ctx is not None else ""


def _where(exc: OSError) -> str:
    return f": {exc.filename}" if exc.filename else ""
