"""meshctl model: what can be deployed."""

from collections.abc import Callable
from typing import Any, TypeVar

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
from mesh.admin.v1 import model_pb2 as pb
from mesh.gateway.v1 import gateway_pb2
from mesh.types.v1 import worker_pb2

Command = TypeVar("Command", bound=Callable[..., Any])


def naming_options(command: Command) -> Command:
    """Add the options for what a model is called and what it costs."""
    for option in (
        click.option(
            "--price-completion", type=limits.PRICE, default=0, help="EUR for a million tokens of answers."
        ),
        click.option(
            "--price-cached",
            type=limits.PRICE,
            default=0,
            help="EUR for a million prompt tokens that were cached.",
        ),
        click.option("--price-prompt", type=limits.PRICE, default=0, help="EUR for a million prompt tokens."),
        click.option(
            "--alias",
            "aliases",
            type=limits.MODEL_NAME,
            multiple=True,
            help="Another name clients may ask for; repeatable.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def model() -> None:
    """Models: what can be deployed."""


@model.command("create")
@click.argument("name", type=limits.MODEL_NAME)
@click.option(
    "--source",
    type=limits.SOURCE,
    required=True,
    help="package:PYTHON_PACKAGE/FILE, file:///ABSOLUTE/PATH, or simulator:KEY=VALUE,… for no weights at all.",
)
@click.option("--context-length", type=limits.CONTEXT_LENGTH, default=4096, show_default=True, help="Tokens.")
@click.option(
    "--memory", type=limits.Size(), default="1GiB", show_default=True, help="Host memory of a CPU worker."
)
@click.option(
    "--vram", type=limits.Size(), help="Video memory a worker needs in all; without it, it runs on the CPU."
)
@click.option("--gpus", type=limits.GPU_COUNT, default=0, show_default=True, help="Accelerators a worker needs.")
@naming_options
@click.option(
    "--adapter",
    "adapters",
    type=limits.NamedSource(),
    multiple=True,
    help="NAME=SOURCE of an adapter (LoRA) to serve beside it; repeatable.",
)
@json_option
@connection_options
@pass_invocation
def create(
    invocation: Invocation,
    /,
    name: str,
    source: str,
    context_length: int,
    memory: int,
    vram: int | None,
    gpus: int,
    adapters: tuple[tuple[str, str], ...],
    as_json: bool,
    aliases: tuple[str, ...],
    **prices: int,
) -> None:
    """Make the model NAME; it is what clients ask for."""
    request = pb.CreateModelRequest(
        name=name,
        source=source,
        context_length=context_length,
        memory_bytes=memory,
        vram_bytes=vram or 0,
        gpu_count=gpus,
        aliases=aliases,
        price=_price(**prices),
        adapters=[worker_pb2.Adapter(name=one, source=where) for one, where in adapters],
    )
    made = invocation.admin(lambda admin: admin.call(request, pb.CreateModelResponse)).model
    _show(made, invocation, as_json=as_json)


@model.command("list")
@json_option
@connection_options
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """Show all models."""
    found = invocation.admin(lambda admin: admin.call(pb.ListModelsRequest(), pb.ListModelsResponse))
    if as_json:
        output.show_json(found)
        return
    output.show_table(
        ("NAME", "CONTEXT", "NEEDS", "SOURCE"),
        ((one.name, str(one.context_length), _needs(one), one.source) for one in found.models),
        empty="no models; make one with `meshctl model create NAME --source SOURCE`",
    )


@model.command("get")
@click.argument("model", type=limits.REFERENCE)
@json_option
@connection_options
@pass_invocation
def get(invocation: Invocation, model: str, as_json: bool) -> None:
    """Show MODEL (id or name)."""
    request = pb.GetModelRequest(model=model)
    found = invocation.admin(lambda admin: admin.call(request, pb.GetModelResponse)).model
    _show(found, invocation, as_json=as_json)


@model.command("update")
@click.argument("model", type=limits.REFERENCE)
@naming_options
@json_option
@connection_options
@pass_invocation
def update(invocation: Invocation, /, model: str, as_json: bool, aliases: tuple[str, ...], **prices: int) -> None:
    """Replace aliases and prices of MODEL (id or name): what is not given here is gone."""
    request = pb.UpdateModelRequest(model=model, aliases=aliases, price=_price(**prices))
    changed = invocation.admin(lambda admin: admin.call(request, pb.UpdateModelResponse)).model
    _show(changed, invocation, as_json=as_json)


@model.command("delete")
@click.argument("model", type=limits.REFERENCE)
@yes_option
@json_option
@connection_options
@pass_invocation
def delete(invocation: Invocation, model: str, yes: bool, as_json: bool) -> None:
    """Delete MODEL (id or name), which must not be deployed any more."""
    confirm(f"Delete model {model!r}?", yes=yes)
    request = pb.DeleteModelRequest(model=model)
    gone = invocation.admin(lambda admin: admin.call(request, pb.DeleteModelResponse))
    if as_json:
        output.show_json(gone)
    else:
        output.say(f"model {model!r} is deleted")


def _needs(one: pb.Model) -> str:
    if not one.gpu_count:
        return f"CPU, {output.size(one.memory_bytes)}"
    return f"{one.gpu_count} GPU, {output.size(one.vram_bytes)}"


def _price(*, price_prompt: int, price_cached: int, price_completion: int) -> gateway_pb2.Price:
    return gateway_pb2.Price(prompt=price_prompt, cached=price_cached, completion=price_completion)


def _costs(price: gateway_pb2.Price) -> str:
    if not (price.prompt or price.cached or price.completion):
        return "nothing"
    parts = (("prompt", price.prompt), ("cached", price.cached), ("completion", price.completion))
    return ", ".join(f"{name} {output.euros(nano)}" for name, nano in parts) + " EUR for a million tokens"


def _show(one: pb.Model, invocation: Invocation, *, as_json: bool) -> None:
    if as_json:
        output.show_json(one)
        return
    output.show_facts(
        (
            ("name", one.name),
            ("id", one.model_id),
            ("source", one.source),
            ("context", f"{one.context_length} tokens"),
            ("needs", _needs(one)),
            ("aliases", ", ".join(one.aliases)),
            ("costs", _costs(one.price)),
            ("adapters", ", ".join(f"{adapter.name} ({adapter.source})" for adapter in one.adapters)),
            ("created", output.ago(one, "created_at", invocation.clock.now())),
        )
    )
