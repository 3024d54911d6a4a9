"""One-time tokens by which machines join, as operators handle them."""

from dataclasses import dataclass

from control_plane.core import bounds
from control_plane.rpc import convert_out
from control_plane.rpc.desk import Context, Desk
from control_plane.store import join_tokens, organizations
from mesh.admin.v1 import join_token_pb2 as pb
from mesh.admin.v1.join_token_pb2_grpc import JoinTokenServiceServicer
from pki import tokens


@dataclass(frozen=True)
class JoinTokenService(JoinTokenServiceServicer):
    """mesh.admin.v1.JoinTokenService."""

    desk: Desk
    pepper: bytes
    ca_pin: str
    enroll_endpoint: str

    async def CreateJoinToken(
        self, request: pb.CreateJoinTokenRequest, context: Context
    ) -> pb.CreateJoinTokenResponse:
        owner = bounds.lookup("organization", request.organization)
        token = tokens.new_token()
        async with self.desk.change(context) as change:
            organization = await organizations.get(change.db, owner)
            made = bounds.join_token(
                token_id=token.id,
                organization_id=organization.organization_id,
                ttl_s=request.ttl_s,
                uses=request.uses,
                now=change.now,
            )
            await join_tokens.record(change.db, made, mac=tokens.mac(self.pepper, token.secret))
            await change.audit(
                "join_token_created",
                f"join_token/{made.token_id}",
                {
                    "organization_id": made.organization_id,
                    "uses": made.uses_left,
                    "expires_at": str(made.expires_at),
                },
            )
        return pb.CreateJoinTokenResponse(
            join_token=convert_out.join_token(made),
            token=token.reveal(),
            ca_pin=self.ca_pin,
            enroll_endpoint=self.enroll_endpoint,
        )

    async def ListJoinTokens(
        self, request: pb.ListJoinTokensRequest, context: Context
    ) -> pb.ListJoinTokensResponse:
        async with self.desk.read() as db:
            found = await join_tokens.list_(db)
        return pb.ListJoinTokensResponse(join_tokens=map(convert_out.join_token, found))

    async def GetJoinToken(self, request: pb.GetJoinTokenRequest, context: Context) -> pb.GetJoinTokenResponse:
        wanted = bounds.lookup("token_id", request.token_id)
        async with self.desk.read() as db:
            found = await join_tokens.get(db, wanted)
        return pb.GetJoinTokenResponse(join_token=convert_out.join_token(found))

    async def DeleteJoinToken(
        self, request: pb.DeleteJoinTokenRequest, context: Context
    ) -> pb.DeleteJoinTokenResponse:
        wanted = bounds.lookup("token_id", request.token_id)
        async with self.desk.change(context) as change:
            revoked = await join_tokens.revoke(change.db, wanted, now=change.now)
            await change.audit(
                "join_token_revoked",
                f"join_token/{revoked.token_id}",
                {"organization_id": revoked.organization_id},
            )
        return pb.DeleteJoinTokenResponse()
