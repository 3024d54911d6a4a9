"""Whatever a client writes, the simulator answers it or refuses it in shape; it never fails on its own."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.engines.simulator_server import MODEL_PATHS
from tests.fakes.simulator import World

FIELDS = """
    model messages prompt input query documents text_1 text_2 queries tokens max_tokens
    max_completion_tokens n stop stream stream_options tools tool_choice response_format text
    instructions system stop_sequences echo logprobs continue_final_message add_generation_prompt
    min_tokens ignore_eos dimensions encoding_format top_n max_output_tokens previous_response_id
    simulator_fault role content type properties function name parameters
"""
KEYS = st.sampled_from(sorted(FIELDS.split()))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(
        ["user", "assistant", "object", "array", "json_schema", "required", "function", "float", "tiny"]
    )
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"])}, optional={"content": VALUES}),
    max_size=3,
)
SOUND: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "prompt": "hi",
    "input": "hi",
    "query": "hi",
    "documents": ["a", "b"],
    "text_1": "a",
    "text_2": "b",
    "tokens": [1, 2],
    "max_tokens": 30,
}
ODD = st.dictionaries(st.sampled_from(sorted(FIELDS.split())), VALUES, max_size=3)
BODIES = st.builds(
    lambda odd, talk: {**SOUND, **talk, **odd}, ODD, st.fixed_dictionaries({}, optional={"messages": MESSAGES})
)


@given(st.sampled_from(sorted(MODEL_PATHS)), BODIES)
@settings(max_examples=100)
def test_every_body_is_answered_or_refused_in_shape(path: str, body: dict[str, Any]) -> None:
    world = World(context=400)
    body.pop("simulator_fault", None)
    answer = world.answer(path, body)
    assert answer.status in (200, 400, 404)
    assert answer.whole
    assert answer.status == 200 or answer.json["error"]["message"]
    assert world.metric("vllm:num_requests_running") == 0


@given(VALUES)
def test_every_fault_is_one_or_refused(fault: object) -> None:
    body = {"prompt": "x", "simulator_fault": fault}
    assert World().ask("/v1/completions", body).answer().status in (0, *range(200, 600))
