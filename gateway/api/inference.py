"""Every endpoint that an engine answers: the whole story of a request, told once."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from gateway.api import errors, story
from gateway.api.account import Account, need_of
from gateway.api.answers import PlainAnswer
from gateway.api.auth import Door
from gateway.api.bodies import Intake
from gateway.api.delivery import Delivery
from gateway.api.metrics import Metrics
from gateway.api.story import Tracing
from gateway.api.streams import StreamAnswer
from gateway.api.visit import Visit
from gateway.control.quota import Quota
from gateway.control.usage import UsageBook
from gateway.core import request as requests
from gateway.core.admission import Caller
from gateway.core.affinity import session_of
from gateway.core.endpoints import ROUTE_DEBUG, Endpoint
from gateway.core.errors import ClientStalled, UnknownRoute
from gateway.core.request import InferenceRequest
from gateway.core.snapshot import Model, Priority, Snapshot
from gateway.core.usage import Outcome
from gateway.tunnel.errand import Claim
from gateway.tunnel.forward import Forwarder
from gateway.tunnel.patience import Patience, WaitingRoom
from gateway.tunnel.registry import Wish
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput, MeshError, NotFound
from mesh.kit.logs import F

log = logging.getLogger(__name__)

MAX_WAIT_S = 3600.0

Answer = PlainAnswer | StreamAnswer


@dataclass(frozen=True, slots=True)
class Inference:
    """The handlers."""

    door: Door
    intake: Intake
    book: UsageBook
    quota: Quota
    forwarder: Forwarder
    room: WaitingRoom
    metrics: Metrics
    clock: Clock
    news: Callable[[Model], str]
    tracing: Tracing | None = None

    async def __call__(self, visit: Visit, endpoint: Endpoint) -> None:
        """Answer one request. A MeshError raised here has not been shown to the client."""
        visit.endpoint = endpoint.scope
        if self.tracing is not None:
            visit.story = story.begin(visit.request_id, visit.request.header(b"traceparent"), self.tracing.share)
        caller, snapshot = self.door.admit(visit, endpoint.scope)
        visit.caller = caller
        with self.intake.place(visit) as place, Patience(self.room) as patience:
            body = await self.intake.read(visit, patience, endpoint.body)
            place.hold(len(body))  # whoever did not say how much would come was given room for the most
            content_type = visit.request.header(b"content-type") or "application/json"
            request = requests.parse(endpoint, body, content_type)
            model = _model(caller, snapshot, request)
            if endpoint.scope == "pass_through" and endpoint.path not in model.pass_through:
                raise UnknownRoute(f"the model {model.name!r} has no {endpoint.path[:200]}")
            visit.model = model.name
            claim = _claim(visit, caller, model, request)
            need = need_of(request, model)
            try:
                reservation = await self.quota.reserve(caller.subjects, need)
            finally:
                if caller.subjects:
                    visit.headers.update(self.quota.headers(caller.subjects))
            account = visit.account = Account(
                request_id=visit.request_id,
                caller=caller,
                model=model,
                request=request,
                arrived=visit.arrived,
                need=need,
                reservation=reservation,
                quota=self.quota,
                book=self.book,
                clock=self.clock,
                metrics=self.metrics,
                story=visit.story,
            )
            delivery = Delivery(visit, patience, self.clock)
            shows_route = ROUTE_DEBUG in caller.key.scopes
            answer: Answer
            if request.stream:
                answer = StreamAnswer(
                    visit.request_id, request, account, delivery, lambda: self.news(model), shows_route
                )
            else:
                answer = PlainAnswer(visit.request_id, request, account, delivery, place, shows_route)
            await self._serve(answer, model, claim, patience)

    async def _serve(self, answer: Answer, model: Model, claim: Claim, patience: Patience) -> None:
        """Have it answered and accounted for, whichever way it goes."""
        account = answer.account
        try:
            await self.forwarder.forward(answer, model, claim, patience)
            await answer.finish()
        except (asyncio.CancelledError, ConnectionError):
            account.close(Outcome.CANCELLED, status=errors.CLIENT_LEFT, usage=answer.usage)
            raise
        except ClientStalled as exc:
            account.failure = exc.code
            account.close(Outcome.CANCELLED, status=errors.CLIENT_LEFT, usage=answer.usage)
            log.info("client stalled", extra={F.REQUEST: answer.request_id})
            raise ConnectionResetError(str(exc)) from exc
        except MeshError as exc:
            account.failure = exc.code
            shown = answer.delivery.begun
            account.close(Outcome.FAILED, status=200 if shown else errors.status_of(exc), usage=answer.usage)
            if not shown:
                raise
            log.warning(
                "answer broke off",
                extra={F.REQUEST: answer.request_id, F.MODEL: model.name, F.CODE: exc.code, F.REASON: str(exc)},
            )
            await answer.fail(exc)
        finally:
            # Whatever else went wrong is our own fault, and is accounted for as well.
            account.close(Outcome.FAILED, status=500, usage=answer.usage)
            answer.close()


def _model(caller: Caller, snapshot: Snapshot, request: InferenceRequest) -> Model:
    """The model asked for. NotFound also for one that is not for this key: it need not know what there is."""
    model = snapshot.model_for(caller.organization_id, request.model)
    if model is None or not caller.may_use(model):
        raise NotFound("model", request.model)
    return model


def _claim(visit: Visit, caller: Caller, model: Model, request: InferenceRequest) -> Claim:
    header = visit.request.header
    key = caller.key
    session = session_of(header(b"x-inventiv-session"), f"{model.name}\n{key.organization_id}")
    priority, wait = header(b"x-inventiv-priority"), header(b"x-inventiv-max-wait")
    return Claim(
        Wish(visit.request_id, request.prefix, session),
        key.key_id,
        key.weight,
        key.priority if priority is None else min(key.priority, _priority(priority)),
        None if wait is None else _seconds(wait),
    )


def _priority(text: str) -> Priority:
    """A client may stand back behind its own requests, and not step before others'."""
    try:
        return Priority[text.strip().upper()]
    except KeyError:
        raise InvalidInput("x-inventiv-priority", "must be low, normal or high") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise InvalidInput("x-inventiv-max-wait", f"must be seconds from 0 to {MAX_WAIT_S:.0f}")
    return seconds
