"""One HTTP request on its way through the handlers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

REQUEST_ID = "X-Request-Id"


@dataclass(slots=True)
class Visit:
    """A request, what every answer to it carries, and what its handler learnt that the metrics want to know."""

    request: web.BaseRequest
    headers: dict[str, str]
    arrived: float
    model: str = ""
    """Set once it is a model of the snapshot; a label must not be whatever a client asked for."""

    @property
    def request_id(self) -> str:
        return self.headers[REQUEST_ID]


Handler = Callable[[Visit], Awaitable[web.StreamResponse]]
