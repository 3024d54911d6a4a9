"""meshctl deployment: this model, this engine, this many replicas."""

import click

from control_plane.ctl import limits, output, progress
from control_plane.ctl.admin import Admin
from control_plane.ctl.commands.phases import POLICIES, phase_of, policy_of, word_for_policy
from control_plane.ctl.invocation import (
    Invocation,
    confirm,
    connection_options,
    json_option,
    pass_invocation,
    yes_option,
)
from mesh.admin.v1 import deployment_pb2 as pb

DEFAULT_WAIT = "10m"


@click.group()
def deployment() -> None:
    """Deployments: this model, this engine, this many replicas."""


timeout_option = click.option(
    "--timeout", type=limits.WAIT, default=DEFAULT_WAIT, show_default=True, help="How long to wait at most."
)


pass_through_option = click.option(
    "--pass-through",
    type=limits.PATH,
    multiple=True,
    help="A further path of the engine that clients may use, e.g. /v1/audio/speech; repeatable.",
)


@deployment.command("create")
@click.argument("name", type=limits.NAME, required=False)
@click.option("--model", "-m", type=limits.REFERENCE, required=True, help="What to serve: id or name.")
@click.option("--replicas", "-r", type=limits.REPLICAS, default=1, show_default=True, help="Workers.")
@click.option("--slots", type=limits.SLOTS, default=4, show_default=True, help="Requests a worker takes at once.")
@click.option(
    "--engine", type=limits.REFERENCE, default="llamacpp", show_default=True, help="What runs the model."
)
@click.option(
    "--policy", type=click.Choice(POLICIES), default="balanced", show_default=True, help="How a worker is chosen."
)
@pass_through_option
@click.option("--wait", is_flag=True, help="Return when all its workers answer requests.")
@timeout_option
@json_option
@connection_options
@pass_invocation
def create(
    invocation: Invocation,
    name: str | None,
    model: str,
    replicas: int,
    slots: int,
    engine: str,
    policy: str,
    pass_through: tuple[str, ...],
    wait: bool,
    timeout: int,
    as_json: bool,
) -> None:
    """Deploy a model; NAME is the model's unless given."""
    request = pb.CreateDeploymentRequest(
        name=name or "",
        model=model,
        engine=engine,
        replicas=replicas,
        slots=slots,
        policy=policy_of(policy),
        pass_through=pass_through,
    )

    async def make(admin: Admin) -> pb.Deployment:
        made = (await admin.call(request, pb.CreateDeploymentResponse)).deployment
        return await _wait(admin, made.deployment_id, invocation, timeout) if wait else made

    _show(invocation.admin(make), invocation, as_json=as_json)


@deployment.command("wait")
@click.argument("deployment", type=limits.REFERENCE)
@timeout_option
@json_option
@connection_options
@pass_invocation
def wait_(invocation: Invocation, deployment: str, timeout: int, as_json: bool) -> None:
    """Wait until all workers of DEPLOYMENT (id or name) answer requests."""
    found = invocation.admin(lambda admin: _wait(admin, deployment, invocation, timeout))
    _show(found, invocation, as_json=as_json)


@deployment.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all deployments."""
    found = invocation.admin(lambda admin: admin.call(pb.ListDeploymentsRequest(), pb.ListDeploymentsResponse))
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("NAME", "MODEL", "READY", "SLOTS", "ENGINE", "CREATED", "WHY"),
        (
            (
                one.name,
                one.model,
                f"{progress.ready_count(one)}/{one.replicas}",
                str(one.slots),
                one.engine,
                output.ago(one, "created_at", now),
                one.pending_reason or _trouble(one),
            )
            for one in found.deployments
        ),
        empty="no deployments; make one with `meshctl deployment create --model MODEL`",
    )


@deployment.command("get")
@click.argument("deployment", type=limits.REFERENCE)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, deployment: str, as_json: bool) -> None:
    """Show DEPLOYMENT (id or name) and its workers."""
    request = pb.GetDeploymentRequest(deployment=deployment)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetDeploymentResponse)).deployment
    _show(found, invocation, as_json=as_json)


@deployment.command("update")
@click.argument("deployment", type=limits.REFERENCE)
@click.option("--policy", type=click.Choice(POLICIES), help="How a worker is chosen; without it, as before.")
@pass_through_option
@json_option
@connection_options
@pass_invocation
def update(
    invocation: Invocation, deployment: str, policy: str | None, pass_through: tuple[str, ...], as_json: bool
) -> None:
    """Route DEPLOYMENT (id or name) so from now on; paths not given here are closed. Its workers stay."""
    request = pb.UpdateDeploymentRequest(
        deployment=deployment, policy=policy_of(policy) if policy else None, pass_through=pass_through
    )
    changed = invocation.admin(lambda admin: admin.call(request, pb.UpdateDeploymentResponse)).deployment
    _show(changed, invocation, as_json=as_json)


@deployment.command("delete")
@click.argument("deployment", type=limits.REFERENCE)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, deployment: str, yes: bool, as_json: bool) -> None:
    """Delete DEPLOYMENT (id or name); its workers are stopped."""
    confirm(f"Delete deployment {deployment!r}? Its workers are stopped.", yes=yes)
    request = pb.DeleteDeploymentRequest(deployment=deployment)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteDeploymentResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"deployment {deployment!r} is deleted")


async def _wait(admin: Admin, deployment: str, invocation: Invocation, timeout_s: int) -> pb.Deployment:
    with progress.display() as shown:
        return await progress.until_ready(admin, deployment, shown, invocation.clock, budget_s=timeout_s)


def _trouble(one: pb.Deployment) -> str:
    return next((worker.detail for worker in one.workers if phase_of(worker.phase) == "failed"), "")


def _show(one: pb.Deployment, invocation: Invocation, *, as_json: bool) -> None:
    if as_json:
        output.show_json(one)
        return
    output.show_facts(
        (
            ("name", one.name),
            ("id", one.deployment_id),
            ("model", one.model),
            ("engine", one.engine),
            ("ready", f"{progress.ready_count(one)} of {one.replicas}"),
            ("slots", str(one.slots)),
            ("policy", word_for_policy(one.policy)),
            ("pass-through", ", ".join(one.pass_through)),
            ("pending", one.pending_reason),
            ("created", output.ago(one, "created_at", invocation.clock.now())),
        )
    )
    if one.workers:
        click.echo()
        output.show_table(
            ("WORKER", "NODE", "PHASE", "PROGRESS", "DETAIL"),
            (
                (w.worker_id, w.node_id, phase_of(w.phase), f"{w.progress_percent} %", w.detail)
                for w in one.workers
            ),
            empty="",
        )
