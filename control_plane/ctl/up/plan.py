"""The steps of `meshctl up`, in order, as data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from control_plane.ctl.up.steps import Mesh


@dataclass(frozen=True, slots=True)
class Step:
    """Something that must be true before the next step."""

    title: str
    do: Callable[[Mesh], Awaitable[str]]
    budget_s: float
    """Generous: a cold disk and two busy cores. Exceeding it means that something is wrong."""


WAIT_BUDGET_S = 300.0  # for a worker to load its weights

STEPS = (
    Step("identities", Mesh.make_identities, 120),
    Step("control plane and database", Mesh.start_control_plane, 120),
    Step("gateway", Mesh.start_gateway, 60),
    Step("organization and key", Mesh.make_accounts, 30),
    Step("join this machine", Mesh.join, 90),
    Step("node agent", Mesh.start_agent, 60),
    Step("model", Mesh.deploy, WAIT_BUDGET_S + 30),
    Step("route", Mesh.route, 150),
)
ASK = Step("ask", Mesh.ask, 180)
