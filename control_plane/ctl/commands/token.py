"""meshctl token: one-time tokens by which machines join."""

from datetime import datetime

import click

from control_plane.ctl import limits, output
from control_plane.ctl.admin import Admin
from control_plane.ctl.commands.owners import owner_names
from control_plane.ctl.invocation import (
    Invocation,
    confirm,
    connection_options,
    json_option,
    pass_invocation,
    yes_option,
)
from mesh.admin.v1 import join_token_pb2 as pb


@click.group()
def token() -> None:
    """One-time tokens by which machines join."""


@token.command("create")
@click.option(
    "--organization", "-o", type=limits.REFERENCE, required=True, help="Owner of the machines: id or name."
)
@click.option("--ttl", type=limits.TOKEN_TTL, default="15m", show_default=True, help="How long it may be used.")
@click.option("--uses", type=limits.TOKEN_USES, default=1, show_default=True, help="How many machines it makes.")
@json_option
@connection_options
@pass_invocation
def create(invocation: Invocation, organization: str, ttl: int, uses: int, as_json: bool) -> None:
    """Make a join token. The token itself is shown once, alone on stdout."""
    request = pb.CreateJoinTokenRequest(organization=organization, ttl_s=ttl, uses=uses)
    made = invocation.admin(lambda admin: admin.call(request, pb.CreateJoinTokenResponse))
    if as_json:
        output.show_json(made)
        return
    expires = output.until(made.join_token, "expires_at", invocation.clock.now())
    output.say(
        f"join token for machines of {organization!r}, expires {expires}. On the machine, run this and paste:"
    )
    output.say(f"  mesh-agent enroll --control-plane {made.enroll_endpoint} --ca-pin {made.ca_pin}")
    output.say("the token, shown this once:")
    click.echo(made.token)


@token.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all join tokens (never their secrets)."""

    async def ask(admin: Admin) -> tuple[pb.ListJoinTokensResponse, dict[str, str]]:
        found = await admin.call(pb.ListJoinTokensRequest(), pb.ListJoinTokensResponse)
        return found, {} if as_json else await owner_names(admin)

    found, owners = invocation.admin(ask)
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("TOKEN", "ORGANIZATION", "STATE", "USES LEFT", "CREATED", "EXPIRES"),
        (
            (
                one.token_id,
                owners.get(one.organization_id, one.organization_id),
                state_of(one, now),
                str(one.uses_left),
                output.ago(one, "created_at", now),
                output.until(one, "expires_at", now),
            )
            for one in found.join_tokens
        ),
        empty="no join tokens; make one with `meshctl token create --organization ORGANIZATION`",
    )


@token.command("get")
@click.argument("token_id", type=limits.REFERENCE)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, token_id: str, as_json: bool) -> None:
    """Show the join token TOKEN_ID (never its secret)."""
    request = pb.GetJoinTokenRequest(token_id=token_id)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetJoinTokenResponse)).join_token
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_facts(
        (
            ("token", found.token_id),
            ("organization", found.organization_id),
            ("state", state_of(found, now)),
            ("uses left", str(found.uses_left)),
            ("created", output.ago(found, "created_at", now)),
            ("expires", output.until(found, "expires_at", now)),
        )
    )


@token.command("delete")
@click.argument("token_id", type=limits.REFERENCE)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, token_id: str, yes: bool, as_json: bool) -> None:
    """Revoke the join token TOKEN_ID; the nodes it made stay."""
    confirm(f"Revoke join token {token_id!r}?", yes=yes)
    request = pb.DeleteJoinTokenRequest(token_id=token_id)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteJoinTokenResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"join token {token_id!r} is revoked")


def state_of(one: pb.JoinToken, now: datetime) -> str:
    """Whether a machine may still join with it."""
    if one.HasField("revoked_at"):
        return "revoked"
    if output.moment(one.expires_at) <= now:
        return "expired"
    return "active" if one.uses_left else "spent"
