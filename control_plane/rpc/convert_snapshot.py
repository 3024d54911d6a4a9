"""Core values → protobuf: what gateways work from."""

from control_plane.core.snapshot import KeyEntry, ModelEntry, Route, Snapshot
from control_plane.rpc.convert_limits import limits_out, price_out, priority_out, routing_policy_out
from control_plane.rpc.convert_out import PHASES, timestamp
from mesh.gateway.v1 import gateway_pb2


def snapshot(value: Snapshot, *, pepper: bytes) -> gateway_pb2.Snapshot:
    """The whole of it, with the pepper that gateways compare keys' secrets by."""
    return gateway_pb2.Snapshot(
        revision=value.revision,
        key_pepper=pepper,
        api_keys=map(_key, value.api_keys),
        models=map(_model, value.models),
        revoked_nodes=value.revoked_nodes,
        projects=[
            gateway_pb2.Project(
                project_id=one.project_id,
                organization_id=one.organization_id,
                limits=limits_out(one.limits),
            )
            for one in value.projects
        ],
        peers=[
            gateway_pb2.Peer(hub_id=one.hub_id, endpoint=one.endpoint, server_name=one.server_name)
            for one in value.peers
        ],
    )


def _key(value: KeyEntry) -> gateway_pb2.ApiKey:
    return gateway_pb2.ApiKey(
        key_id=value.key_id,
        secret_mac=value.secret_mac,
        organization_id=value.organization_id,
        expires_at=timestamp(value.expires_at),
        project_id=value.project_id or "",
        scopes=value.policy.scopes,
        allowed_models=value.policy.allowed_models,
        limits=limits_out(value.policy.limits),
        weight=value.policy.weight,
        priority=priority_out(value.policy.priority),
    )


def _model(value: ModelEntry) -> gateway_pb2.Model:
    return gateway_pb2.Model(
        name=value.name,
        created_at=timestamp(value.created_at),
        context_length=value.context_length,
        routes=map(_route, value.routes),
        aliases=value.aliases,
        engine_name=value.engine_name,
        base_model=value.base_model,
        policy=routing_policy_out(value.policy),
        price=price_out(value.price),
        pass_through=value.pass_through,
        can_start=value.can_start,
    )


def _route(value: Route) -> gateway_pb2.Route:
    return gateway_pb2.Route(
        worker_id=value.worker_id,
        node_id=value.node_id,
        deployment_id=value.deployment_id,
        engine=value.engine,
        slots=value.slots,
        phase=PHASES[value.phase],
        weight=value.weight,
    )
