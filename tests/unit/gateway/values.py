"""Values the gateway's tests share."""

from collections.abc import Iterable
from datetime import UTC, datetime

from gateway.core.snapshot import ApiKey, Model, Route, Snapshot, WorkerPhase
from gateway.core.usage import Opening, Outcome, UsageRecord
from pki.api_keys import ApiKey as KeyText
from pki.api_keys import new_api_key

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PEPPER = b"p" * 32
ORGANIZATION = "org-1"


def route(
    worker: str,
    *,
    node: str = "n-1",
    slots: int = 4,
    phase: WorkerPhase = WorkerPhase.READY,
    engine: str = "llamacpp",
) -> Route:
    return Route(worker, node, "d-1", engine, slots, phase)


def model(name: str, *routes: Route, organization: str = "") -> Model:
    return Model(name, organization, NOW, 4096, routes)


def key(*, organization: str = ORGANIZATION, expires_at: datetime | None = None) -> tuple[KeyText, ApiKey]:
    text = new_api_key()
    return text, ApiKey(text.id, text.mac(PEPPER), organization, expires_at)


def snapshot(
    *, keys: Iterable[ApiKey] = (), models: Iterable[Model] = (), revision: int = 1, revoked: Iterable[str] = ()
) -> Snapshot:
    return Snapshot(
        revision, PEPPER, {one.key_id: one for one in keys}, {one.name: one for one in models}, frozenset(revoked)
    )


def opening(request_id: str, *, worker: str = "w-1") -> Opening:
    return Opening(
        request_id=request_id,
        key_id="k-1",
        organization_id=ORGANIZATION,
        model="m",
        worker_id=worker,
        node_id="n-1",
        started_at=NOW,
        streamed=True,
    )


def record(request_id: str, *, outcome: Outcome = Outcome.COMPLETED) -> UsageRecord:
    return UsageRecord(
        request_id=request_id,
        key_id="k-1",
        organization_id=ORGANIZATION,
        model="m",
        worker_id="w-1",
        node_id="n-1",
        started_at=NOW,
        streamed=True,
        outcome=outcome,
        status=200,
        duration_ms=12,
        first_token_ms=3,
        prompt_tokens=5,
        completion_tokens=7,
    )
