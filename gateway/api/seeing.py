"""What is seen of every request when it is over: counted, and where wanted a line in the log and a trace.

Nothing here knows a body. A line costs 22 µs, most of it JSON and the write, where counting costs 1.5 µs. That is
why requests that went well are logged only when an operator asks for it.
"""

import logging
from dataclasses import dataclass
from enum import StrEnum

from gateway.api.errors import CLIENT_LEFT
from gateway.api.metrics import ENGINE, INTERNAL, LEFT, Metrics
from gateway.api.story import Tracing
from gateway.api.visit import Visit
from gateway.core.refusals import LimitReached
from gateway.core.usage import Outcome
from mesh.kit.clock import Clock
from mesh.kit.logs import F

log = logging.getLogger(__name__)


class RequestLog(StrEnum):
    """Which requests get a line."""

    OFF = "off"
    ERRORS = "errors"
    """Those that failed or whose client left. Not what was the client's own fault: it can do so often."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Seeing:
    """Told of every answer."""

    metrics: Metrics
    clock: Clock
    request_log: RequestLog = RequestLog.ERRORS
    tracing: Tracing | None = None

    def answered(self, visit: Visit) -> None:
        """A request is over, whichever way."""
        reason = _reason(visit)
        self.metrics.answered(visit.model, visit.status, reason)
        if isinstance(visit.failure, LimitReached):
            self.metrics.limited(visit.model, visit.failure.kind.value)
        story = visit.story
        logged = visit.endpoint != "" and self._is_logged(visit)
        traced = self.tracing is not None and story is not None and story.sampled
        if not (logged or traced):
            return
        facts = _facts(visit, reason, self.clock.monotonic())
        if story is not None and story.sampled:
            facts[F.TRACE] = f"{story.trace:032x}"
        if logged:
            log.info("request", extra=facts)
        if self.tracing is not None and story is not None and traced:
            self.tracing.ended(story, facts, visit.arrived)

    def _is_logged(self, visit: Visit) -> bool:
        if self.request_log is not RequestLog.ERRORS:
            return self.request_log is RequestLog.ALL
        account = visit.account
        if account is not None and account.entry is not None:
            return account.outcome is not Outcome.COMPLETED
        return visit.status >= CLIENT_LEFT  # and above: what is our own fault


def _reason(visit: Visit) -> str:
    """The code of what went wrong; empty when nothing did."""
    if visit.failure is not None:
        return visit.failure.code
    account = visit.account
    if visit.broke:
        return INTERNAL
    if account is not None and account.failure:
        return account.failure
    if visit.status == CLIENT_LEFT or (account is not None and account.outcome is Outcome.CANCELLED):
        return LEFT
    if visit.status >= 400 or (account is not None and account.outcome is Outcome.FAILED):
        return ENGINE
    return ""


def _facts(visit: Visit, reason: str, now: float) -> dict[str, object]:
    """A request in fields that every log has. What is not known is left out."""
    facts: dict[str, object] = {
        F.REQUEST: visit.request_id,
        F.ENDPOINT: visit.endpoint,
        F.MODEL: visit.model,
        F.STATUS: visit.status,
        F.DURATION_MS: _ms(now - visit.arrived),
    }
    if reason:
        facts[F.CODE] = reason
    if visit.caller is not None:
        key = visit.caller.key
        facts |= {F.KEY: key.key_id, F.ORGANIZATION: key.organization_id, F.PROJECT: key.project_id}
    account = visit.account
    if account is None or account.outcome is None:
        return facts
    facts |= {F.OUTCOME: account.outcome.value, F.ATTEMPTS: account.attempts, F.STREAMED: account.request.stream}
    entry, told = account.entry, account.told
    if entry is None or told is None:
        return facts
    opening, usage = entry.opening, told.usage
    facts |= {
        F.WORKER: opening.worker_id,
        F.NODE: opening.node_id,
        F.DEPLOYMENT: opening.deployment_id,
        F.ROUTE: account.route_reason,
        F.QUEUE_MS: _ms(told.queue_s),
        F.FIRST_TOKEN_MS: None if told.first_token_s is None else _ms(told.first_token_s),
        F.PROMPT_TOKENS: usage.prompt_tokens,
        F.COMPLETION_TOKENS: usage.completion_tokens,
        F.CACHED_TOKENS: usage.cached_tokens,
        F.CHARGED_TOKENS: told.charged_tokens,
        F.CHARGED_MONEY: told.charged_money,
        F.CONTINUATIONS: told.continuations,
    }
    return facts


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
