"""What the simulator may be told, and that a mistake is named."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.errors import InvalidInput
from mesh.node.v1 import node_pb2
from mesh.types.v1 import worker_pb2
from node_agent.control.convert import desired_state
from node_agent.core.command import EngineRefuses, llamacpp, simulator
from node_agent.core.desired import from_json, to_json
from node_agent.engines.simulator import Simulator
from node_agent.engines.simulator_options import Fault, Options, fault, parse
from node_agent.engines.simulator_server import arguments
from tests.fakes.engine import spec


def test_options_are_read() -> None:
    text = "seed=7, ttft_ms=10,token_ms=0.5,prefill_us_per_token=3,tokens=9,cache_blocks=4,loading_ms=100"
    assert parse(text) == Options(
        seed=7,
        ttft_ms=10.0,
        token_ms=0.5,
        prefill_us_per_token=3.0,
        tokens=9,
        cache_blocks=4,
        loading_ms=100,
    )
    assert parse("") == Options()
    assert parse("fault=stall_after_bytes:200,fault_every=10,fault_skip=1").fault == Fault(stall_after_bytes=200)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sed=7", "option 'sed' is not known; options are seed, ttft_ms"),
        ("seed", "option 'seed' needs a value"),
        ("seed=", "option 'seed' needs a value"),
        ("seed=x", "option seed='x' is not a whole number"),
        ("seed=1.5", "not a whole number"),
        ("token_ms=fast", "option token_ms='fast' is not a number"),
        ("token_ms=-1", "out of range"),
        ("token_ms=nan", "out of range"),
        ("token_ms=inf", "out of range"),
        ("fault=break", "'break' is not known; faults are close_after_bytes"),
        ("fault=stall_after_bytes:x", "stall_after_bytes needs a whole number"),
        ("fault=status:200", "status cannot be 200"),
        ("fault=stall_after_bytes:-1", "cannot be -1"),
        ("fault_every=3", "need a fault"),
    ],
)
def test_what_is_wrong_with_an_option_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse(text)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("no_headers", Fault(no_headers=1)),
        ("die_after_bytes:100", Fault(die_after_bytes=100)),
        ({"slow_headers_ms": 5, "status": 503}, Fault(slow_headers_ms=5, status=503)),
        ({"truncated": True}, Fault(truncated=1)),
        ({"truncated": False}, Fault()),
    ],
)
def test_a_fault_is_written_as_text_or_as_an_object(asked: object, expected: Fault) -> None:
    assert fault(asked) == expected


@pytest.mark.parametrize("asked", [3, [], {}, None, {"status": None}, {"status": [1]}])
def test_what_is_no_fault_is_refused(asked: object) -> None:
    with pytest.raises(InvalidInput, match="simulator_fault"):
        fault(asked)


def test_each_so_manieth_request_has_the_fault_after_those_that_never_have() -> None:
    options = parse("fault=no_headers,fault_every=3,fault_skip=1")
    assert [number for number in range(1, 12) if options.fault_of(number)] == [4, 7, 10]
    assert parse("fault=no_headers").fault_of(1) == Fault(no_headers=1)
    assert parse("seed=1").fault_of(1) is None


@given(st.integers(0, 1000))
def test_a_share_of_the_requests_has_the_fault_and_the_seed_says_which(seed: int) -> None:
    options = parse(f"seed={seed},fault=no_headers,fault_share=0.25")
    hit = [number for number in range(1, 401) if options.fault_of(number)]
    assert 50 <= len(hit) <= 150
    assert hit == [number for number in range(1, 401) if options.fault_of(number)]


def of(source: str, **changes: object) -> list[str]:
    wanted = replace(spec(engine="simulator"), source=source, **changes)  # type: ignore[arg-type]
    return list(Simulator("py").command(wanted, port=4000).argv)


def test_the_specification_becomes_a_command_line_that_the_program_understands() -> None:
    argv = of("simulator:seed=7,token_ms=5", model="--help", adapters=(("-a", "x"), ("b", "y")), slots=3)
    assert argv[:4] == ["py", "-P", "-m", "node_agent.engines.simulator_server"]
    options = arguments(argv[4:])
    assert (options.model, options.port, options.slots, options.ctx) == ("--help", 4000, 3, 512)
    assert options.options == Options(seed=7, token_ms=5.0)
    assert options.lora_modules == ["-a", "b"]


@pytest.mark.parametrize("source", ["package:x/y", "simulator", "", "simulators:seed=1"])
def test_another_source_is_refused_in_words(source: str) -> None:
    with pytest.raises(EngineRefuses, match="write the source as simulator:seed=7"):
        of(source)


def test_an_unknown_option_is_refused_before_anything_starts() -> None:
    with pytest.raises(EngineRefuses, match="'speed' is not known"):
        of("simulator:speed=1")


@pytest.mark.parametrize("changes", [{"slots": 0}, {"context_length": 0}])
def test_a_worker_without_room_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(EngineRefuses, match="a slot and a token of context"):
        of("simulator:", **changes)


def test_it_takes_any_accelerator_and_llamacpp_takes_no_adapters() -> None:
    assert simulator(replace(spec(), gpu_uuids=("GPU-1",)), python="py", options="", port=1).environment == {}
    with pytest.raises(EngineRefuses, match="no adapters"):
        llamacpp(replace(spec(), adapters=(("a", "b"),)), python="py", script="s", model_path="/m", port=1)


@pytest.mark.parametrize("wrong", [["--slots", "0"], ["--options", "x=1"], ["--ctx", "-1"]])
def test_a_wrong_command_line_ends_the_program_with_2(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments(["--model", "m", "--port", "1", *wrong])
    assert "simulator" in capsys.readouterr().err


def test_adapters_come_with_the_desired_state() -> None:
    adapters = [worker_pb2.Adapter(name="a", source="file:///a"), worker_pb2.Adapter(name="b", source="x")]
    message = node_pb2.DesiredState(workers=[worker_pb2.WorkerSpec(worker_id="w", adapters=adapters)])
    assert desired_state(message).workers[0].adapters == (("a", "file:///a"), ("b", "x"))
    assert from_json(to_json(desired_state(message))) == desired_state(message)


def test_what_an_agent_that_knew_no_adapters_wrote_is_read() -> None:
    message = node_pb2.DesiredState(workers=[worker_pb2.WorkerSpec(worker_id="w")])
    old = json.loads(to_json(desired_state(message)))
    del old["workers"][0]["adapters"]
    assert from_json(json.dumps(old)) == desired_state(message)
