"""From specification to command line, and from metrics text to numbers."""

from dataclasses import replace

import pytest

from node_agent.core.command import EngineRefuses, llamacpp
from node_agent.core.metrics import parse_load
from node_agent.core.worker import WorkerSpec
from node_agent.engines.llamacpp_server import arguments
from tests.fakes.engine import spec


def argv(of: WorkerSpec) -> tuple[str, ...]:
    return llamacpp(of, python="py", script="server.py", model_path="/m.gguf", port=4000).argv


def value(of: WorkerSpec, option: str) -> str:
    words = argv(of)
    return words[words.index(option) + 1]


@pytest.mark.parametrize(
    ("changes", "option", "expected"),
    [
        ({}, "--model", "/m.gguf"),
        ({}, "--port", "4000"),
        ({"slots": 8}, "--parallel", "8"),
        ({"slots": 8, "context_length": 2048}, "--ctx", "16384"),
        ({"slots": 8}, "--threads", "1"),
        ({"memory_bytes": 2 << 30}, "--cache-mib", "256"),
        ({"memory_bytes": 0}, "--cache-mib", "0"),
    ],
)
def test_the_specification_decides_the_command_line(
    changes: dict[str, object], option: str, expected: str
) -> None:
    assert value(replace(spec(), **changes), option) == expected  # type: ignore[arg-type]  # one field per case


@pytest.mark.parametrize("model", ["smollm2", "-x", "--help", "--port=1", "a=b"])
def test_a_model_may_be_called_anything_and_is_never_an_option(model: str) -> None:
    options = arguments(list(argv(replace(spec(), model=model))[3:]))
    assert (options.alias, options.port) == (model, 4000)


def test_the_program_is_run_without_its_folder_on_the_path_and_its_threads_do_not_spin() -> None:
    command = llamacpp(spec(), python="py", script="server.py", model_path="/m", port=1)
    assert command.argv[:3] == ("py", "-P", "server.py")
    assert command.environment == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("changes", [{"slots": 0}, {"context_length": 0}, {"gpu_uuids": ("GPU-1",)}])
def test_what_the_engine_cannot_do_is_refused_in_words(changes: dict[str, object]) -> None:
    with pytest.raises(EngineRefuses, match=r"slot|CPU only"):
        argv(replace(spec(), **changes))  # type: ignore[arg-type]  # one field per case


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llamacpp:requests_processing 3\nllamacpp:requests_deferred 4\n", (3, 4, None)),
        ('# HELP vllm:num_requests_running x\nvllm:num_requests_running{model_name="m"} 2.0\n', (2, None, None)),
        ('vllm:num_requests_waiting{a="1"} 2\nvllm:num_requests_waiting{a="2"} 5 1700000\n', (None, 7, None)),
        ('vllm:num_requests_waiting_by_reason{reason="capacity"} 9\n', (None, None, None)),
        ("llamacpp:requests_processing NaN\nllamacpp:requests_deferred nonsense\n", (0, 0, None)),
        ("llamacpp:requests_processing -1\n", (0, None, None)),
        (
            'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n',
            (None, None, 0.5),
        ),
        ("vllm:gpu_cache_usage_perc 0.125\n", (None, None, 0.125)),
        ("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0\n", (None, None, 0.0)),
        ("vllm:kv_cache_usage_perc 1.5\n", (None, None, 1.0)),
        ("vllm:kv_cache_usage_perc NaN\n", (None, None, 0.0)),
        ("", (None, None, None)),
    ],
)
def test_the_load_is_read_from_whatever_the_engine_calls_it(
    text: str, expected: tuple[int | None, int | None, float | None]
) -> None:
    assert parse_load(text) == expected
