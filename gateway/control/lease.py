"""Asks the control plane for shares of limits: ``LeasedQuota``'s questions over gRPC."""

import secrets
from dataclasses import dataclass, field

from gateway.control.link import ControlPlane, calling
from gateway.core.limits import Ask, Grant
from gateway.core.windows import Kind
from mesh.gateway.v1 import gateway_pb2 as pb

CALL_S = 2.0  # requests wait for it

_KINDS = {
    Kind.REQUESTS_PER_MINUTE: pb.QUOTA_KIND_REQUESTS_PER_MINUTE,
    Kind.TOKENS_PER_MINUTE: pb.QUOTA_KIND_TOKENS_PER_MINUTE,
    Kind.CONCURRENT_REQUESTS: pb.QUOTA_KIND_CONCURRENT_REQUESTS,
    Kind.TOKENS_PER_DAY: pb.QUOTA_KIND_TOKENS_PER_DAY,
    Kind.TOKENS_PER_MONTH: pb.QUOTA_KIND_TOKENS_PER_MONTH,
    Kind.MONEY_PER_DAY: pb.QUOTA_KIND_MONEY_PER_DAY,
    Kind.MONEY_PER_MONTH: pb.QUOTA_KIND_MONEY_PER_MONTH,
}


@dataclass(frozen=True, slots=True)
class Lessor:
    """Call it with asks; it answers in their order. ControlPlaneLost, which is Unavailable: nobody answers."""

    control_plane: ControlPlane
    process: int
    start_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells this run of the process from earlier ones, whose shares are not ours to give back."""

    async def __call__(self, asks: list[Ask]) -> list[Grant]:
        request = pb.LeaseQuotaRequest(
            asks=[
                pb.QuotaAsk(
                    subject=one.subject,
                    kind=_KINDS[one.kind],
                    window=one.window,
                    wanted=max(0, one.wanted),
                    used=max(0, one.used),
                )
                for one in asks
            ],
            process=self.process,
            start_id=self.start_id,
        )
        with calling():
            answer: pb.LeaseQuotaResponse = await self.control_plane.stub.LeaseQuota(request, timeout=CALL_S)
        return [Grant(one.granted, one.left, one.lease_ms) for one in answer.grants]
