"""Names for the ids of organizations and projects that other things carry."""

from control_plane.ctl.admin import Admin
from mesh.admin.v1 import organization_pb2 as pb
from mesh.admin.v1 import project_pb2


async def owner_names(admin: Admin) -> dict[str, str]:
    """Every organization's name by its id."""
    found = await admin.call(pb.ListOrganizationsRequest(), pb.ListOrganizationsResponse)
    return {one.organization_id: one.name for one in found.organizations}


async def project_names(admin: Admin) -> dict[str, str]:
    """Every project's name by its id."""
    found = await admin.call(project_pb2.ListProjectsRequest(), project_pb2.ListProjectsResponse)
    return {one.project_id: one.name for one in found.projects}
