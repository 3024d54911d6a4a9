"""One HTTP request on its way through the handlers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.api.account import Account
from gateway.api.exchange import Request
from gateway.api.story import Story
from gateway.core.admission import Caller
from mesh.kit.errors import MeshError

REQUEST_ID = "X-Request-Id"


@dataclass(slots=True)
class Visit:
    """A request, what every answer to it carries, and what its handler learnt that the metrics want to know."""

    request: Request
    headers: dict[str, str]
    arrived: float
    path: str
    status: int = 0
    """What the client was told; zero: nothing yet."""
    model: str = ""
    """Set once it is a model of the snapshot; a label must not be whatever a client asked for."""
    endpoint: str = ""
    """Of those that an engine answers: its scope."""
    caller: Caller | None = None
    account: Account | None = None
    failure: MeshError | None = None
    """What it was refused with."""
    broke: bool = False
    """Whether what went wrong is our own fault."""
    story: Story | None = None
    """Only where traces are configured."""

    @property
    def request_id(self) -> str:
        return self.headers[REQUEST_ID]

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> bool:
        """The whole answer: JSON, unless the headers say otherwise. False: the client should catch up first."""
        self.status = status
        shown = {"Content-Type": "application/json", **self.headers, **(headers or {})}
        return self.request.answer(status, shown, body)


Handler = Callable[[Visit], Awaitable[None]]
