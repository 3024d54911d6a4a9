"""Which usage records can be kept, and how a bad one is named."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control_plane.core.usage import MAX_BATCH, UsageOutcome, UsageRecord, check, check_batch
from mesh.kit.errors import InvalidInput

RECORD = UsageRecord(
    request_id="0199aa00-0000-7000-8000-000000000001",
    key_id="k1",
    organization_id="org",
    model="small",
    worker_id="w1",
    node_id="n1",
    outcome=UsageOutcome.COMPLETED,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    duration_ms=1200,
    streamed=True,
    status=200,
    first_token_ms=80,
    prompt_tokens=12,
    completion_tokens=34,
)


def test_a_whole_record_and_one_that_never_came_to_a_worker_can_be_kept() -> None:
    bare = replace(RECORD, worker_id="", node_id="", status=0, first_token_ms=None, prompt_tokens=None)
    check_batch([RECORD, bare])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", ""),
        ("request_id", "nonsense"),
        ("request_id", RECORD.request_id.upper()),
        ("request_id", RECORD.request_id.replace("-", "")),
        ("key_id", "x" * 257),
        ("organization_id", "\x00"),
        ("model", "x" * 257),
        ("worker_id", "x" * 257),
        ("node_id", "x" * 257),
        ("duration_ms", -1),
        ("duration_ms", 2**31),
        ("first_token_ms", -1),
        ("prompt_tokens", 2**31),
        ("completion_tokens", -1),
        ("cached_tokens", -1),
        ("project_id", "x" * 257),
        ("deployment_id", "\x00"),
        ("endpoint", "x" * 257),
        ("reserved_tokens", -1),
        ("charged_tokens", 10**15),
        ("reserved_money", -1),
        ("charged_money", 2**63),
        ("queue_ms", 2**31),
        ("inter_token_us", -1),
        ("continuations", 2**31),
        ("started_at", datetime(2026, 1, 1)),  # noqa: DTZ001  # the point of the case
        ("status", 99),
        ("status", 600),
    ],
)
def test_a_record_beyond_its_limits_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(replace(RECORD, **{field: value}))  # type: ignore[arg-type]  # the point of the case
    assert caught.value.field == field


def test_a_batch_has_a_limit() -> None:
    check_batch([RECORD] * MAX_BATCH)
    with pytest.raises(InvalidInput, match="at most 500, not 501"):
        check_batch([RECORD] * (MAX_BATCH + 1))
