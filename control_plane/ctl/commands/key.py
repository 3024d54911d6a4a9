"""meshctl key: keys of the OpenAI endpoint."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from control_plane.ctl import limits, output
from control_plane.ctl.admin import Admin
from control_plane.ctl.commands.budgets import limit_options, limit_words, limits_from
from control_plane.ctl.commands.owners import owner_names, project_names
from control_plane.ctl.commands.phases import PRIORITIES, priority_of, word_for_priority
from control_plane.ctl.invocation import (
    Invocation,
    confirm,
    connection_options,
    json_option,
    pass_invocation,
    yes_option,
)
from mesh.admin.v1 import api_key_pb2 as pb

Command = TypeVar("Command", bound=Callable[..., Any])


def policy_options(command: Command) -> Command:
    """Add the options that say what a key may do."""
    for option in (
        click.option("--priority", type=click.Choice(PRIORITIES), default="normal", show_default=True),
        click.option(
            "--weight", type=limits.WEIGHT, default=1, show_default=True, help="Share of a queue beside others."
        ),
        limit_options,
        click.option(
            "--allow-model", "models", type=limits.MODEL_NAME, multiple=True, help="Only this model; repeatable."
        ),
        click.option("--scope", "scopes", type=limits.SCOPE, multiple=True, help="Only this use; repeatable."),
    ):
        command = option(command)
    return command


@click.group()
def key() -> None:
    """Keys of the OpenAI endpoint."""


@key.command("create")
@click.argument("name", type=limits.KEY_NAME)
@click.option("--organization", "-o", type=limits.REFERENCE, required=True, help="Who consumes: id or name.")
@click.option("--project", "-p", type=limits.REFERENCE, help="Id or name of a project of that organization.")
@click.option("--ttl", type=limits.KEY_TTL, help="How long it is good, e.g. 30d; without it, until deleted.")
@policy_options
@json_option
@connection_options
@pass_invocation
def create(
    invocation: Invocation,
    /,
    name: str,
    organization: str,
    project: str | None,
    ttl: int | None,
    as_json: bool,
    **policy: Any,
) -> None:
    """Make a key; NAME is for people. The key itself is shown once, alone on stdout."""
    request = pb.CreateApiKeyRequest(
        organization=organization, name=name, ttl_s=ttl or 0, project=project or "", policy=_policy(**policy)
    )
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

    async def ask(admin: Admin) -> tuple[pb.ListApiKeysResponse, dict[str, str], dict[str, str]]:
        found = await admin.call(pb.ListApiKeysRequest(), pb.ListApiKeysResponse)
        return (found, {}, {}) if as_json else (found, await owner_names(admin), await project_names(admin))

    found, owners, projects = invocation.admin(ask)
    if as_json:
        output.show_json(found)
        return
    now = invocation.clock.now()
    output.show_table(
        ("KEY", "PREFIX", "NAME", "ORGANIZATION", "PROJECT", "LIMITS", "CREATED", "EXPIRES"),
        (
            (
                one.key_id,
                one.prefix,
                one.name,
                owners.get(one.organization_id, one.organization_id),
                projects.get(one.project_id, one.project_id) or "-",
                limit_words(one.policy.limits),
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
    _show(found, invocation, as_json=as_json)


@key.command("update")
@click.argument("key_id", type=limits.REFERENCE)
@policy_options
@json_option
@connection_options
@pass_invocation
def update(invocation: Invocation, /, key_id: str, as_json: bool, **policy: Any) -> None:
    """Replace all that the key KEY_ID may do: what is not given here is not restricted any more."""
    request = pb.UpdateApiKeyRequest(key_id=key_id, policy=_policy(**policy))
    changed = invocation.admin(lambda admin: admin.call(request, pb.UpdateApiKeyResponse)).api_key
    _show(changed, invocation, as_json=as_json)


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


def _policy(
    *, scopes: tuple[str, ...], models: tuple[str, ...], weight: int, priority: str, **budgets: int | None
) -> pb.ApiKeyPolicy:
    return pb.ApiKeyPolicy(
        scopes=scopes,
        allowed_models=models,
        limits=limits_from(budgets),
        weight=weight,
        priority=priority_of(priority),
    )


def _show(one: pb.ApiKey, invocation: Invocation, /, *, as_json: bool) -> None:
    if as_json:
        output.show_json(one)
        return
    now = invocation.clock.now()
    output.show_facts(
        (
            ("key", one.key_id),
            ("prefix", one.prefix),
            ("name", one.name),
            ("organization", one.organization_id),
            ("project", one.project_id),
            ("scopes", ", ".join(one.policy.scopes) or "every endpoint"),
            ("models", ", ".join(one.policy.allowed_models) or "all of its organization"),
            ("limits", limit_words(one.policy.limits)),
            ("weight", str(one.policy.weight)),
            ("priority", word_for_priority(one.policy.priority)),
            ("created", output.ago(one, "created_at", now)),
            ("expires", output.until(one, "expires_at", now)),
        )
    )
