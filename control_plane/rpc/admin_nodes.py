"""Nodes, as operators handle them. They are made by joining."""

from dataclasses import dataclass

from control_plane.core import bounds
from control_plane.rpc import convert_out
from control_plane.rpc.desk import Context, Desk
from control_plane.store import nodes
from mesh.admin.v1 import node_pb2 as pb
from mesh.admin.v1.node_pb2_grpc import NodeServiceServicer
from mesh.kit.ids import NodeId


@dataclass(frozen=True)
class NodeAdminService(NodeServiceServicer):
    """mesh.admin.v1.NodeService."""

    desk: Desk

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        async with self.desk.read() as db:
            found = await nodes.list_(db)
        return pb.ListNodesResponse(nodes=map(convert_out.node, found))

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.GetNodeResponse:
        wanted = NodeId(bounds.lookup("node_id", request.node_id))
        async with self.desk.read() as db:
            found = await nodes.get(db, wanted)
        return pb.GetNodeResponse(node=convert_out.node(found))

    async def DeleteNode(self, request: pb.DeleteNodeRequest, context: Context) -> pb.DeleteNodeResponse:
        wanted = NodeId(bounds.lookup("node_id", request.node_id))
        async with self.desk.change(context) as change:
            revoked = await nodes.revoke(change.db, wanted, now=change.now)
            await change.audit("node_revoked", f"node/{revoked.node_id}", {"hostname": revoked.hostname})
        return pb.DeleteNodeResponse()
