"""What is read of a request, what is refused, and what is changed on its way to an engine."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.endpoints import ENDPOINTS, Endpoint, passed_through
from gateway.core.errors import MalformedBody, UnsupportedMediaType
from gateway.core.request import MAX_VALUES, InferenceRequest
from gateway.core.request import parse as parse_at
from mesh.kit.errors import InvalidInput

CHAT, COMPLETIONS = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/v1/completions"]
MESSAGES = [{"role": "user", "content": "hi"}]
FORM = "multipart/form-data; boundary=b0"
SPEECH = ENDPOINTS["/v1/audio/transcriptions"]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def parse(sent: bytes) -> InferenceRequest:
    return parse_at(CHAT, sent)


def at(path: str, **fields: object) -> InferenceRequest:
    return parse_at(ENDPOINTS[path], json.dumps({"model": "m", **fields}).encode())


def test_the_fields_we_need_are_read() -> None:
    request = parse(body(temperature=0.5, unknown={"a": 1}, max_tokens=7))
    assert (request.model, request.stream, request.include_usage, request.max_tokens) == ("m", False, False, 7)
    assert request.endpoint is CHAT


def test_a_request_for_one_piece_goes_on_byte_for_byte() -> None:
    sent = b' {"messages": [{"role":"user","content":"\\u00e9"}] , "model":"m", "seed": 1.50, "x":null}'
    for engine in ("vllm", "llamacpp", "other"):
        assert parse(sent).body_for(engine) is sent
        assert parse(sent).body_for(engine, "m") is sent


COUNTING = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}


@pytest.mark.parametrize(
    ("engine", "added"),
    [
        ("vllm", COUNTING),
        ("simulator", COUNTING),
        ("llamacpp", {"stream_options": {"include_usage": True}, "timings_per_token": True}),
        ("other", {"stream_options": {"include_usage": True}}),
    ],
)
@pytest.mark.parametrize("name", ["", "m", 'other "name" é'])
def test_an_engine_is_asked_for_its_counts_and_the_rest_stays_as_it_was(
    engine: str, added: dict[str, object], name: str
) -> None:
    sent = b'\n{ "model":"m", "stream":true,"messages":[{"role":"user","content":"{\\"a\\""}], "n":1.0}'
    got = parse(sent).body_for(engine, name)
    assert json.loads(got) == {**json.loads(sent), **added, "model": name or "m"}
    if not name or name == "m":
        assert got.endswith(sent.lstrip()[1:]), "the client's own bytes"


def test_a_model_that_its_engine_knows_by_another_name_is_renamed_in_place() -> None:
    sent = b'{"x": 1.50, "model" :\t"a\\"b" , "messages":[{"role":"user","content":"\\"model\\":"}],"big":1e400}'
    sent = sent.replace(b',"big":1e400', b',"big":1.0000')
    got = parse(sent).body_for("vllm", "eng\\1")
    assert got == sent.replace(b'"a\\"b"', b'"eng\\\\1"')


@pytest.mark.parametrize(
    "sent",
    [
        b'{"model":"x","messages":[{"role":"user","content":"hi"}],"model":"m"}',
        b'{"messages":[{"role":"user","content":"hi"}],"mod\\u0065l":"m","y":{"model":"m"}}',
        b'{"messages":[{"role":"user","content":"hi"}],"model":"m","y":{"model":"m"}}',
        b'{"messages":[{"role":"user","content":"model"}],"model":"m","y":"model"}',
    ],
)
def test_the_model_is_renamed_where_the_engine_reads_it_and_nowhere_else(sent: bytes) -> None:
    request = parse(sent)
    assert request.model == "m"
    assert json.loads(request.body_for("vllm", "eng")) == {**json.loads(sent), "model": "eng"}


@pytest.mark.parametrize("options", [None, {}, {"include_usage": True, "later": 1}, {"include_usage": False}])
def test_a_clients_own_stream_options_are_kept_and_completed(options: object) -> None:
    request = parse(body(stream=True, stream_options=options, extra=[1]))
    got = json.loads(request.body_for("vllm", "eng"))
    assert got["stream_options"] == {
        **(options if isinstance(options, dict) else {}),
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    assert (got["extra"], got["model"]) == ([1], "eng")


def test_a_body_too_deep_to_be_written_anew_is_refused_then_and_not_before() -> None:
    deep = body(stream=True, stream_options=None, x=0).replace(b'"x": 0', b'"x": ' + b"[" * 400 + b"]" * 400)
    with pytest.raises(InvalidInput, match="nested too deep"):
        parse(deep).body_for("vllm")
    plain = deep.replace(b'"stream_options": null, ', b"")
    assert plain[1:] in parse(plain).body_for("vllm")


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
        ({"n": 1025}, "n"),
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
    assert "secret words" not in repr(parse(body(user="secret words", messages=[{"role": "secret words"}])))


# Other endpoints.


@pytest.mark.parametrize(
    ("path", "field"),
    [(path, one.required) for path, one in ENDPOINTS.items() if one.required not in ("", "file")],
)
def test_each_endpoint_needs_what_it_works_on(path: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        at(path)
    assert caught.value.field == field
    asked = MESSAGES if field == "messages" else "hi"
    assert at(path, **{field: asked}).model == "m"


def test_only_where_counts_must_be_asked_for_they_are_asked_for() -> None:
    for path, stream in (("/v1/responses", True), ("/v1/embeddings", True), ("/v1/messages", False)):
        sent = json.dumps(
            {"model": "m", "input": "x", "messages": MESSAGES, "stream": stream, "stream_options": 1}
        )
        request = parse_at(ENDPOINTS[path], sent.encode())
        assert request.stream is (path == "/v1/responses"), "an embedding is no stream"
        assert request.body_for("vllm") == sent.encode()
        assert json.loads(request.body_for("vllm", "eng"))["model"] == "eng"


def test_what_is_passed_through_is_not_judged() -> None:
    endpoint = passed_through("/v1/own")
    assert parse_at(endpoint, b'{"model":"m","stream":"maybe"}').stream is False
    assert parse_at(endpoint, b'{"model":"m","stream":true,"stream_options":7}').stream is True
    assert parse_at(endpoint, form(("model", b"m")), FORM).model == "m"


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 4}, 4),
        ({"max_output_tokens": 3}, 3),
        ({"max_tokens": -1}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "5"}, None),
        ({}, None),
    ],
)
def test_the_most_tokens_are_known(fields: dict[str, object], most: int | None) -> None:
    assert parse(body(**fields)).max_tokens == most


def test_a_conversation_is_known_by_its_beginning() -> None:
    later = [*MESSAGES, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "so"}]
    assert parse(body()).prefix == parse(body(messages=later)).prefix is not None
    assert parse(body()).prefix != parse(body(model="other")).prefix
    assert at("/v1/embeddings", input="hi").prefix is None, "nothing is gained by having seen it"


# Forms.


def form(*fields: tuple[str, bytes]) -> bytes:
    parts = [
        b'--b0\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), v) for n, v in fields
    ]
    return b"".join(parts) + b"--b0--\r\n"


FILE = ("file", b"\x00\r\n--b")


def test_of_a_form_model_and_stream_are_read_and_the_model_can_be_renamed() -> None:
    sent = form(FILE, ("model", "mé".encode()), ("stream", b"True"))
    request = parse_at(SPEECH, sent, FORM)
    assert (request.model, request.stream, request.prompt_chars) == ("mé", True, len(sent))
    assert request.continuable
    assert request.body_for("vllm") is sent
    assert request.body_for("vllm", "eng") == form(FILE, ("model", b"eng"), ("stream", b"True"))
    assert parse_at(SPEECH, form(FILE, ("model", b"m")), FORM).stream is False


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ([("model", b"m")], "file"),
        ([FILE], "model"),
        ([FILE, ("model", b"")], "model"),
        ([FILE, ("model", b"\xff")], "model"),
        ([FILE, ("model", b"m" * 257)], "model"),
        ([FILE, ("model", b"m" * 5000)], "model"),
        ([FILE, ("model", b"m"), ("stream", b"maybe")], "stream"),
    ],
)
def test_a_bad_field_of_a_form_is_named(fields: list[tuple[str, bytes]], name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_at(SPEECH, form(*fields), FORM)
    assert caught.value.field == name


def test_an_endpoint_for_files_takes_forms_only() -> None:
    with pytest.raises(UnsupportedMediaType):
        parse_at(SPEECH, b'{"model":"m"}', "application/json")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.text() | st.sampled_from(
    ["tools", "guided_x", "prompt", "input", "system", "max_tokens", "n", "logprobs"]
)


READ = ("timings_per_token", "n", "stream_options")


@given(st.dictionaries(keys.filter(lambda k: k not in READ), values, max_size=5), st.booleans())
def test_unknown_fields_reach_the_engine(extra: dict[str, object], own: bool) -> None:
    fields = {
        **extra,
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        **({"stream_options": None} if own else {}),
    }
    request = parse(json.dumps(fields).encode())
    got = json.loads(request.body_for("other", "eng"))
    assert got == {**fields, "stream_options": {"include_usage": True}, "model": "eng"}


@given(
    st.sampled_from(sorted(ENDPOINTS.values(), key=lambda one: one.path)),
    st.dictionaries(keys, values, max_size=5),
)
def test_whatever_is_asked_it_is_read_or_refused(endpoint: Endpoint, fields: dict[str, object]) -> None:
    sent = json.dumps({"model": "m", "messages": MESSAGES, "query": "x", **fields}).encode()
    try:
        request = parse_at(endpoint, sent)
    except (InvalidInput, UnsupportedMediaType):
        return
    assert request.prompt_chars >= 0
