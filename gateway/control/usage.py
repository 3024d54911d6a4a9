"""Usage, from a request's admission to the control plane: written down at once, delivered later, at least once."""

import logging
import secrets
from dataclasses import dataclass, field
from datetime import datetime

import grpc

from gateway.control import convert
from gateway.control.link import ControlPlane, ControlPlaneLost, calling
from gateway.control.spool import Batch, Spool
from gateway.core.errors import SpoolUnavailable
from gateway.core.metering import MAX_COUNT, Usage
from gateway.core.snapshot import Route
from gateway.core.usage import Opening, Outcome, UsageRecord, moved
from mesh.gateway.v1.gateway_pb2 import ReportUsageRequest, ReportUsageResponse
from mesh.kit.backoff import jitter
from mesh.kit.clock import Clock
from mesh.kit.ids import NOISE, uuid7
from mesh.kit.logs import F

log = logging.getLogger(__name__)

BATCH = 250  # records per call: packing them holds the event loop for about a millisecond
INTERVAL_S = 0.25  # between two looks at the spool: what waits longer than memory lasts is read from disk again
CALL_S = 10.0  # one delivery; the records come again when it fails
SLOWEST_S = 30.0  # ceiling of the delay after failures
SILENCES = 5  # answers that name none of the records sent, after which those are put aside
MAX_REJECTED = 4 * 1024 * 1024  # octets of records kept aside that the control plane refuses for good


@dataclass(slots=True, kw_only=True)
class Told:
    """What is known of a request when it is over."""

    usage: Usage
    first_token_s: float | None = None
    charged_tokens: int = 0
    charged_money: int = 0
    estimated: bool = False
    queue_s: float = 0.0
    inter_token_us: int | None = None
    continuations: int = 0
    retries: int = 0
    """Further workers asked before the client had seen anything."""


@dataclass(slots=True)
class Entry:
    """One request's line in the book, open until ``close``."""

    spool: Spool
    opening: Opening
    is_open: bool = True

    @property
    def request_id(self) -> str:
        return self.opening.request_id

    def take(self, route: Route) -> None:
        """Another worker has it now."""
        self.opening = moved(
            self.opening, worker_id=route.worker_id, node_id=route.node_id, deployment_id=route.deployment_id
        )

    def close(self, outcome: Outcome, *, status: int, duration_s: float, told: Told) -> None:
        """Write the record. Only the first call counts, so every exit path may make one."""
        if not self.is_open:
            return
        self.is_open = False
        opening = self.opening
        usage = told.usage
        self.spool.end(
            UsageRecord(
                request_id=opening.request_id,
                key_id=opening.key_id,
                organization_id=opening.organization_id,
                model=opening.model,
                worker_id=opening.worker_id,
                node_id=opening.node_id,
                started_at=opening.started_at,
                streamed=opening.streamed,
                project_id=opening.project_id,
                deployment_id=opening.deployment_id,
                endpoint=opening.endpoint,
                reserved_tokens=opening.reserved_tokens,
                reserved_money=opening.reserved_money,
                outcome=outcome,
                status=status,
                duration_ms=min(round(duration_s * 1000), MAX_COUNT),
                first_token_ms=_ms(told.first_token_s),
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cached_tokens=usage.cached_tokens,
                charged_tokens=told.charged_tokens,
                charged_money=told.charged_money,
                estimated=told.estimated,
                queue_ms=_ms(told.queue_s) or 0,
                inter_token_us=told.inter_token_us,
                continuations=told.continuations,
            )
        )


@dataclass(frozen=True, slots=True)
class UsageBook:
    """Where requests are entered."""

    spool: Spool

    def open(self, opening: Opening) -> Entry:
        """Write down that the request is let in. SpoolUnavailable: it must not be."""
        self.spool.begin(opening)
        return Entry(self.spool, opening)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else min(round(seconds * 1000), MAX_COUNT)


@dataclass(slots=True)
class RequestIds:
    """Ids that nobody else makes. Asks the kernel for noise once for hundreds of them: a call each is 2 µs."""

    _noise: bytes = field(init=False, default=b"")
    _at: int = field(init=False, default=0)

    def new(self, now: datetime) -> str:
        """The next one; later ones sort later."""
        at = self._at
        if at + NOISE > len(self._noise):
            self._noise, at = secrets.token_bytes(400 * NOISE), 0
        self._at = at + NOISE
        return uuid7(now, self._noise[at : self._at])


@dataclass(slots=True)
class UsageReporter:
    """Hands the spool's records to the control plane. A part."""

    spool: Spool
    control_plane: ControlPlane
    clock: Clock
    _batch: int = field(init=False, default=BATCH)
    """Records in the next call; halved while the control plane refuses them, to find the one it means."""
    _silences: int = field(init=False, default=0)

    async def run(self) -> None:
        """Deliver, for ever. Failures make the pauses longer, up to half a minute."""
        pause_s = 0.0
        while True:
            delivered = await self.once()
            pause_s = 0.0 if delivered else min(2 * pause_s + INTERVAL_S, SLOWEST_S)
            await self.clock.sleep(INTERVAL_S + jitter(pause_s))

    async def once(self) -> bool:
        """Deliver all that waits. False when the control plane did not take it."""
        try:
            self.spool.settle()
        except SpoolUnavailable as exc:
            log.error("usage spool unavailable", extra={F.REASON: str(exc)})
        while (batch := self.spool.waiting()) is not None:
            if not await self._deliver(batch):
                return False
        return True

    async def _deliver(self, batch: Batch) -> bool:
        """Deliver one batch, in as many calls as it takes."""
        left = batch.records
        while left:
            now, later = left[: self._batch], left[self._batch :]
            request = ReportUsageRequest(records=[convert.record(one) for one in now])
            try:
                with calling():
                    answer: ReportUsageResponse = await self.control_plane.stub.ReportUsage(
                        request, timeout=CALL_S
                    )
            except ControlPlaneLost as exc:
                if exc.status is not grpc.StatusCode.INVALID_ARGUMENT:
                    log.warning("usage not delivered", extra={F.REASON: str(exc), F.COUNT: len(left)})
                    return False
                if len(now) > 1:
                    self._batch = len(now) // 2
                    continue
                self._put_aside(now[0], str(exc))
                stored = {now[0].request_id}
            else:
                stored = set(answer.stored_request_ids)
            self._batch = min(2 * self._batch, BATCH)
            missing = [one for one in now if one.request_id not in stored]
            if len(missing) < len(now):
                left = later + missing  # those wait for the end of the batch, and are then alone
                continue
            self._silences += 1
            log.warning("usage not stored", extra={F.COUNT: len(missing)})
            if self._silences < SILENCES:
                return False
            for one in missing:
                self._put_aside(one, "neither stored nor refused")
            left = later
        self.spool.delivered(batch)
        self._silences = 0
        return True

    def _put_aside(self, record: UsageRecord, why: str) -> None:
        """Keep a record that will never be taken where an operator finds it; it must not hold up the others."""
        log.error("usage record refused", extra={F.REQUEST: record.request_id, F.REASON: why})
        try:
            self.spool.put_aside(record, limit=MAX_REJECTED)
        except OSError as exc:
            log.error("refused usage record lost", extra={F.REQUEST: record.request_id, F.REASON: exc.strerror})
