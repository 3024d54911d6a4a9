"""Request bodies: of the right kind, of bounded length each, and of bounded length together.

Answers in one piece count as well, for they are held until they are complete.
"""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from gateway.api.visit import Visit
from gateway.core.errors import BodyTooLarge, Overloaded, RequestTimeout, UnsupportedMediaType
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

    async def read(self, visit: Visit, patience: Patience) -> bytes:
        """The body. Raises UnsupportedMediaType, BodyTooLarge or RequestTimeout."""
        request = visit.request
        _check_kind(request)
        patience.allow(BODY_S)
        try:
            if request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # an interim answer is none: an error may still follow
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise BodyTooLarge(self.max_body) from None
        except asyncio.CancelledError:
            if patience.is_up():
                raise RequestTimeout(f"the request body did not come within {BODY_S:.0f} s") from None
            raise
        finally:
            patience.forever()


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


def _check_kind(request: web.BaseRequest) -> None:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"content-encoding {encoding[:40]!r} is not supported: send the body as it is")
    kind = request.headers.get("Content-Type")
    if kind is None:
        return
    kind = kind.partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType(f"content-type {kind[:80]!r} is not supported: send application/json")
