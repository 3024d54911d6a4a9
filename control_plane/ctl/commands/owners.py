"""Names for the organization ids that other things carry."""

from control_plane.ctl.admin import Admin
from mesh.admin.v1 import organization_pb2 as pb


async def owner_names(admin: Admin) -> dict[str, str]:
    """Every organization's name by its id."""
    found = await admin.call(pb.ListOrganizationsRequest(), pb.ListOrganizationsResponse)
    return {one.organization_id: one.name for one in found.organizations}
