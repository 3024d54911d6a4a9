"""meshctl key: keys of the OpenAI endpoint."""

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
from mesh.admin.v1 import api_key_pb2 as pb


@click.group()
def key() -> None:
    """Keys of the OpenAI endpoint."""


@key.command("create")
@click.argument("name", type=limits.KEY_NAME)
@click.option("--organization", "-o", type=limits.REFERENCE, required=True, help="Who consumes: id or name.")
@click.option("--ttl", type=limits.KEY_TTL, help="How long it is good, e.g. 30d; without it, until deleted.")
@json_option
@connection_options
@pass_invocation
def create(invocation: Invocation, name: str, organization: str, ttl: int | None, as_json: bool) -> None:
    """Make a key; NAME is for people. The key itself is shown once, alone on stdout."""
    request = pb.CreateApiKeyRequest(organization=organization, name=name, ttl_s=ttl or 0)
    made = invocation.admin(lambda admin: admin.call(request, pb.CreateApiKeyResponse))
    if as_json:
        output.show_json(made)
        return
    output.say(f"key {made.api_key.key_id} for {organization!r}; it is shown this once:")
    click.echo(made.secret_key)


@key.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all keys (never their secrets)."""

    async def ask(admin: Admin) -> tuple[pb.ListApiKeysResponse, dict[str, str]]:
        found = await admin.call(pb.ListApiKeysRequest(), pb.ListApiKeysResponse)
        return found, {} if as_json else await owner_names(admin)

    found, owners = invocation.admin(ask)
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("KEY", "NAME", "ORGANIZATION", "CREATED", "EXPIRES"),
        (
            (
                one.key_id,
                one.name,
                owners.get(one.organization_id, one.organization_id),
                output.ago(one, "created_at", now),
                output.until(one, "expires_at", now),
            )
            for one in found.api_keys
        ),
        empty="no keys; make one with `meshctl key create NAME --organization ORGANIZATION`",
    )


@key.command("get")
@click.argument("key_id", type=limits.REFERENCE)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, key_id: str, as_json: bool) -> None:
    """Show the key KEY_ID (never its secret)."""
    request = pb.GetApiKeyRequest(key_id=key_id)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetApiKeyResponse)).api_key
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_facts(
        (
            ("key", found.key_id),
            ("name", found.name),
            ("organization", found.organization_id),
            ("created", output.ago(found, "created_at", now)),
            ("expires", output.until(found, "expires_at", now)),
        )
    )


@key.command("delete")
@click.argument("key_id", type=limits.REFERENCE)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, key_id: str, yes: bool, as_json: bool) -> None:
    """Delete the key KEY_ID: every gateway refuses it from its next snapshot on."""
    confirm(f"Delete key {key_id!r}? Whoever uses it is refused from then on.", yes=yes)
    request = pb.DeleteApiKeyRequest(key_id=key_id)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteApiKeyResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"key {key_id!r} is deleted")
