"""How machines join: a one-time token and a signing request in, a node certificate out.

Everyone may knock here, so every call is counted by address before anything is looked at. Whatever is wrong with
a well-formed token, the answer is one and the same; the reason is in the audit log.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.core import bounds
from control_plane.rpc.desk import Context, within_budget
from control_plane.rpc.limits import Limiter
from control_plane.rpc.metrics import Metrics
from control_plane.store import joining
from control_plane.store.db import Pool, transaction
from mesh.enroll.v1 import enroll_pb2 as pb
from mesh.enroll.v1.enroll_pb2_grpc import EnrollServiceServicer
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput, TooManyRequests, Unauthenticated, Unavailable
from mesh.kit.ids import NodeId
from mesh.kit.logs import F
from pki import csr, tokens
from pki.authority import Authority, Issued
from pki.names import Identity, Kind, server_name
from pki.policy import LEAF_LIFETIME
from pki.refusals import Refusals, source_of

log = logging.getLogger(__name__)

UNKNOWN_EVERY_S = 3600.0  # tokens that nobody made are audited once an hour and address, with their number ...
UNKNOWN_MOST = 60  # ... for this many addresses: audit rows stay for ever, and strangers make these


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a joining machine is given besides its certificate."""

    authority: Authority
    trust_bundle_pem: str
    node_endpoint: str

    def issue(self, key: csr.PublicKey, node_id: NodeId, now: datetime) -> Issued:
        """A certificate that names the node, for a day or as long as the node CA itself has left."""
        authority = self.authority
        left = authority.certificate.not_valid_after_utc - now
        try:
            return authority.sign(
                key,
                Identity(Kind.NODE, node_id, authority.trust_domain),
                now=now,
                ttl=min(LEAF_LIFETIME[Kind.NODE], left),
            )
        except InvalidInput as exc:  # nothing the caller sent: our CA is at its end
            log.error("node certificate not signed", extra={F.REASON: str(exc)})
            raise Unavailable("certificates cannot be issued at the moment") from exc


@dataclass(frozen=True)
class EnrollService(EnrollServiceServicer):
    """mesh.enroll.v1.EnrollService."""

    pool: Pool
    clock: Clock
    metrics: Metrics
    limiter: Limiter
    enrolment: Enrolment
    pepper: bytes
    strangers: Refusals = field(default_factory=lambda: Refusals(UNKNOWN_EVERY_S, UNKNOWN_MOST))

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        source = self._admit(context)
        token = tokens.parse(request.token)
        key = _public_key(request.csr_der)
        hostname = bounds.hostname(request.hostname)
        version = bounds.agent_version(request.agent_version)
        now = self.clock.now()
        async with within_budget(), transaction(self.pool) as db:
            outcome = await joining.join(
                db,
                token_id=token.id,
                mac=tokens.mac(self.pepper, token.secret),
                spki=csr.spki_sha256(key),
                hostname=hostname,
                agent_version=version,
                address=source,
                now=now,
                sign=lambda node_id: self.enrolment.issue(key, node_id, now),
            )
            unknown = 0
            if outcome is joining.Refusal.UNKNOWN:
                unknown = self.strangers.count(source, outcome, self.clock.monotonic())
                if unknown:
                    await joining.record_unknown(db, token_id=token.id, address=source, count=unknown, now=now)
        if isinstance(outcome, joining.Refusal):  # after the commit: its audit row stays
            self.limiter.failed(source, self.clock.monotonic())
            self.metrics.joined("refused")
            if unknown or outcome is not joining.Refusal.UNKNOWN:
                log.warning("join refused", extra={F.ADDRESS: source, F.REASON: str(outcome)})
            raise Unauthenticated("join_refused", "the token is unknown, expired, used or revoked")
        self.metrics.joined("joined")
        log.info("node joined", extra={F.NODE: outcome.node_id, F.ADDRESS: source})
        return pb.JoinResponse(
            node_id=outcome.node_id,
            certificate_chain_pem=outcome.issued.chain_pem,
            trust_bundle_pem=self.enrolment.trust_bundle_pem,
            node_endpoint=self.enrolment.node_endpoint,
            control_plane_server_name=server_name(Kind.CONTROL_PLANE, self.enrolment.authority.trust_domain),
        )

    async def GetTrustBundle(
        self, request: pb.GetTrustBundleRequest, context: Context
    ) -> pb.GetTrustBundleResponse:
        self._admit(context)
        return pb.GetTrustBundleResponse(
            trust_bundle_pem=self.enrolment.trust_bundle_pem, trust_domain=self.enrolment.authority.trust_domain
        )

    def _admit(self, context: Context) -> str:
        source = source_of(context.peer())
        try:
            self.limiter.admit(source, self.clock.monotonic())
        except TooManyRequests:
            self.metrics.joined("limited")
            raise
        return source


def _public_key(csr_der: bytes) -> csr.PublicKey:
    try:
        return csr.public_key_of(csr_der)
    except InvalidInput as exc:
        raise InvalidInput("csr_der", exc.problem) from exc
