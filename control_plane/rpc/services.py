"""What is served on which listener, from the parts that the composition root brings."""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc

from control_plane.rpc.admin_api_keys import ApiKeyService
from control_plane.rpc.admin_deployments import DeploymentService
from control_plane.rpc.admin_join_tokens import JoinTokenService
from control_plane.rpc.admin_models import ModelService
from control_plane.rpc.admin_nodes import NodeAdminService
from control_plane.rpc.admin_organizations import OrganizationService
from control_plane.rpc.admin_projects import ProjectService
from control_plane.rpc.desk import Desk
from control_plane.rpc.enroll_service import EnrollService, Enrolment
from control_plane.rpc.gateway_service import GatewayLink
from control_plane.rpc.limits import Limiter
from control_plane.rpc.metrics import Metrics
from control_plane.rpc.node_service import Heartbeat, NodeLink
from control_plane.rpc.server import Services
from control_plane.rpc.sessions import Sessions
from control_plane.store.db import Pool
from control_plane.store.wake import Wake
from mesh.admin.v1 import (
    api_key_pb2_grpc,
    deployment_pb2_grpc,
    join_token_pb2_grpc,
    model_pb2_grpc,
    organization_pb2_grpc,
    project_pb2_grpc,
)
from mesh.admin.v1 import node_pb2_grpc as admin_node_pb2_grpc
from mesh.enroll.v1 import enroll_pb2_grpc
from mesh.gateway.v1 import gateway_pb2_grpc
from mesh.kit.clock import Clock
from mesh.node.v1 import node_pb2_grpc
from pki.authority import Authority
from pki.bundle import pin_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything the services stand on."""

    pool: Pool
    wake: Wake
    clock: Clock
    metrics: Metrics
    authority: Authority
    trust_bundle_pem: str
    pepper: bytes
    limiter: Limiter
    heartbeat: Heartbeat
    sessions: Sessions
    enroll_endpoint: str
    node_endpoint: str


def services(parts: Parts) -> Mapping[str, Services]:
    """By listener, what registers its services."""

    def enroll(server: grpc.aio.Server) -> None:
        enrolment = Enrolment(parts.authority, parts.trust_bundle_pem, parts.node_endpoint)
        service = EnrollService(parts.pool, parts.clock, parts.metrics, parts.limiter, enrolment, parts.pepper)
        enroll_pb2_grpc.add_EnrollServiceServicer_to_server(service, server)

    def node(server: grpc.aio.Server) -> None:
        service = NodeLink(parts.pool, parts.wake, parts.clock, parts.metrics, parts.heartbeat, parts.sessions)
        node_pb2_grpc.add_NodeServiceServicer_to_server(service, server)

    def gateway(server: grpc.aio.Server) -> None:
        service = GatewayLink(parts.pool, parts.wake, parts.clock, parts.metrics, parts.pepper)
        gateway_pb2_grpc.add_GatewayServiceServicer_to_server(service, server)

    def admin(server: grpc.aio.Server) -> None:
        desk = Desk(parts.pool, parts.clock)
        tokens = JoinTokenService(desk, parts.pepper, pin_of(parts.authority.root), parts.enroll_endpoint)
        organization_pb2_grpc.add_OrganizationServiceServicer_to_server(OrganizationService(desk), server)
        api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server(ApiKeyService(desk, parts.pepper), server)
        project_pb2_grpc.add_ProjectServiceServicer_to_server(ProjectService(desk), server)
        join_token_pb2_grpc.add_JoinTokenServiceServicer_to_server(tokens, server)
        admin_node_pb2_grpc.add_NodeServiceServicer_to_server(NodeAdminService(desk), server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(desk), server)
        deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(DeploymentService(desk), server)

    return {"enroll": enroll, "node": node, "gateway": gateway, "admin": admin}
