"""Shares of limits, loads and demand, as gateways ask for them through the real service."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from control_plane.rpc import gateway_load
from control_plane.store import demand, ledger
from mesh.admin.v1 import api_key_pb2
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.types.v1 import worker_pb2
from tests.mesh.control_plane_clients import status, status_of
from tests.mesh.control_plane_harness import Plane
from tests.mesh.test_control_plane_gateways import hand_in, record

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")


async def key(plane: Plane, name: str, **limits: int) -> str:
    """A new key that may do so much."""
    request = api_key_pb2.CreateApiKeyRequest(organization=await plane.organization(), name=name)
    key_id: str = (await plane.api_keys.CreateApiKey(request)).api_key.key_id
    async with plane.database() as db:
        for limit, value in limits.items():
            await db.execute(f"UPDATE api_keys SET {limit} = $2 WHERE key_id = $1", key_id, value)
    return key_id


def ask(subject: str, wanted: int, *, used: int = 0, kind: str = "TOKENS_PER_DAY") -> pb.QuotaAsk:
    window = 0 if kind == "CONCURRENT_REQUESTS" else int(datetime.now(UTC).timestamp()) // 86_400 * 86_400
    return pb.QuotaAsk(subject=subject, kind=f"QUOTA_KIND_{kind}", window=window, wanted=wanted, used=used)


async def lease(
    plane: Plane, *asks: pb.QuotaAsk, gateway_id: str = "gw-1", process: int = 0, start_id: str = "a"
) -> list[tuple[int, int, int]]:
    request = pb.LeaseQuotaRequest(asks=asks, process=process, start_id=start_id)
    reply = await plane.gateway(gateway_id).LeaseQuota(request)
    return [(one.granted, one.left, one.lease_ms) for one in reply.grants]


async def test_gateways_and_their_processes_share_a_limit(plane: Plane) -> None:
    k = await key(plane, "shared", tokens_per_day=100)
    assert await lease(plane, ask(k, 50)) == [(50, 50, 0)]
    assert await lease(plane, ask(k, 30), process=1) == [(30, 20, 0)]
    assert await lease(plane, ask(k, 50), gateway_id="gw-2") == [(20, 0, 0)]
    assert await lease(plane, ask(k, 10)) == [(10, 40, 0)]
    assert await lease(plane, ask(k, 90, used=5), gateway_id="gw-2") == [(60, 0, 0)]


async def test_a_gateway_that_starts_anew_gets_nothing_of_what_it_spent_before(plane: Plane) -> None:
    k = await key(plane, "restarted", tokens_per_day=100)
    assert await lease(plane, ask(k, 70, used=70)) == [(70, 30, 0)]
    assert await lease(plane, ask(k, 70), start_id="b") == [(30, 0, 0)]


async def test_asks_are_answered_in_their_order(plane: Plane) -> None:
    k = await key(plane, "several", tokens_per_day=100, concurrent_requests=4)
    asks = [ask(k, 9, kind="CONCURRENT_REQUESTS"), ask("nobody", 7), ask(k, 5)]
    assert await lease(plane, *asks) == [(4, 0, 30_000), (7, 2**63 - 1, 0), (5, 95, 0)]
    assert await lease(plane) == []


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (pb.LeaseQuotaRequest(asks=[ask("k", 1)] * 201, start_id="a"), "asks: at most 200, not 201"),
        (pb.LeaseQuotaRequest(asks=[pb.QuotaAsk(subject="k", wanted=1)], start_id="a"), "asks[0].kind: "),
        (
            pb.LeaseQuotaRequest(asks=[ask("k", 1), pb.QuotaAsk(kind=2, window=2**62)], start_id="a"),  # type: ignore[arg-type]  # open enum
            "asks[1].window: ",
        ),
        (pb.LeaseQuotaRequest(asks=[ask("k", 1)], process=64, start_id="a"), "process: "),
        (pb.LeaseQuotaRequest(asks=[ask("k", 1)], start_id="A"), "start_id: "),
    ],
    ids=["too many", "no kind", "no window", "no process", "no start"],
)
async def test_what_cannot_be_leased_is_refused(
    plane: Plane, request_: pb.LeaseQuotaRequest, problem: str
) -> None:
    call = plane.gateway().LeaseQuota(request_)
    assert await status_of(call) == INVALID
    assert (await call.details()).startswith(problem)


async def test_what_a_request_cost_is_posted_once_however_often_it_is_handed_in(plane: Plane) -> None:
    one = record(
        key_id="payer",
        project_id="purse",
        reserved_tokens=100,
        charged_tokens=30,
        reserved_money=10**9,
        charged_money=2 * 10**9,
        endpoint="chat",
    )
    await hand_in(plane, one)
    await hand_in(plane, one, gateway_id="gw-2")
    async with plane.database() as db:
        assert await ledger.spent(db, key_id="payer") == ledger.Spent(30, 2 * 10**9)
        assert await ledger.spent_by_project(db, project_id="purse") == ledger.Spent(30, 2 * 10**9)
        assert await ledger.drift(db) == 0


async def test_demand_is_kept_by_process_and_the_latest_counts(plane: Plane) -> None:
    async def report(*models: pb.ModelDemand, process: int = 0) -> None:
        await plane.gateway().ReportDemand(pb.ReportDemandRequest(process=process, models=models))

    await report(pb.ModelDemand(model="old", waiting=1))
    await report(pb.ModelDemand(model="big", waiting=4, wait_p95_ms=2**32 - 1))
    await report(pb.ModelDemand(model="big", waiting=2), process=3)
    async with plane.database() as db:
        kept = await demand.list_(db, datetime.now(UTC))
    said = [(one.hub_id, one.demand.model, one.demand.waiting, one.demand.wait_p95_ms) for one in kept]
    assert said == [("gw-1", "big", 4, 2**31 - 1), ("gw-1~3", "big", 2, 0)]


async def test_a_report_of_too_many_models_is_refused(plane: Plane) -> None:
    many = [pb.ModelDemand(model=str(n)) for n in range(1001)]
    await plane.gateway("gw-9").ReportDemand(pb.ReportDemandRequest(models=many[:1000]))
    call = plane.gateway("gw-9").ReportDemand(pb.ReportDemandRequest(models=many))
    assert await status_of(call) == INVALID
    assert (await call.details()) == "models: at most 1000, not 1001"


async def loads(plane: Plane) -> AsyncIterator[dict[str, pb.WorkerLoad]]:
    """What is said of all workers so far, after every message."""
    seen: dict[str, pb.WorkerLoad] = {}
    async for message in plane.gateway().WatchLoad(pb.WatchLoadRequest()):
        seen.update({one.worker_id: one for one in message.workers})
        yield seen


async def until(watching: AsyncIterator[dict[str, pb.WorkerLoad]], worker_id: str, **wanted: Any) -> pb.WorkerLoad:
    async for seen in watching:
        one = seen.get(worker_id)
        if one is not None and all(getattr(one, name) == value for name, value in wanted.items()):
            return one
    raise AssertionError("the stream ended")


async def test_loads_come_at_once_and_again_when_they_change(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(await anext(loads(plane)), dict)
    node = await plane.connect(await plane.join())
    await node.welcome()
    await plane.deploy("loaded", replicas=2)
    specs = (await node.desired(lambda state: len(state.workers) == 2)).workers
    one, other = specs
    watching = loads(plane)
    first = await anext(watching)
    assert {one.worker_id, other.worker_id} <= first.keys()
    await node.report(workers=[status(one, "STARTING", progress_percent=40, detail="loads"), status(other)])
    starting = await until(watching, one.worker_id, progress_percent=40)
    assert (starting.phase, starting.detail) == (worker_pb2.WORKER_PHASE_STARTING, "loads")
    assert not starting.HasField("requests_running")
    busy = status(one, requests_running=3, requests_waiting=0, kv_cache_usage=0.25)
    await node.report(workers=[busy, status(other)])
    told = await until(watching, one.worker_id, requests_running=3)
    assert (told.phase, told.requests_waiting, told.kv_cache_usage) == (worker_pb2.WORKER_PHASE_READY, 0, 0.25)
    assert told.HasField("requests_waiting")
    monkeypatch.setattr(gateway_load, "MAX_WORKERS", 1)  # so that all of them do not fit into one message
    await until(loads(plane), max(one.worker_id, other.worker_id))
    await node.hang_up()
    gone = await until(watching, one.worker_id, requests_running=0)
    assert not gone.HasField("requests_running"), "nobody hears that engine any more"


async def test_only_changes_are_told(plane: Plane) -> None:
    node = await plane.connect(await plane.join())
    await node.welcome()
    await plane.deploy("quiet", replicas=2)
    specs = [
        spec
        for spec in (await node.desired(lambda state: sum(w.model == "quiet" for w in state.workers) == 2)).workers
        if spec.model == "quiet"
    ]
    await node.report(workers=[status(one) for one in specs])
    call = plane.gateway().WatchLoad(pb.WatchLoadRequest())
    ready: set[str] = set()
    while not ready.issuperset(spec.worker_id for spec in specs):
        said = (await call.read()).workers
        ready.update(one.worker_id for one in said if one.phase == worker_pb2.WORKER_PHASE_READY)
    await node.report(workers=[status(specs[0], requests_running=7), status(specs[1])])
    while True:
        told = {one.worker_id: one for one in (await call.read()).workers}
        if specs[0].worker_id in told and told[specs[0].worker_id].requests_running == 7:
            break
    assert specs[1].worker_id not in told
    call.cancel()
    await node.hang_up()
