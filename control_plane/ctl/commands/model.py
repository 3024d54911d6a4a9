"""meshctl model: what can be deployed."""

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


@click.group()
def model() -> None:
    """Models: what can be deployed."""


@model.command("create")
@click.argument("name", type=limits.MODEL_NAME)
@click.option(
    "--source",
    type=limits.SOURCE,
    required=True,
    help="Where the weights are: package:PYTHON_PACKAGE/FILE or file:///ABSOLUTE/PATH.",
)
@click.option("--context-length", type=limits.CONTEXT_LENGTH, default=4096, show_default=True, help="Tokens.")
@click.option(
    "--memory", type=limits.Size(), default="1GiB", show_default=True, help="Host memory of a CPU worker."
)
@click.option(
    "--vram", type=limits.Size(), help="Video memory a worker needs in all; without it, it runs on the CPU."
)
@click.option("--gpus", type=limits.GPU_COUNT, default=0, show_default=True, help="Accelerators a worker needs.")
@json_option
@connection_options
@pass_invocation
def create(
    invocation: Invocation,
    name: str,
    source: str,
    context_length: int,
    memory: int,
    vram: int | None,
    gpus: int,
    as_json: bool,
) -> None:
    """Make the model NAME; it is what clients ask for."""
    request = pb.CreateModelRequest(
        name=name,
        source=source,
        context_length=context_length,
        memory_bytes=memory,
        vram_bytes=vram or 0,
        gpu_count=gpus,
    )
    made = invocation.admin(lambda admin: admin.call(request, pb.CreateModelResponse)).model
    if as_json:
        output.show_json(made)
    else:
        _show(made, invocation)


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
    if as_json:
        output.show_json(found)
    else:
        _show(found, invocation)


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


def _show(one: pb.Model, invocation: Invocation) -> None:
    output.show_facts(
        (
            ("name", one.name),
            ("id", one.model_id),
            ("source", one.source),
            ("context", f"{one.context_length} tokens"),
            ("needs", _needs(one)),
            ("created", output.ago(one, "created_at", invocation.clock.now())),
        )
    )
