"""An answer in one piece: held until it is complete, so that a worker that fails is replaced unnoticed."""

import re
from dataclasses import dataclass, field
from typing import Final

from gateway.api import errors
from gateway.api.account import Account
from gateway.api.bodies import Place
from gateway.api.delivery import Delivery
from gateway.core import metering
from gateway.core.errors import UpstreamFailed
from gateway.core.metering import Usage
from gateway.core.request import InferenceRequest
from gateway.core.routing import Choice
from gateway.core.snapshot import Route
from gateway.core.usage import Outcome
from mesh.kit.errors import MeshError

MAX_ANSWER = 8 * 1024 * 1024  # octets of an answer in one piece, held until it is complete; text has thousands
ROUTE: Final = "X-Inventiv-Route"
_KIND: Final = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,60}(?:; ?charset=[a-zA-Z0-9-]{1,20})?")


@dataclass(slots=True)
class PlainAnswer:
    """One errand's. ``shows_route``: the client may know who answered."""

    request_id: str
    request: InferenceRequest
    account: Account
    delivery: Delivery
    place: Place
    shows_route: bool = False
    streamed: bool = field(init=False, default=False)
    begun: bool = field(init=False, default=False)
    usage: Usage = field(init=False, default=Usage())
    path: str = field(init=False)
    content_type: str = field(init=False)
    _status: int = field(init=False, default=0)
    _kind: str = field(init=False, default="")
    _route: str = field(init=False, default="")
    _parts: list[bytes] = field(init=False, default_factory=list)
    _size: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.path, self.content_type = self.request.endpoint.path, self.request.content_type

    def queued(self, waited_s: float) -> None:
        self.account.queue_s = waited_s

    def missed(self, route: Route, why: str) -> None:
        self.account.missed(route, why)

    @property
    def trace(self) -> str:
        return "" if self.account.story is None else self.account.story.header

    def take(self, choice: Choice) -> bytes:
        self.account.take(choice)
        if self.shows_route:
            self._route = choice.header
        self._parts.clear()
        self._size = 0
        self.place.hold(len(self.request.body))
        return self.request.body_for(choice.route.engine, self.account.model.engine_name)

    def may_go_on(self, engine: str) -> bool:
        del engine
        return False

    def interrupted(self) -> bool:
        return False

    def head(self, status: int, kind: str) -> None:
        self._status = status
        self.account.heard()
        if self.request.endpoint.any_kind and _KIND.fullmatch(kind) and "html" not in kind:
            self._kind = kind

    async def data(self, octets: bytes, *, last: bool) -> None:
        self._parts.append(octets)
        self._size += len(octets)
        if self._size > MAX_ANSWER:
            raise UpstreamFailed(f"the engine's answer is larger than {MAX_ANSWER} bytes; ask for a stream")
        self.place.hold(len(self.request.body) + self._size)

    def complete(self) -> bool:
        return True

    async def keep_alive(self) -> None:
        """There is nothing to say before the status."""

    async def finish(self) -> None:
        """The engine has said all."""
        body = b"".join(self._parts)
        status = self._status
        if status >= 400:
            status, body = errors.answer_of_engine(status, body)
        else:
            self.usage = metering.of_answer(body, self.request.endpoint.counts)
        outcome = Outcome.COMPLETED if status < 400 else Outcome.FAILED
        # Before the client can have it: nobody has an answer that is not accounted for.
        self.account.close(outcome, status=status, usage=self.usage)
        self.begun = True
        # Of the engine's head only the status goes on, and where answers are not all JSON their kind, when it is
        # plainly one: a node must not write into our answers' heads.
        headers = {ROUTE: self._route} if self._route else {}
        if self._kind and status < 400:
            headers["Content-Type"] = self._kind
        await self.delivery.answer(status, headers, body)

    def close(self) -> None:
        """All is said."""
        self._parts.clear()

    async def fail(self, exc: MeshError) -> None:
        """It went wrong after the client was given a part."""
        raise exc
