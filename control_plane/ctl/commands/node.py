"""meshctl node: the machines that joined."""

import click

from control_plane.ctl import limits, output
from control_plane.ctl.admin import Admin
from control_plane.ctl.commands.owners import owner_names
from control_plane.ctl.commands.phases import phase_of
from control_plane.ctl.invocation import (
    Invocation,
    confirm,
    connection_options,
    json_option,
    pass_invocation,
    yes_option,
)
from mesh.admin.v1 import node_pb2 as pb


@click.group()
def node() -> None:
    """Nodes: the machines that joined (`meshctl token create` lets one in)."""


@node.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all nodes."""

    async def ask(admin: Admin) -> tuple[pb.ListNodesResponse, dict[str, str]]:
        found = await admin.call(pb.ListNodesRequest(), pb.ListNodesResponse)
        return found, {} if as_json else await owner_names(admin)

    found, owners = invocation.admin(ask)
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("NODE", "HOST", "OWNER", "STATE", "WORKERS", "GPUS", "CPU", "MEMORY", "AGENT", "SEEN"),
        (
            (
                one.node_id,
                one.hostname,
                owners.get(one.organization_id, one.organization_id),
                state_of(one),
                _workers(one),
                str(len(one.hardware.gpus)),
                f"{one.host.cpu_percent:.0f} %" if one.HasField("host") else "-",
                _memory(one),
                one.agent_info.version or "-",
                output.ago(one, "last_seen_at", now),
            )
            for one in found.nodes
        ),
        empty="no nodes; let a machine join with `meshctl token create --organization ORGANIZATION`",
    )


@node.command("get")
@click.argument("node_id", type=limits.REFERENCE)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, node_id: str, as_json: bool) -> None:
    """Show the node NODE_ID: its machine, its agent and its workers."""
    request = pb.GetNodeRequest(node_id=node_id)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetNodeResponse)).node
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    hardware = found.hardware
    output.show_facts(
        (
            ("node", found.node_id),
            ("host", found.hostname),
            ("owner", found.organization_id),
            ("state", state_of(found)),
            ("machine", f"{hardware.os} {hardware.arch}, {hardware.cpu_count} CPUs" if hardware.cpu_count else ""),
            ("memory", _memory(found)),
            *(("gpu", f"{gpu.name}, {output.size(gpu.memory_bytes)}, {gpu.uuid}") for gpu in hardware.gpus),
            ("agent", f"{found.agent_info.version} of {found.agent_info.build_date}"),
            ("checksum", found.agent_info.checksum),
            ("session", f"epoch {found.epoch}"),
            ("revision", f"{found.applied_revision} of {found.desired_revision}"),
            ("joined", output.ago(found, "created_at", now)),
            ("seen", output.ago(found, "last_seen_at", now)),
            ("certificate", f"expires {output.until(found, 'certificate_expires_at', now, never='-')}"),
        )
    )
    if found.workers:
        click.echo()
        output.show_table(
            ("WORKER", "PHASE", "STARTS", "ADOPTED", "RUNNING", "WAITING", "DETAIL"),
            (
                (
                    worker.worker_id,
                    phase_of(worker.phase),
                    str(worker.starts),
                    "yes" if worker.adopted else "no",
                    str(worker.requests_running) if worker.HasField("requests_running") else "-",
                    str(worker.requests_waiting) if worker.HasField("requests_waiting") else "-",
                    worker.detail,
                )
                for worker in found.workers
            ),
            empty="",
        )


@node.command("delete")
@click.argument("node_id", type=limits.REFERENCE)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, node_id: str, yes: bool, as_json: bool) -> None:
    """Revoke the node NODE_ID: its streams end, it may not return, its workers are placed elsewhere."""
    confirm(f"Revoke node {node_id!r}? It may not return without a new join token.", yes=yes)
    request = pb.DeleteNodeRequest(node_id=node_id)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteNodeResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"node {node_id!r} is revoked")


def state_of(one: pb.Node) -> str:
    """The state in one lower-case word."""
    if one.state not in pb.NodeState.values():
        return "unknown"
    return pb.NodeState.Name(one.state).removeprefix("NODE_STATE_").lower()


def _workers(one: pb.Node) -> str:
    if state_of(one) != "online":  # what it last said of them says nothing of now
        return "-"
    return f"{sum(phase_of(worker.phase) == 'ready' for worker in one.workers)}/{len(one.workers)}"


def _memory(one: pb.Node) -> str:
    total = one.host.memory_total_bytes or one.hardware.memory_bytes
    if not total:
        return "-"
    if not one.HasField("host"):
        return output.size(total)
    return f"{output.size(one.host.memory_used_bytes)} / {output.size(total)}"
