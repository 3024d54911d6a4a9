"""What is recorded and charged of one request, by whichever way it ends: once."""

import logging
from dataclasses import dataclass, field

from gateway.api.metrics import Metrics
from gateway.api.story import Story
from gateway.control.quota import Quota
from gateway.control.usage import Entry, Told, UsageBook
from gateway.core import metering, pricing
from gateway.core.admission import Caller
from gateway.core.limits import Need, Reservation
from gateway.core.metering import Usage
from gateway.core.request import InferenceRequest
from gateway.core.routing import Choice
from gateway.core.snapshot import Model, Route
from gateway.core.usage import Opening, Outcome
from mesh.kit.clock import Clock
from mesh.kit.logs import F

log = logging.getLogger(__name__)

ANSWER_TOKENS = 4096  # set aside for an answer whose client names no bound; what it takes is counted in the end


def need_of(request: InferenceRequest, model: Model) -> Need:
    """What a request may take: its prompt, by its length, and the longest answer it asks for."""
    if not request.endpoint.tokens:
        return Need()
    prompt = pricing.estimate_tokens(request.prompt_chars)
    answer = 0
    if request.endpoint.generates:
        answer = request.max_tokens or ANSWER_TOKENS
        if model.context_length:
            prompt = min(prompt, model.context_length)
            answer = max(1, min(answer, model.context_length - prompt))
        answer *= request.choices
    return Need(prompt + answer, pricing.worst_case(model.price, prompt, answer))


@dataclass(slots=True, kw_only=True)
class Account:
    """One request's."""

    request_id: str
    caller: Caller
    model: Model
    request: InferenceRequest
    arrived: float
    need: Need
    reservation: Reservation
    quota: Quota
    book: UsageBook
    clock: Clock
    metrics: Metrics
    story: Story | None = None
    continuations: int = 0
    queue_s: float = 0.0
    entry: Entry | None = None
    first_token_s: float | None = None
    attempts: int = 0
    route_reason: str = ""
    """Why the worker that has it was chosen."""
    failure: str = ""
    """The code of the error that it ended with."""
    outcome: Outcome | None = None
    told: Told | None = None
    """What was recorded; None when no worker ever had it."""
    _last_token_s: float = 0.0
    _pieces: int = 0
    _closed: bool = field(init=False, default=False)

    def take(self, choice: Choice) -> None:
        """Written down before the first worker hears of it. SpoolUnavailable: it must not."""
        route = choice.route
        self.attempts += 1
        self.route_reason = choice.decision.reason
        if self.story is not None:
            self.story.take(choice, self.clock.monotonic())
        if self.entry is not None:
            self.entry.take(route)
            return
        key = self.caller.key
        self.entry = self.book.open(
            Opening(
                request_id=self.request_id,
                key_id=key.key_id,
                organization_id=key.organization_id,
                model=self.model.name,
                worker_id=route.worker_id,
                node_id=route.node_id,
                started_at=self.clock.now(),
                streamed=self.request.stream,
                project_id=key.project_id,
                deployment_id=route.deployment_id,
                endpoint=self.request.endpoint.scope,
                reserved_tokens=self.need.tokens,
                reserved_money=self.need.money,
            )
        )

    def heard(self) -> None:
        """The worker that has it has begun to answer."""
        if self.story is not None:
            self.story.heard(self.clock.monotonic())

    def missed(self, route: Route, why: str) -> None:
        """That worker did not answer, or not to the end."""
        self.metrics.attempt_failed(self.model.name, route.deployment_id, why)
        if self.story is not None:
            self.story.failed(why, self.clock.monotonic())

    def piece(self) -> None:
        """Some of a stream has come. Of an answer in one piece nobody knows when it began."""
        now = self.clock.monotonic() - self.arrived
        if self.first_token_s is None:
            self.first_token_s = now
            deployment = self.entry.opening.deployment_id if self.entry is not None else ""
            self.metrics.first_token(self.model.name, deployment, now)
        self._last_token_s = now
        self._pieces += 1

    def close(self, outcome: Outcome, *, status: int, usage: Usage) -> None:
        """Settle and record. Only the first call counts."""
        if self._closed:
            return
        self._closed = True
        self.outcome = outcome
        entry = self.entry
        if entry is None:  # no worker ever had it
            self.quota.refund(self.reservation)
            return
        usage = self._believable(usage)
        tokens, money, estimated = self._charge(outcome, usage)
        self.quota.settle(self.reservation, tokens, money)
        lasted = self.clock.monotonic() - self.arrived
        told = self.told = Told(
            usage=usage,
            first_token_s=self.first_token_s,
            charged_tokens=tokens,
            charged_money=money,
            estimated=estimated,
            queue_s=self.queue_s,
            inter_token_us=self._inter_token_us(),
            continuations=self.continuations,
            retries=self.attempts - self.continuations - 1,
        )
        entry.close(outcome, status=status, duration_s=lasted, told=told)
        self.metrics.ended(self.model.name, entry.opening.deployment_id, outcome, lasted, told)

    def _charge(self, outcome: Outcome, usage: Usage) -> tuple[int, int, bool]:
        """Tokens and money, and whether they are a guess."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        if prompt is None and completion is None:
            if outcome is not Outcome.CANCELLED or not self.request.endpoint.tokens:
                return 0, 0, False
            # The engine has read the prompt and said nothing yet; it would have, had the client stayed.
            guess = pricing.estimate_tokens(self.request.prompt_chars)
            if self.model.context_length:
                guess = min(guess, self.model.context_length)
            return guess, pricing.cost(self.model.price, guess, 0, 0), True
        prompt, completion = prompt or 0, completion or 0
        money = pricing.cost(self.model.price, prompt, usage.cached_tokens or 0, completion)
        return prompt + completion, money, False

    def _inter_token_us(self) -> int | None:
        if self._pieces < 2 or self.first_token_s is None:
            return None
        return round((self._last_token_s - self.first_token_s) / (self._pieces - 1) * 1e6)

    def _believable(self, told: Usage) -> Usage:
        """The counts are a node's word, and are billed: no more than the model's context can hold."""
        usage = metering.capped(told, context=self.model.context_length, choices=self.request.choices)
        if usage is not told and self.entry is not None:
            log.warning(
                "token counts cut to the model's context",
                extra={F.REQUEST: self.request_id, F.WORKER: self.entry.opening.worker_id, F.REASON: str(told)},
            )
        return usage
