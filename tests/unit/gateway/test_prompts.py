"""How much text a request has, and which answers another worker must not go on with."""

import json

import pytest

from gateway.core.endpoints import ENDPOINTS
from gateway.core.request import InferenceRequest, parse

MESSAGES = [{"role": "user", "content": "hi"}]


def at(path: str, **fields: object) -> InferenceRequest:
    return parse(ENDPOINTS[path], json.dumps({"model": "m", **fields}).encode())


def chat(**fields: object) -> InferenceRequest:
    return at("/v1/chat/completions", **{"messages": MESSAGES, **fields})


@pytest.mark.parametrize(
    ("path", "fields", "expected"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": "abc"}, *MESSAGES, {"role": "x"}]},
            5,
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "abc"}, {"image_url": {"url": "u"}}, 7]}
                ]
            },
            3,
        ),
        ("/v1/completions", {"prompt": "abcd"}, 4),
        ("/v1/completions", {"prompt": ["ab", "cd"]}, 4),
        ("/v1/completions", {"prompt": [1, 2, 3]}, 12),
        ("/v1/completions", {"prompt": [[1], [2]]}, 8),
        ("/v1/completions", {"prompt": []}, 0),
        ("/v1/completions", {"prompt": [[[[[["deep"]]]]]]}, 0),
        ("/v1/completions", {"prompt": [[[[{"text": "deep"}]]]]}, 0),
        ("/v1/responses", {"instructions": "abc", "input": [{"content": [{"text": "de"}]}]}, 5),
        ("/v1/messages", {"system": [{"text": "abc"}], "messages": MESSAGES}, 5),
    ],
)
def test_the_text_of_a_prompt_is_measured(path: str, fields: dict[str, object], expected: int) -> None:
    assert at(path, **fields).prompt_chars == expected


def test_where_the_text_is_not_known_the_whole_body_counts() -> None:
    request = at("/v1/rerank", query="x", documents=["y"])
    assert request.prompt_chars == len(request.body)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "tools": [],
            "functions": None,
            "n": 1,
            "best_of": 1,
            "echo": False,
            "logprobs": False,
            "top_logprobs": 0,
        },
        {"response_format": {"type": "text"}},
        {"guided_json": None, "n_predict": -1, "continue_final_message": True},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
    ],
)
def test_plain_text_may_be_continued(fields: dict[str, object]) -> None:
    assert chat(stream=True, **fields).continuable == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{}]},
        {"functions": [{}]},
        {"response_format": {"type": "json_object"}},
        {"response_format": "text"},
        {"guided_regex": ""},
        {"structured_outputs": {"choice": ["a"]}},
        {"grammar": "root"},
        {"logprobs": True},
        {"top_logprobs": 2},
        {"n": 2},
        {"best_of": 2},
        {"echo": True},
        {"audio": {"voice": "x"}},
        {"n_predict": 5},
    ],
)
def test_what_a_second_worker_could_not_know_is_not_continued(fields: dict[str, object]) -> None:
    assert next(iter(fields)) in chat(stream=True, **fields).continuable


def test_only_streams_of_text_are_continued() -> None:
    assert chat().continuable == "not streamed"
    assert at("/v1/responses", input="x", stream=True).continuable
    assert at("/v1/completions", prompt="x", stream=True).continuable == ""
    assert at("/v1/completions", prompt=["x"], stream=True).continuable == ""
    assert at("/v1/completions", prompt=["x", "y"], stream=True).continuable == "a prompt that is not one text"
    assert at("/v1/completions", prompt=[1], stream=True).continuable == "a prompt that is not one text"
    assert at("/v1/completions", prompt="x", stream=True, logprobs=0).continuable == "logprobs"
