"""Commands that run once and end: mesh-pki and `mesh-agent enroll`."""

import asyncio
from collections.abc import Mapping, Sequence

from control_plane.ctl.errors import CommandFailed, one_line


async def run_tool(
    what: str,
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    budget_s: float,
    stdin: str = "",
) -> str:
    """Its output. CommandFailed says what it said last when it fails or takes longer than its budget."""
    child = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(budget_s):
            output, complaints = await child.communicate(stdin.encode())
    except TimeoutError:
        raise CommandFailed(f"{what} took longer than {budget_s:.0f} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        lines = [line for line in complaints.decode("utf-8", "replace").splitlines() if line.strip()]
        said = one_line(lines[-1])[:400] if lines else f"exit code {child.returncode}"
        raise CommandFailed(f"{what} failed: {said}")
    return output.decode("utf-8", "replace")
