"""Projects, as operators handle them. What was charged to them comes from the ledger."""

from dataclasses import asdict, dataclass

from control_plane.core import bounds
from control_plane.core.projects import Project
from control_plane.rpc import convert_out
from control_plane.rpc.convert_limits import limits_in
from control_plane.rpc.desk import Context, Desk
from control_plane.store import ledger, organizations, projects
from control_plane.store.db import Db
from control_plane.store.ledger import Spent
from mesh.admin.v1 import project_pb2 as pb
from mesh.admin.v1.project_pb2_grpc import ProjectServiceServicer
from mesh.kit.ids import uuid7


@dataclass(frozen=True)
class ProjectService(ProjectServiceServicer):
    """mesh.admin.v1.ProjectService."""

    desk: Desk

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Context) -> pb.CreateProjectResponse:
        owner = bounds.lookup("organization", request.organization)
        async with self.desk.change(context) as change:
            made = bounds.project(
                project_id=uuid7(change.now),
                organization_id=(await organizations.get(change.db, owner)).organization_id,
                name=request.name,
                wanted=limits_in(request.limits),
                now=change.now,
            )
            await projects.record(change.db, made)
            await change.audit(
                "project_created",
                f"project/{made.project_id}",
                {"organization_id": made.organization_id, "name": made.name, "limits": asdict(made.limits)},
            )
        return pb.CreateProjectResponse(project=convert_out.project(made, Spent()))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        async with self.desk.read() as db:
            found = [convert_out.project(one, await _spent(db, one)) for one in await projects.list_(db)]
        return pb.ListProjectsResponse(projects=found)

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.GetProjectResponse:
        wanted = bounds.project_lookup("project", request.project)
        async with self.desk.read() as db:
            found = await projects.get(db, wanted)
            spent = await _spent(db, found)
        return pb.GetProjectResponse(project=convert_out.project(found, spent))

    async def UpdateProject(self, request: pb.UpdateProjectRequest, context: Context) -> pb.UpdateProjectResponse:
        wanted = bounds.project_lookup("project", request.project)
        limits = bounds.limits("limits", limits_in(request.limits))
        async with self.desk.change(context) as change:
            spent = await _spent(change.db, await projects.get(change.db, wanted))
            changed = await projects.update(change.db, wanted, limits)
            await change.audit(
                "project_updated",
                f"project/{changed.project_id}",
                {"name": changed.name, "limits": asdict(changed.limits)},
            )
        return pb.UpdateProjectResponse(project=convert_out.project(changed, spent))

    async def DeleteProject(self, request: pb.DeleteProjectRequest, context: Context) -> pb.DeleteProjectResponse:
        wanted = bounds.project_lookup("project", request.project)
        async with self.desk.change(context) as change:
            gone = await projects.delete(change.db, wanted)
            await change.audit("project_deleted", f"project/{gone.project_id}", {"name": gone.name})
        return pb.DeleteProjectResponse()


async def _spent(db: Db, project: Project) -> Spent:
    return await ledger.spent_by_project(db, project_id=project.project_id, since=project.created_at)
