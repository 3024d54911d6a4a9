"""Organizations, as operators handle them."""

from dataclasses import dataclass

from control_plane.core import bounds
from control_plane.rpc import convert_out
from control_plane.rpc.desk import Context, Desk
from control_plane.store import organizations
from mesh.admin.v1 import organization_pb2 as pb
from mesh.admin.v1.organization_pb2_grpc import OrganizationServiceServicer
from mesh.kit.ids import OrganizationId, uuid7


@dataclass(frozen=True)
class OrganizationService(OrganizationServiceServicer):
    """mesh.admin.v1.OrganizationService."""

    desk: Desk

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Context
    ) -> pb.CreateOrganizationResponse:
        now = self.desk.clock.now()
        made = bounds.organization(organization_id=OrganizationId(uuid7(now)), name=request.name, now=now)
        async with self.desk.change(context) as change:
            await organizations.record(change.db, made)
            await change.audit("organization_created", f"organization/{made.organization_id}", {"name": made.name})
        return pb.CreateOrganizationResponse(organization=convert_out.organization(made))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        async with self.desk.read() as db:
            found = await organizations.list_(db)
        return pb.ListOrganizationsResponse(organizations=map(convert_out.organization, found))

    async def GetOrganization(
        self, request: pb.GetOrganizationRequest, context: Context
    ) -> pb.GetOrganizationResponse:
        wanted = bounds.lookup("organization", request.organization)
        async with self.desk.read() as db:
            found = await organizations.get(db, wanted)
        return pb.GetOrganizationResponse(organization=convert_out.organization(found))

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, context: Context
    ) -> pb.DeleteOrganizationResponse:
        wanted = bounds.lookup("organization", request.organization)
        async with self.desk.change(context) as change:
            gone = await organizations.delete(change.db, wanted)
            await change.audit("organization_deleted", f"organization/{gone.organization_id}", {"name": gone.name})
        return pb.DeleteOrganizationResponse()
