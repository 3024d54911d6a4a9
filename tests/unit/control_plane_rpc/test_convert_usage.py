"""What gateways say of use, limits and demand is made fit to keep, whatever they say."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core import demand, quota, usage
from control_plane.core.fleet import WorkerPhase
from control_plane.rpc import convert_usage
from control_plane.store.load import WorkerLoad
from mesh.gateway.v1 import gateway_pb2
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import WorkerId
from mesh.types.v1 import worker_pb2

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(
    st.builds(
        gateway_pb2.UsageRecord,
        request_id=st.just("01990000-0000-7000-8000-000000000000"),
        key_id=st.text(),
        model=st.text(),
        outcome=st.integers(0, 99),
        first_token_ms=st.none() | U32,
        duration_ms=U32,
        prompt_tokens=st.none() | U32,
        completion_tokens=st.none() | U32,
        cached_tokens=st.none() | U32,
        status=U32,
        project_id=st.text(),
        endpoint=st.text(),
        reserved_tokens=U64,
        reserved_money=U64,
        charged_tokens=U64,
        charged_money=U64,
        queue_ms=U32,
        inter_token_us=st.none() | U32,
        continuations=U32,
    )
)
def test_a_record_with_an_identity_can_always_be_kept(said: gateway_pb2.UsageRecord) -> None:
    [kept] = convert_usage.usage_records([said])
    usage.check(kept)
    assert (kept.prompt_tokens is None) == (not said.HasField("prompt_tokens"))


def test_a_record_is_kept_as_it_was_said() -> None:
    said = gateway_pb2.UsageRecord(
        request_id="01990000-0000-7000-8000-000000000000",
        key_id="k",
        organization_id="o",
        model="m",
        worker_id="w",
        node_id="n",
        outcome=gateway_pb2.USAGE_OUTCOME_CANCELLED,
        first_token_ms=7,
        duration_ms=9,
        prompt_tokens=1,
        completion_tokens=2,
        cached_tokens=3,
        streamed=True,
        status=499,
        project_id="p",
        deployment_id="d",
        endpoint="chat",
        reserved_tokens=10,
        reserved_money=11,
        charged_tokens=12,
        charged_money=13,
        estimated=True,
        queue_ms=14,
        inter_token_us=15,
        continuations=16,
    )
    said.started_at.FromDatetime(datetime(2026, 11, 23, tzinfo=UTC))
    assert convert_usage.usage_records([said]) == [
        usage.UsageRecord(
            request_id=said.request_id,
            key_id="k",
            organization_id="o",
            model="m",
            worker_id="w",
            node_id="n",
            outcome=usage.UsageOutcome.CANCELLED,
            started_at=datetime(2026, 11, 23, tzinfo=UTC),
            duration_ms=9,
            streamed=True,
            status=499,
            first_token_ms=7,
            prompt_tokens=1,
            completion_tokens=2,
            cached_tokens=3,
            project_id="p",
            deployment_id="d",
            endpoint="chat",
            reserved_tokens=10,
            reserved_money=11,
            charged_tokens=12,
            charged_money=13,
            estimated=True,
            queue_ms=14,
            inter_token_us=15,
            continuations=16,
        )
    ]


def test_every_outcome_of_the_schema_is_an_outcome_of_ours() -> None:
    for name, number in gateway_pb2.UsageOutcome.items():
        said = gateway_pb2.UsageRecord(request_id="01990000-0000-7000-8000-000000000000", outcome=number)
        [kept] = convert_usage.usage_records([said])
        assert kept.outcome.name == (name.removeprefix("USAGE_OUTCOME_") if number else "FAILED")


def test_an_ask_is_what_was_said_within_what_a_row_holds() -> None:
    said = gateway_pb2.QuotaAsk(
        subject="k", kind=gateway_pb2.QUOTA_KIND_MONEY_PER_DAY, window=86_400, wanted=2**64 - 1, used=3
    )
    window = quota.Window("k", quota.QuotaKind.MONEY_PER_DAY, 86_400)
    assert convert_usage.asks([said]) == [quota.Ask(window, wanted=2**63 - 1, used=3)]


def test_every_kind_of_the_schema_is_a_kind_of_ours_and_an_unknown_one_is_refused_by_its_place() -> None:
    said = [gateway_pb2.QuotaAsk(kind=number) for number in gateway_pb2.QuotaKind.values() if number]
    assert {one.window.kind for one in convert_usage.asks(said)} == set(quota.QuotaKind)
    for unknown in (0, 99):
        with pytest.raises(InvalidInput, match=rf"asks\[1\]\.kind: {unknown} is no kind"):
            convert_usage.asks([said[0], gateway_pb2.QuotaAsk(kind=unknown)])  # type: ignore[arg-type]  # open enum


def test_grants_are_told_in_their_order() -> None:
    told = convert_usage.grants([quota.Grant(3, 2**63 - 1), quota.Grant(1, 0, timedelta(seconds=30))])
    assert [(one.granted, one.left, one.lease_ms) for one in told.grants] == [(3, 2**63 - 1, 0), (1, 0, 30_000)]


@given(
    st.builds(
        gateway_pb2.ModelDemand,
        model=st.text(),
        waiting=U32,
        active=U32,
        admitted=U32,
        refused=U32,
        wait_mean_ms=U32,
        wait_p95_ms=U32,
        oldest_wait_ms=U32,
    )
)
def test_demand_always_fits_its_columns(said: gateway_pb2.ModelDemand) -> None:
    [kept] = convert_usage.model_demands([said])
    assert len(kept.model) <= usage.MAX_TEXT
    assert "\x00" not in kept.model
    assert max(kept.waiting, kept.active, kept.admitted, kept.refused) <= usage.MAX_COUNT
    assert max(kept.wait_mean_ms, kept.wait_p95_ms, kept.oldest_wait_ms) <= usage.MAX_COUNT


def test_of_a_model_named_twice_the_later_counts() -> None:
    said = [gateway_pb2.ModelDemand(model=name, waiting=n) for n, name in enumerate(["m", "o", "m"])]
    assert convert_usage.model_demands(said) == [
        demand.ModelDemand("m", waiting=2),
        demand.ModelDemand("o", waiting=1),
    ]


def test_load_is_told_whole_and_what_is_not_known_is_absent() -> None:
    whole = WorkerLoad(WorkerId("w"), WorkerPhase.STARTING, 40, "loads", 3, 0, 0.5)
    told = convert_usage.load(whole)
    assert (told.worker_id, told.phase) == ("w", worker_pb2.WORKER_PHASE_STARTING)
    assert (told.progress_percent, told.detail) == (40, "loads")
    assert (told.requests_running, told.requests_waiting, told.kv_cache_usage) == (3, 0, 0.5)
    assert told.HasField("requests_waiting")
    bare = convert_usage.load(WorkerLoad(WorkerId("w"), WorkerPhase.READY))
    assert [one.name for one, _ in bare.ListFields()] == ["worker_id", "phase"]
