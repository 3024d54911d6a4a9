"""Deployments, as operators handle them. Placing them is the placer's duty, woken by the row."""

from dataclasses import dataclass

from control_plane.core import bounds
from control_plane.core.model import Assignment, RoutingPolicy
from control_plane.rpc import convert_out
from control_plane.rpc.convert_limits import routing_policy_in
from control_plane.rpc.desk import Context, Desk
from control_plane.store import assignments, deployments, models, nodes
from mesh.admin.v1 import deployment_pb2 as pb
from mesh.admin.v1.deployment_pb2_grpc import DeploymentServiceServicer
from mesh.kit.ids import DeploymentId, uuid7


@dataclass(frozen=True)
class DeploymentService(DeploymentServiceServicer):
    """mesh.admin.v1.DeploymentService."""

    desk: Desk

    async def CreateDeployment(
        self, request: pb.CreateDeploymentRequest, context: Context
    ) -> pb.CreateDeploymentResponse:
        wanted = bounds.lookup("model", request.model)
        async with self.desk.change(context) as change:
            made = bounds.deployment(
                deployment_id=DeploymentId(uuid7(change.now)),
                name=request.name,
                model=await models.get(change.db, wanted),
                engine=request.engine,
                replicas=request.replicas,
                slots=request.slots,
                now=change.now,
                policy=routing_policy_in(request.policy) or RoutingPolicy.BALANCED,
                pass_through=request.pass_through,
            )
            await deployments.record(change.db, made)
            await change.audit(
                "deployment_created",
                f"deployment/{made.deployment_id}",
                {"name": made.name, "model": made.model_name, "replicas": made.replicas, "slots": made.slots},
            )
        return pb.CreateDeploymentResponse(deployment=convert_out.deployment(made))

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, context: Context
    ) -> pb.ListDeploymentsResponse:
        async with self.desk.read() as db:
            found = await deployments.list_(db)
            placed = await assignments.list_(db)
            online = await nodes.online_ids(db)
        by_deployment = {one.deployment_id: list[Assignment]() for one in found}
        for worker in placed:
            by_deployment.get(worker.deployment_id, []).append(worker)
        return pb.ListDeploymentsResponse(
            deployments=[
                convert_out.deployment(one, by_deployment[one.deployment_id], online=online) for one in found
            ]
        )

    async def GetDeployment(self, request: pb.GetDeploymentRequest, context: Context) -> pb.GetDeploymentResponse:
        wanted = bounds.lookup("deployment", request.deployment)
        async with self.desk.read() as db:
            found = await deployments.get(db, wanted)
            placed = await assignments.list_(db, deployment_id=found.deployment_id)
            online = await nodes.online_ids(db)
        return pb.GetDeploymentResponse(deployment=convert_out.deployment(found, placed, online=online))

    async def UpdateDeployment(
        self, request: pb.UpdateDeploymentRequest, context: Context
    ) -> pb.UpdateDeploymentResponse:
        wanted = bounds.lookup("deployment", request.deployment)
        policy = routing_policy_in(request.policy)
        paths = bounds.paths(request.pass_through)
        async with self.desk.change(context) as change:
            found = await deployments.get(change.db, wanted)
            placed = await assignments.list_(change.db, deployment_id=found.deployment_id)
            online = await nodes.online_ids(change.db)
            changed = await deployments.update(change.db, found, policy=policy, pass_through=paths)
            await change.audit(
                "deployment_updated",
                f"deployment/{changed.deployment_id}",
                {"name": changed.name, "policy": changed.policy, "pass_through": list(changed.pass_through)},
            )
        return pb.UpdateDeploymentResponse(deployment=convert_out.deployment(changed, placed, online=online))

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, context: Context
    ) -> pb.DeleteDeploymentResponse:
        wanted = bounds.lookup("deployment", request.deployment)
        async with self.desk.change(context) as change:
            gone = await deployments.delete(change.db, wanted)
            await change.audit("deployment_deleted", f"deployment/{gone.deployment_id}", {"name": gone.name})
        return pb.DeleteDeploymentResponse()
