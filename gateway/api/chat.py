"""POST /v1/chat/completions, in one piece and as a stream: the whole story of a request, told once."""

import asyncio
import logging
from dataclasses import dataclass

from aiohttp import web

from gateway.api import errors
from gateway.api.answers import Ledger, PlainAnswer, StreamAnswer
from gateway.api.auth import Door
from gateway.api.bodies import Intake
from gateway.api.delivery import Delivery
from gateway.api.metrics import Metrics
from gateway.api.visit import Visit
from gateway.control.usage import UsageBook
from gateway.core import chat
from gateway.core.errors import ClientStalled
from gateway.core.snapshot import Model
from gateway.core.usage import Outcome
from gateway.tunnel.forward import Forwarder
from gateway.tunnel.patience import Patience, WaitingRoom
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError, NotFound
from mesh.kit.logs import F

log = logging.getLogger(__name__)

PATH = "/v1/chat/completions"

Answer = PlainAnswer | StreamAnswer


@dataclass(frozen=True, slots=True)
class ChatCompletions:
    """The handler."""

    door: Door
    intake: Intake
    book: UsageBook
    forwarder: Forwarder
    room: WaitingRoom
    metrics: Metrics
    clock: Clock

    async def __call__(self, visit: Visit) -> web.StreamResponse:
        """Answer one request. A MeshError raised here has not been shown to the client."""
        caller, snapshot = self.door.admit(visit)
        with self.intake.place(visit) as place, Patience(self.room) as patience:
            body = await self.intake.read(visit, patience)
            place.hold(len(body))  # whoever did not say how much would come was given room for the most
            request = chat.parse(body)
            model = snapshot.model_for(caller.organization_id, request.model)
            if model is None:
                raise NotFound("model", request.model)
            visit.model = model.name
            ledger = Ledger(
                request_id=visit.request_id,
                caller=caller,
                model=model,
                request=request,
                arrived=visit.arrived,
                book=self.book,
                clock=self.clock,
                metrics=self.metrics,
            )
            delivery = Delivery(visit.request, visit.headers, patience, self.clock)
            answer: Answer
            if request.stream:
                answer = StreamAnswer(visit.request_id, request, ledger, delivery, PATH)
            else:
                answer = PlainAnswer(visit.request_id, request, ledger, delivery, PATH, place)
            await self._serve(answer, model, patience)
            assert delivery.response is not None, "an answer was given, or an error raised"
            return delivery.response

    async def _serve(self, answer: Answer, model: Model, patience: Patience) -> None:
        """Have it answered and accounted for, whichever way it goes."""
        ledger = answer.ledger
        try:
            await self.forwarder.forward(answer, model, patience)
            await answer.finish()
        except (asyncio.CancelledError, ConnectionError):
            ledger.close(Outcome.CANCELLED, status=errors.CLIENT_LEFT, usage=answer.usage)
            raise
        except ClientStalled as exc:
            ledger.close(Outcome.CANCELLED, status=errors.CLIENT_LEFT, usage=answer.usage)
            log.info("client stalled", extra={F.REQUEST: answer.request_id})
            raise ConnectionResetError(str(exc)) from exc
        except MeshError as exc:
            shown = answer.delivery.response is not None
            ledger.close(Outcome.FAILED, status=200 if shown else errors.status_of(exc), usage=answer.usage)
            if not shown:
                raise
            log.warning(
                "answer broke off",
                extra={F.REQUEST: answer.request_id, F.MODEL: model.name, F.CODE: exc.code, F.REASON: str(exc)},
            )
            await answer.fail(exc)
        finally:
            # Whatever else went wrong is our own fault, and is accounted for as well.
            ledger.close(Outcome.FAILED, status=500, usage=answer.usage)
