"""meshctl organization: who consumes and who owns machines."""

import click

from control_plane.ctl import limits, output
from control_plane.ctl.invocation import (
    Invocation,
    confirm,
    connection_options,
    json_option,
    pass_invocation,
    yes_option,
)
from mesh.admin.v1 import organization_pb2 as pb


@click.group()
def organization() -> None:
    """Organizations: who consumes, and who owns machines."""


@organization.command("create")
@click.argument("name", type=limits.NAME)
@json_option
@connection_options
@pass_invocation
def create(invocation: Invocation, name: str, as_json: bool) -> None:
    """Make the organization NAME."""
    made = invocation.admin(
        lambda admin: admin.call(pb.CreateOrganizationRequest(name=name), pb.CreateOrganizationResponse)
    ).organization
    if as_json:
        output.show_json(made)
    else:
        _show(made, invocation)


@organization.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all organizations."""
    found = invocation.admin(lambda admin: admin.call(pb.ListOrganizationsRequest(), pb.ListOrganizationsResponse))
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("NAME", "ID", "CREATED"),
        ((one.name, one.organization_id, output.ago(one, "created_at", now)) for one in found.organizations),
        empty="no organizations; make one with `meshctl organization create NAME`",
    )


@organization.command("get")
@click.argument("organization", type=limits.REFERENCE)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, organization: str, as_json: bool) -> None:
    """Show ORGANIZATION (id or name)."""
    request = pb.GetOrganizationRequest(organization=organization)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetOrganizationResponse)).organization
    if as_json:
        output.show_json(found)
    else:
        _show(found, invocation)


@organization.command("delete")
@click.argument("organization", type=limits.REFERENCE)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, organization: str, yes: bool, as_json: bool) -> None:
    """Delete ORGANIZATION (id or name), which must own nothing any more."""
    confirm(f"Delete organization {organization!r}?", yes=yes)
    request = pb.DeleteOrganizationRequest(organization=organization)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteOrganizationResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"organization {organization!r} is deleted")


def _show(one: pb.Organization, invocation: Invocation) -> None:
    output.show_facts(
        (
            ("name", one.name),
            ("id", one.organization_id),
            ("created", output.ago(one, "created_at", invocation.clock.now())),
        )
    )
