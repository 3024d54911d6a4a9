"""meshctl chat: one question, its answer token by token."""

import asyncio
import sys
from pathlib import Path

import click

from control_plane.ctl import limits, output
from control_plane.ctl.chat import Question, ask
from control_plane.ctl.errors import BadInput, CommandFailed
from control_plane.ctl.invocation import Invocation, pass_invocation, state_option
from control_plane.ctl.terminal import Answer

MAX_PROMPT = 1024 * 1024  # characters; far beyond every context


@click.command()
@click.argument("model", type=limits.MODEL_NAME)
@click.argument("prompt")
@click.option("--system", default="", help="What the model is told before the question.")
@click.option("--max-tokens", type=click.IntRange(1, 131072), default=512, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True)
@click.option("--base-url", help="The OpenAI endpoint, up to /v1 (MESHCTL_BASE_URL).")
@click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that holds the key (or set MESHCTL_API_KEY). A key is never an argument: others could read it.",
)
@state_option
@pass_invocation
def chat(
    invocation: Invocation,
    model: str,
    prompt: str,
    system: str,
    max_tokens: int,
    temperature: float,
    base_url: str | None,
    api_key_file: Path | None,
) -> None:
    """Ask MODEL the question PROMPT (`-` reads it from standard input) and print the answer as it comes."""
    if prompt == "-":
        prompt = sys.stdin.read(MAX_PROMPT + 1)
    if not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise BadInput("PROMPT", f"1 to {MAX_PROMPT} characters, not {len(prompt.strip())}")
    question = Question(model=model, prompt=prompt, system=system, max_tokens=max_tokens, temperature=temperature)
    url, key = _endpoint(invocation, base_url, api_key_file)
    with Answer() as answer:
        timing = asyncio.run(
            ask(question, base_url=url, api_key=key, clock=invocation.clock, on_text=answer.write)
        )
    output.say(timing.line)


def _endpoint(invocation: Invocation, base_url: str | None, api_key_file: Path | None) -> tuple[str, str]:
    url = base_url or invocation.environ.get("MESHCTL_BASE_URL")
    key = read_key(api_key_file) if api_key_file else invocation.environ.get("MESHCTL_API_KEY")
    if url is None or key is None:
        mesh = invocation.running()
        if mesh is None:
            missing = "--base-url (MESHCTL_BASE_URL)" if url is None else "--api-key-file (MESHCTL_API_KEY)"
            raise CommandFailed(
                f"no mesh runs on {invocation.state_dir}: start one with `meshctl up`, "
                f"or name another with {missing}"
            )
        # The key of this machine's mesh goes to this machine's mesh only.
        if key is None and url is not None and url.rstrip("/") != mesh.base_url:
            raise CommandFailed("--base-url names another mesh: give its key by --api-key-file or MESHCTL_API_KEY")
        url, key = url or mesh.base_url, key or read_key(Path(mesh.api_key_file))
    if not url.startswith(("http://", "https://")):
        raise BadInput("--base-url", f"{url!r} is not an http:// or https:// URL")
    if not key or not key.isascii() or not key.isprintable():
        raise BadInput("the API key", "1 or more printable ASCII characters")
    return url.rstrip("/"), key


def read_key(path: Path) -> str:
    """The key in the file."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadInput("--api-key-file", f"cannot read {path}: {getattr(exc, 'strerror', 'not text')}") from exc
