"""What is read of a request, what is refused, and what is added for the engine."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.chat import MAX_VALUES, ChatRequest, parse
from gateway.core.errors import MalformedBody
from mesh.kit.errors import InvalidInput

MESSAGES = [{"role": "user", "content": "hi"}]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def test_the_fields_we_need_are_read() -> None:
    request = parse(body(temperature=0.5, unknown={"a": 1}))
    assert (request.model, request.stream, request.include_usage) == ("m", False, False)


def test_a_request_for_one_piece_goes_on_byte_for_byte() -> None:
    sent = b' {"messages": [{"role":"user","content":"\\u00e9"}] , "model":"m", "seed": 1.50, "x":null}'
    for engine in ("vllm", "llamacpp", "other"):
        assert parse(sent).body_for(engine) is sent


@pytest.mark.parametrize(
    ("engine", "added"),
    [
        ("vllm", {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
        ("llamacpp", {"stream_options": {"include_usage": True}, "timings_per_token": True}),
        ("other", {"stream_options": {"include_usage": True}}),
    ],
)
def test_an_engine_is_asked_for_its_counts_and_the_rest_stays_as_it_was(
    engine: str, added: dict[str, object]
) -> None:
    sent = b'\n{ "model":"m", "stream":true,"messages":[{"role":"user","content":"{\\"a\\""}], "n":1.0}'
    got = parse(sent).body_for(engine)
    assert json.loads(got) == {**json.loads(sent), **added}
    assert got.endswith(sent.lstrip()[1:]), "the client's own bytes"


@pytest.mark.parametrize("options", [None, {}, {"include_usage": True, "later": 1}, {"include_usage": False}])
def test_a_clients_own_stream_options_are_kept_and_completed(options: object) -> None:
    request = parse(body(stream=True, stream_options=options, extra=[1]))
    got = json.loads(request.body_for("vllm"))
    assert got["stream_options"] == {
        **(options if isinstance(options, dict) else {}),
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    assert got["extra"] == [1]


def test_timings_asked_or_not_are_always_had_from_llamacpp() -> None:
    request = parse(body(stream=True, timings_per_token=False))
    assert json.loads(request.body_for("llamacpp"))["timings_per_token"] is True
    assert json.loads(request.body_for("other"))["timings_per_token"] is False
    assert not request.timings


def test_what_the_client_asked_to_see_is_remembered() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    request = parse(body(stream=True, stream_options=options, timings_per_token=True))
    assert (request.include_usage, request.continuous_usage, request.timings) == (True, True, True)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": "m" * 257}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [*MESSAGES, "hi"]}, "messages[1]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
        ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": "x"}},
            "stream_options.continuous_usage_stats",
        ),
        ({"timings_per_token": "x"}, "timings_per_token"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, object], name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(body(**fields))
    assert caught.value.field == name


@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"model":"m"} x', b"[" * 5000])
def test_a_body_that_is_no_object_is_malformed(sent: bytes) -> None:
    with pytest.raises(MalformedBody):
        parse(sent)


@pytest.mark.parametrize("value", ["[]", "1", '""', '{"a":[]}', '"\\\\","\\"",[]'])
def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(value: str) -> None:
    many = ",".join([value] * (MAX_VALUES + 1))
    with pytest.raises(InvalidInput, match="values"):
        parse(body(x=0).replace(b": 0", b": [" + many.encode() + b"]"))


@pytest.mark.parametrize("letters", [",", "[{", '"', "\\", "\\,", '\\",', '","', "x\n,"])
def test_a_long_text_is_one_value_whatever_is_in_it(letters: str) -> None:
    text = letters * (2 * MAX_VALUES)
    if letters.count('"') > 0 and "," not in letters:
        text += ","
    assert parse(body(x=text)).model == "m"


def test_of_a_request_only_the_clients_bytes_are_kept() -> None:
    sent = body(x=list(range(50_000)))
    tracemalloc.start()
    try:
        request = parse(sent)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert request.body is sent
    assert kept < 100_000 < most


@pytest.mark.parametrize(("n", "choices"), [(3, 3), (0, 1), (-1, 1), (None, 1), ("2", 1), (True, 1), (1.5, 1)])
def test_the_number_of_answers_is_what_the_client_asked_for_if_it_is_one(n: object, choices: int) -> None:
    assert parse(body(n=n)).choices == choices


def test_the_body_does_not_show_in_a_repr() -> None:
    assert "secret words" not in repr(parse(body(user="secret words")))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda k: k not in ("timings_per_token",)), values, max_size=5))
def test_unknown_fields_reach_the_engine(extra: dict[str, object]) -> None:
    fields = {**extra, "model": "m", "messages": MESSAGES, "stream": True, "stream_options": None}
    request: ChatRequest = parse(json.dumps(fields).encode())
    got = json.loads(request.body_for("other"))
    assert got == {**fields, "stream_options": {"include_usage": True}}
