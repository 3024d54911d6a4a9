"""From a worker's specification and the machine it is on to the engine's command line."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.kit.errors import MeshError
from node_agent.core.worker import WorkerSpec

THREADS_PER_WORKER = 1  # more threads spin and starve their neighbours (measured: 5 times the CPU per token)


class EngineRefuses(MeshError):
    """The engine cannot do what the specification asks; the text says what to change."""

    code = "engine_refuses"


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and what its environment must hold besides the usual."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


def llamacpp(spec: WorkerSpec, *, python: str, script: str, model_path: str, port: int) -> Command:
    """llama.cpp's HTTP server on the CPU. EngineRefuses when the spec asks for accelerators or has no slots."""
    if spec.gpu_uuids:
        raise EngineRefuses(
            "engine llamacpp runs on the CPU only; deploy the model with no GPUs, or choose another engine"
        )
    if spec.adapters:
        raise EngineRefuses("engine llamacpp serves no adapters here; deploy the model without, or another engine")
    _check_room(spec)
    # fmt: off
    return Command(
        argv=(
            python,
            "-P",  # what lies in the working directory is not code
            script,
            "--model", model_path,
            f"--alias={spec.model}",  # one word: a name that begins with a dash is no option
            "--port", str(port),
            "--parallel", str(spec.slots),
            "--ctx", str(spec.context_length * spec.slots),
            "--threads", str(THREADS_PER_WORKER),
            # Prompts kept for reuse may take an eighth of what the worker is charged with.
            "--cache-mib", str(spec.memory_bytes // 8 // 2**20),
        ),
        # OpenMP's threads otherwise spin while they wait, and a busy machine pays for it.
        environment={
            "OMP_WAIT_POLICY": "passive",
            "GOMP_SPINCOUNT": "0",
            "OMP_NUM_THREADS": str(THREADS_PER_WORKER),
        },
    )
    # fmt: on


def simulator(spec: WorkerSpec, *, python: str, options: str, port: int) -> Command:
    """The simulator, which needs neither weights nor accelerators. EngineRefuses when the spec has no slots."""
    _check_room(spec)
    # fmt: off
    return Command(
        argv=(
            python,
            "-P",  # what lies in the working directory is not code
            "-m", "node_agent.engines.simulator_server",
            f"--model={spec.model}",  # one word: a name that begins with a dash is no option
            "--port", str(port),
            "--slots", str(spec.slots),
            "--ctx", str(spec.context_length),
            f"--options={options}",
            *(f"--lora-modules={name}" for name, _ in spec.adapters),
        ),
        environment={},
    )
    # fmt: on


def _check_room(spec: WorkerSpec) -> None:
    if spec.slots < 1 or spec.context_length < 1:
        raise EngineRefuses(
            f"a worker needs a slot and a token of context at least, not {spec.slots} and {spec.context_length}"
        )
