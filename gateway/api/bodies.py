"""Request bodies: of the right kind, of bounded length each, and of bounded length together.

Answers in one piece count as well, for they are held until they are complete.
"""

import asyncio
from dataclasses import dataclass

from gateway.api.exchange import Request
from gateway.api.visit import Visit
from gateway.core.endpoints import Body
from gateway.core.errors import BodyTooLarge, MalformedBody, Overloaded, RequestTimeout, UnsupportedMediaType
from gateway.tunnel.patience import Patience

BODY_S = 60.0  # a client that takes longer to send a body is not in earnest
_FULL = "this gateway has as many requests as it can hold"


@dataclass(slots=True)
class Intake:
    """Lets in what can be held."""

    max_body: int
    max_requests: int
    max_held: int  # octets of bodies, and of answers in one piece
    requests: int = 0
    held: int = 0

    def place(self, visit: Visit) -> "Place":
        """Room for one request, while the ``with`` block lasts. BodyTooLarge or Overloaded: there is none."""
        declared = visit.request.content_length
        if declared is not None and declared > self.max_body:
            raise BodyTooLarge(self.max_body)
        octets = self.max_body if declared is None else declared
        if self.requests >= self.max_requests or self.held + octets > self.max_held:
            raise Overloaded(_FULL)
        return Place(self, octets)

    async def read(self, visit: Visit, patience: Patience, kind: Body) -> bytes:
        """The body. Raises UnsupportedMediaType, BodyTooLarge, MalformedBody or RequestTimeout."""
        request = visit.request
        _check_kind(request, kind)
        if not request.complete:
            request.go_on()
            patience.allow(BODY_S)
            try:
                await request.body()
            except asyncio.CancelledError:
                if patience.is_up():
                    raise RequestTimeout(f"the request body did not come within {BODY_S:.0f} s") from None
                raise
            finally:
                patience.forever()
        if request.too_large:
            raise BodyTooLarge(self.max_body)
        if request.broken:
            raise MalformedBody("not sent as HTTP wants it")
        return await request.body()


@dataclass(slots=True)
class Place:
    """One request's share of what can be held."""

    _intake: Intake
    _octets: int

    def __enter__(self) -> "Place":
        self._intake.requests += 1
        self._intake.held += self._octets
        return self

    def hold(self, octets: int) -> None:
        """It takes so many now; Overloaded when they are more than before, and there is no room for them."""
        held = self._intake.held - self._octets + octets
        if octets > self._octets and held > self._intake.max_held:
            raise Overloaded(_FULL)
        self._intake.held, self._octets = held, octets

    def __exit__(self, *_exc: object) -> None:
        self._intake.requests -= 1
        self._intake.held -= self._octets


def _check_kind(request: Request, wanted: Body) -> None:
    encoding = request.header(b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"content-encoding {encoding[:40]!r} is not supported: send the body as it is")
    kind = request.header(b"content-type")
    if kind is None and wanted is Body.JSON:
        return
    kind = (kind or "").partition(";")[0].strip().lower()
    if wanted is Body.MULTIPART:
        if kind != "multipart/form-data":
            raise UnsupportedMediaType(f"content-type {kind[:80]!r} is not supported: send multipart/form-data")
    elif kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"content-type {kind[:80]!r} is not supported: send application/json")
