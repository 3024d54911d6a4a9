"""meshctl up: a whole mesh on this machine."""

import asyncio

import click

from control_plane.ctl import limits
from control_plane.ctl.invocation import Invocation, pass_invocation, state_option
from control_plane.ctl.up import catalog
from control_plane.ctl.up.processes import Reach
from control_plane.ctl.up.run import Wish
from control_plane.ctl.up.run import up as run_up
from control_plane.ctl.up.view import for_stderr

QUESTION = "What is 7 times 8?"
MAX_QUESTION = 2000


@click.command()
@click.option(
    "--http-port",
    type=limits.PORT,
    default=8080,
    show_default=True,
    help="Port of the OpenAI endpoint; 0 for any.",
)
@click.option("--model", default=catalog.DEFAULT, show_default=True, help="What to deploy.")
@click.option(
    "--ask",
    "question",
    is_flag=False,
    flag_value=QUESTION,
    default=QUESTION,
    show_default=True,
    help="What to ask it when it is up; '' asks nothing.",
)
@click.option("--once", is_flag=True, help="Stop everything again after the answer.")
@click.option(
    "--open-ports",
    "advertised",
    metavar="ADDRESS",
    type=limits.Text(253, r"A-Za-z0-9.\-", "letters, digits, '.', '-'"),
    help="Let others in: listen on every interface, and tell joining machines to come to ADDRESS.",
)
@state_option
@pass_invocation
def up(
    invocation: Invocation, http_port: int, model: str, question: str, once: bool, advertised: str | None
) -> None:
    """Run a whole mesh on this machine, with a real model, until Ctrl-C.

    Control plane with its database, gateway and node agent are separate processes; this machine joins by the real
    join. A second run goes on from the state folder of the first and takes seconds.
    """
    wish = Wish(
        state=invocation.state_dir,
        model=catalog.find(model),
        http_port=http_port,
        question=limits.Text(MAX_QUESTION).convert(question, None, None) if question.strip() else "",
        once=once,
        reach=Reach(advertised or ""),
    )
    asyncio.run(run_up(wish, invocation.environ, invocation.clock, for_stderr(invocation.clock)))
