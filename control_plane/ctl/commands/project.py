"""meshctl project: what keys are grouped by."""

import click

from control_plane.ctl import limits, output
from control_plane.ctl.admin import Admin
from control_plane.ctl.commands.budgets import limit_options, limit_words, limits_from
from control_plane.ctl.commands.owners import owner_names
from control_plane.ctl.invocation import (
    Invocation,
    confirm,
    connection_options,
    json_option,
    pass_invocation,
    yes_option,
)
from mesh.admin.v1 import project_pb2 as pb


@click.group()
def project() -> None:
    """Projects: keys with limits over all of them.

    PROJECT is an id, or ORGANIZATION/NAME.
    """


@project.command("create")
@click.argument("name", type=limits.NAME)
@click.option("--organization", "-o", type=limits.REFERENCE, required=True, help="Whose it is: id or name.")
@limit_options
@json_option
@connection_options
@pass_invocation
def create(invocation: Invocation, /, name: str, organization: str, as_json: bool, **budgets: int | None) -> None:
    """Make the project NAME."""
    request = pb.CreateProjectRequest(organization=organization, name=name, limits=limits_from(budgets))
    made = invocation.admin(lambda admin: admin.call(request, pb.CreateProjectResponse)).project
    _show(made, invocation, as_json=as_json)


@project.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all projects, with what was charged to each since its beginning."""

    async def ask(admin: Admin) -> tuple[pb.ListProjectsResponse, dict[str, str]]:
        found = await admin.call(pb.ListProjectsRequest(), pb.ListProjectsResponse)
        return found, {} if as_json else await owner_names(admin)

    found, owners = invocation.admin(ask)
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("PROJECT", "ID", "LIMITS", "TOKENS", "EUR", "CREATED"),
        (
            (
                f"{owners.get(one.organization_id, one.organization_id)}/{one.name}",
                one.project_id,
                limit_words(one.limits),
                str(one.charged_tokens),
                output.euros(one.charged_money),
                output.ago(one, "created_at", now),
            )
            for one in found.projects
        ),
        empty="no projects; make one with `meshctl project create NAME --organization ORGANIZATION`",
    )


@project.command("get")
@click.argument("project", type=limits.PROJECT)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, project: str, as_json: bool) -> None:
    """Show PROJECT."""
    request = pb.GetProjectRequest(project=project)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetProjectResponse)).project
    _show(found, invocation, as_json=as_json)


@project.command("update")
@click.argument("project", type=limits.PROJECT)
@limit_options
@json_option
@connection_options
@pass_invocation
def update(invocation: Invocation, /, project: str, as_json: bool, **budgets: int | None) -> None:
    """Replace all limits of PROJECT: what is not given here is unlimited from now on."""
    request = pb.UpdateProjectRequest(project=project, limits=limits_from(budgets))
    changed = invocation.admin(lambda admin: admin.call(request, pb.UpdateProjectResponse)).project
    _show(changed, invocation, as_json=as_json)


@project.command("delete")
@click.argument("project", type=limits.PROJECT)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, project: str, yes: bool, as_json: bool) -> None:
    """Delete PROJECT, which must have no keys any more."""
    confirm(f"Delete project {project!r}?", yes=yes)
    request = pb.DeleteProjectRequest(project=project)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteProjectResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"project {project!r} is deleted")


def _show(one: pb.Project, invocation: Invocation, *, as_json: bool) -> None:
    if as_json:
        output.show_json(one)
        return
    output.show_facts(
        (
            ("name", one.name),
            ("id", one.project_id),
            ("organization", one.organization_id),
            ("limits", limit_words(one.limits)),
            ("charged", f"{one.charged_tokens} tokens, {output.euros(one.charged_money)} EUR"),
            ("created", output.ago(one, "created_at", invocation.clock.now())),
        )
    )
