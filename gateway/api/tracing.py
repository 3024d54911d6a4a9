"""Stories as OpenTelemetry's spans, for a collector. Nothing else knows OpenTelemetry; loaded when configured.

A request leaves a few numbers in a bounded queue. Spans are made of them, and sent, in a thread: a collector that
is slow or gone costs requests nothing; what it does not take is counted and lost. The exporter heeds the variables
of OpenTelemetry too (``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_RESOURCE_ATTRIBUTES``, …).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.api.story import Story, Try
from gateway.core.queue import QueueFull, QueueTimeout
from mesh.kit.clock import Clock
from mesh.kit.logs import F

log = logging.getLogger(__name__)

WAITING: Final = 2048  # stories that wait to be sent; at 200 requests a second a collector may be away for 10 s
BATCH: Final = 256  # stories in one message: about 1000 spans, 300 KiB
INTERVAL_S: Final = 1.0
SEND_S: Final = 3.0  # for one message, with its repetitions
LAST_SEND_S: Final = 2.0  # for what is left at the end

_OPERATIONS: Final = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}
_IN_QUEUE: Final = (QueueFull.code, QueueTimeout.code)
_FLAGS: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("inventiv_mesh.gateway")
# Facts of a request as attributes: OpenTelemetry's names where it has some.
_ATTRIBUTES: Final = (
    (F.MODEL, "gen_ai.request.model"),
    (F.PROMPT_TOKENS, "gen_ai.usage.input_tokens"),
    (F.COMPLETION_TOKENS, "gen_ai.usage.output_tokens"),
    (F.CACHED_TOKENS, "gen_ai.usage.cache_read.input_tokens"),
    (F.STATUS, "http.response.status_code"),
    (F.CODE, "error.type"),
    (F.REQUEST, "mesh.request_id"),
    (F.KEY, "mesh.key_id"),
    (F.ORGANIZATION, "mesh.organization_id"),
    (F.PROJECT, "mesh.project_id"),
    (F.ENDPOINT, "mesh.endpoint"),
    (F.OUTCOME, "mesh.outcome"),
    (F.ATTEMPTS, "mesh.attempts"),
    (F.CONTINUATIONS, "mesh.continuations"),
    (F.CHARGED_MONEY, "mesh.charged_money"),
)

_Told = tuple[Story, Mapping[str, object], float, float, float]
"""With when it arrived and ended, and what to add to a moment to get the time of day."""


@dataclass(slots=True, eq=False)
class Exporter:
    """Takes stories at any time; ``run`` sends them. A part."""

    endpoint: str
    share: float
    clock: Clock
    hub_id: str
    version: str
    sent: int = field(init=False, default=0)
    dropped: int = field(init=False, default=0)
    _waiting: deque[_Told] = field(init=False, default_factory=deque)
    _exporter: OTLPSpanExporter = field(init=False)
    _resource: Resource = field(init=False)
    _failing: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        # It tells of every failure, several times; we tell when they begin and when they end.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(endpoint=self.endpoint, timeout=SEND_S)
        self._resource = Resource.create(
            {
                "service.name": "inventiv-mesh-gateway",
                "service.version": self.version,
                "service.instance.id": self.hub_id,
            }
        )

    def ended(self, story: Story, facts: Mapping[str, object], arrived: float) -> None:
        """A request is over. Never waits."""
        if len(self._waiting) >= WAITING:
            self.dropped += 1
            return
        now = self.clock.monotonic()
        self._waiting.append((story, facts, arrived, now, self.clock.now().timestamp() - now))

    async def run(self) -> None:
        """Send what has come, once a second, until cancelled."""
        while True:
            await self.clock.sleep(INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits. Of what was not taken nothing is kept."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            taken = False
            try:
                taken = await asyncio.to_thread(self._send, batch)
            finally:
                if taken:
                    self.sent += len(batch)
                else:
                    self.dropped += len(batch)
            if taken is self._failing:
                self._failing = not taken
                if taken:
                    log.info("collector takes spans again", extra={F.ADDRESS: self.endpoint})
                else:
                    log.warning("collector does not take spans", extra={F.ADDRESS: self.endpoint})

    async def close(self) -> None:
        """Send what is left, within seconds, and end."""
        try:
            async with asyncio.timeout(LAST_SEND_S):
                await self.flush()
        except TimeoutError:
            self.dropped += len(self._waiting)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _send(self, batch: list[_Told]) -> bool:
        spans = [span for told in batch for span in self._spans(*told)]
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def _spans(
        self, story: Story, facts: Mapping[str, object], arrived: float, ended: float, offset: float
    ) -> Iterator[ReadableSpan]:
        """A request's tree: gateway over queue and tunnels, each tunnel over its engine."""

        def span(
            name: str,
            number: int,
            parent: int,
            times: tuple[float, float],
            attributes: dict[str, object],
            *,
            kind: SpanKind = SpanKind.INTERNAL,
            error: str = "",
            remote: bool = False,
        ) -> ReadableSpan:
            return ReadableSpan(
                name,
                context=SpanContext(story.trace, number, is_remote=False, trace_flags=_FLAGS),
                parent=SpanContext(story.trace, parent, is_remote=remote, trace_flags=_FLAGS) if parent else None,
                resource=self._resource,
                attributes=attributes,  # type: ignore[arg-type]  # strings and numbers
                kind=kind,
                status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
                start_time=round((times[0] + offset) * 1e9),
                end_time=round((times[1] + offset) * 1e9),
                instrumentation_scope=_SCOPE,
            )

        root: dict[str, object] = {
            name: facts[fact] for fact, name in _ATTRIBUTES if facts.get(fact) not in (None, "")
        }
        endpoint = str(facts[F.ENDPOINT])
        operation = root["gen_ai.operation.name"] = _OPERATIONS.get(endpoint, endpoint)
        root["http.request.method"] = "POST"
        error = str(facts.get(F.CODE, ""))
        yield span(
            "gateway",
            story.span,
            story.parent,
            (arrived, ended),
            root,
            kind=SpanKind.SERVER,
            error=error,
            remote=True,
        )
        if not story.tries:
            if error in _IN_QUEUE:
                yield span(
                    "queue", story.span + 1, story.span, (arrived, ended), {"error.type": error}, error=error
                )
            return
        first = story.tries[0].began
        waited = float(str(facts.get(F.QUEUE_MS, 0.0))) / 1000
        yield span("queue", story.span + 1, story.span, (first - waited, first), {"mesh.queue_ms": waited * 1000})
        for one in story.tries:
            last = one is story.tries[-1]
            end = one.ended if one.ended is not None else ended
            why = one.why or (error if last else "")
            tunnel = _of_try(one, why)
            yield span("tunnel", one.span, story.span, (one.began, end), tunnel, kind=SpanKind.CLIENT, error=why)
            if one.heard is None:
                continue
            engine: dict[str, object] = {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": one.choice.route.engine,
                "gen_ai.request.model": str(facts[F.MODEL]),
            }
            if last:
                engine |= {name: root[name] for name in root if name.startswith("gen_ai.usage.")}
            yield span("engine", one.span + 1, one.span, (one.heard, end), engine, error=why)


def _of_try(one: Try, why: str) -> dict[str, object]:
    route = one.choice.route
    found: dict[str, object] = {
        "mesh.worker_id": route.worker_id,
        "mesh.node_id": route.node_id,
        "mesh.deployment_id": route.deployment_id,
        "mesh.route_reason": one.choice.decision.reason,
    }
    return {**found, "error.type": why} if why else found
