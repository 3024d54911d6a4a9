"""What gateways get and give: snapshots, shares of limits and loads out; usage records and demand in."""

import logging
from dataclasses import dataclass

from control_plane.core import bounds, desired
from control_plane.core.snapshot import Snapshot
from control_plane.rpc import convert_in, convert_snapshot, convert_usage
from control_plane.rpc.desk import Context, within_budget
from control_plane.rpc.gateway_load import LoadWatch
from control_plane.rpc.metrics import Metrics
from control_plane.store import demand, gateways, quota, usage
from control_plane.store import snapshot as snapshots
from control_plane.store.db import Db, Pool, connection, transaction
from control_plane.store.gateways import Gateway
from control_plane.store.wake import SNAPSHOT, Wake
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.ids import GatewayId
from mesh.kit.logs import F
from mesh.wire.channel import SNAPSHOT_MESSAGE
from pki.names import Kind, server_name
from pki.peer import caller_of

log = logging.getLogger(__name__)

POLL_S = 5.0  # a hint that was lost is made up for this late; there are few gateways
GATHER_S = 0.05  # changes that come together go out together
RETRY_S = 1.0  # after a look at the rows that failed


@dataclass(frozen=True)
class GatewayLink(GatewayServiceServicer):
    """mesh.gateway.v1.GatewayService."""

    pool: Pool
    wake: Wake
    clock: Clock
    metrics: Metrics
    pepper: bytes

    async def WatchSnapshot(self, request: pb.WatchSnapshotRequest, context: Context) -> None:
        identity = caller_of(context.auth_context()).identity
        gateway = Gateway(
            gateway_id=GatewayId(identity.id),
            tunnel_endpoint=bounds.tunnel_endpoint(request.tunnel_endpoint),
            server_name=server_name(Kind.GATEWAY, identity.trust_domain),
            version=convert_in.text(request.version),
            process=bounds.process(request.process),
            peer_endpoint=bounds.peer_endpoint(request.peer_endpoint),
        )
        async with within_budget(), transaction(self.pool) as db:
            await gateways.record_seen(db, gateway, now=self.clock.now())
        log.info("gateway connected", extra={F.GATEWAY: gateway.hub_id, F.ADDRESS: gateway.tunnel_endpoint})
        try:
            with self.metrics.stream("WatchSnapshot"):
                await self._push(gateway, context)
        finally:
            log.info("gateway disconnected", extra={F.GATEWAY: gateway.hub_id})

    async def _push(self, gateway: Gateway, context: Context) -> None:
        """Write every snapshot that differs from the last one written; hints that come meanwhile become one."""
        told: Snapshot | None = None
        refused: Snapshot | None = None
        with self.wake.subscribe(SNAPSHOT) as hints:
            while True:
                pause = POLL_S
                try:
                    async with connection(self.pool) as db:
                        latest = await self._look(db, gateway)
                except Unavailable as exc:  # the gateway goes on with what it has
                    log.warning("snapshot not read", extra={F.GATEWAY: gateway.hub_id, F.REASON: str(exc)})
                    pause = RETRY_S
                else:
                    if latest not in (told, refused):
                        if await self._tell(gateway, latest, context):
                            told = latest
                        else:
                            refused = latest
                if await hints.wait(pause):
                    await self.clock.sleep(GATHER_S)

    async def _tell(self, gateway: Gateway, latest: Snapshot, context: Context) -> bool:
        """Write it. False, and nothing written, when it fits into no message: the gateway stays as it is."""
        facts: dict[str, object] = {F.GATEWAY: gateway.hub_id, F.REVISION: latest.revision}
        message = pb.WatchSnapshotResponse(snapshot=convert_snapshot.snapshot(latest, pepper=self.pepper))
        if (octets := message.ByteSize()) > SNAPSHOT_MESSAGE:
            self.metrics.snapshot("too_large")
            log.error("snapshot too large: gateways hear of no change", extra={**facts, F.COUNT: octets})
            return False
        await context.write(message)
        self.metrics.snapshot("sent")
        log.info("snapshot sent", extra=facts)
        return True

    async def _look(self, db: Db, gateway: Gateway) -> Snapshot:
        """Say that the gateway is still here, and read what it should know."""
        now = self.clock.now()
        if not await gateways.touch(
            db, gateway.hub_id, now=now
        ):  # forgotten while nobody could store its presence
            async with db.transaction():
                await gateways.record_seen(db, gateway, now=now)
        return await snapshots.load(db, now=now)

    async def ReportUsage(self, request: pb.ReportUsageRequest, context: Context) -> pb.ReportUsageResponse:
        gateway_id = _caller(context)
        records = convert_usage.usage_records(request.records)
        async with within_budget(), transaction(self.pool) as db:
            stored = await usage.record_batch(db, records, gateway_id=gateway_id, now=self.clock.now())
        self.metrics.usage_stored(len(stored))
        return pb.ReportUsageResponse(stored_request_ids=stored)

    async def LeaseQuota(self, request: pb.LeaseQuotaRequest, context: Context) -> pb.LeaseQuotaResponse:
        hub_id = desired.hub_id(_caller(context), bounds.process(request.process))
        holder = f"{hub_id}#{bounds.start_id(request.start_id)}"
        asks = convert_usage.asks(request.asks)
        async with within_budget(), transaction(self.pool) as db:
            grants = await quota.lease(db, asks, hub_id=holder, now=self.clock.now())
        return convert_usage.grants(grants)

    async def WatchLoad(self, request: pb.WatchLoadRequest, context: Context) -> None:
        with self.metrics.stream("WatchLoad"):
            await LoadWatch(self.pool, self.wake, self.clock, _caller(context)).push(context)

    async def ReportDemand(self, request: pb.ReportDemandRequest, context: Context) -> pb.ReportDemandResponse:
        hub_id = desired.hub_id(_caller(context), bounds.process(request.process))
        models = convert_usage.model_demands(request.models)
        async with within_budget(), transaction(self.pool) as db:
            await demand.record(db, models, hub_id=hub_id, now=self.clock.now())
        return pb.ReportDemandResponse()


def _caller(context: Context) -> GatewayId:
    """The gateway that the certificate names."""
    return GatewayId(caller_of(context.auth_context()).identity.id)
