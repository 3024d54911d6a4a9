"""What a conversation and a session are known by."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.affinity import MAX_PROMPT, MAX_TEXT, MAX_TOKENS, PrefixMemory, prefix_of, session_of

SYSTEM = {"role": "system", "content": "You are terse."}


def said(text: object, role: str = "user") -> dict[str, object]:
    return {"role": role, "content": text}


def chat(*messages: object, **more: object) -> int | None:
    return prefix_of({"messages": list(messages), **more})


def test_a_conversation_is_the_same_from_turn_to_turn() -> None:
    first = chat(SYSTEM, said("hello"))
    assert first is not None
    assert 0 <= first < 2**64
    later = chat(SYSTEM, said("hello"), said("hi", "assistant"), said("and now?"), temperature=1)
    assert later == first


def test_conversations_with_the_same_instructions_are_told_apart() -> None:
    assert len({chat(SYSTEM, said("one")), chat(SYSTEM, said("two")), chat(said("one")), chat(SYSTEM)}) == 4
    developer = {**SYSTEM, "role": "developer"}
    assert chat(developer, said("one")) == chat(SYSTEM, said("one"))


def test_of_long_texts_both_ends_and_the_length_count() -> None:
    long = "x" * (3 * MAX_TEXT)
    seen = {chat(SYSTEM, said(text)) for text in (long, long + "y", "y" + long, long + "x")}
    assert len(seen) == 4
    instructions = said(long, "system")
    assert chat(instructions, said("one")) != chat(instructions, said("two"))


def test_parts_of_a_message_count_by_their_text_and_their_media() -> None:
    def parts(*values: object) -> int | None:
        return chat(said(list(values)))

    text = {"type": "text", "text": "what is this?"}
    seen = {
        parts(text),
        parts(text, {"type": "image_url", "image_url": {"url": "https://a/1.png"}}),
        parts(text, {"type": "image_url", "image_url": {"url": "https://a/2.png"}}),
        parts(text, {"type": "input_image", "image_url": "https://a/3.png"}),
        parts(text, {"type": "input_audio", "input_audio": {"data": "UklGR", "format": "wav"}}),
        parts(text, {"type": "image", "source": {"type": "base64", "data": "aGVsbG8="}}),
    }
    assert len(seen) == 6
    # A mark that moves from turn to turn must not matter.
    assert parts({"type": "text", "cache_control": {"type": "ephemeral"}, "text": "t"}) == parts({"text": "t"})


def test_every_way_to_ask_is_known_by_its_beginning() -> None:
    assert prefix_of({"input": "hello", "instructions": "be terse"}) is not None
    assert prefix_of({"input": "hello", "instructions": "be terse"}) != prefix_of({"input": "hello"})
    assert prefix_of({"input": [said("hello")]}) == chat(said("hello"))
    assert prefix_of({"system": "be terse", "messages": [said("hi")]}) != chat(said("hi"))
    assert prefix_of({"system": [{"type": "text", "text": "be terse"}], "messages": [said("hi")]}) is not None


def test_a_prompt_is_known_by_what_later_turns_do_not_change() -> None:
    story = "once upon a time " * 100
    assert len(story) > MAX_PROMPT
    assert prefix_of({"prompt": story}) == prefix_of({"prompt": story + "the end"})
    assert prefix_of({"prompt": [story, "another"]}) == prefix_of({"prompt": story})
    tokens = list(range(MAX_TOKENS))
    assert prefix_of({"prompt": tokens}) == prefix_of({"prompt": [*tokens, 5]}) == prefix_of({"prompt": [tokens]})
    assert prefix_of({"prompt": tokens}) != prefix_of({"prompt": tokens[1:]})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": []},
        {"messages": ["text"]},
        {"prompt": ""},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [None]},
        {"prompt": [""]},
        {"prompt": 7},
        {"input": [1, 2]},
        {"input": None},
    ],
    ids=str,
)
def test_without_a_beginning_there_is_no_prefix(fields: dict[str, object]) -> None:
    assert prefix_of(fields) is None


def test_what_is_no_message_is_passed_over() -> None:
    assert chat(SYSTEM, 7, said("hello")) == chat(SYSTEM, said("hello"))
    assert chat(said([7, {"type": "odd"}, {"image_url": {}}, "text"])) is not None
    assert chat({}, said("x")) == chat(said(None)) is not None, "who says nothing has spoken as well"


def test_lone_surrogates_do_no_harm() -> None:
    assert chat(said("\ud800")) is not None
    assert session_of("\udc80") is not None


def test_a_salt_keeps_models_apart() -> None:
    fields = {"prompt": "hello"}
    assert prefix_of(fields, "a") != prefix_of(fields, "b")
    assert session_of("s", "a") != session_of("s", "b")


def test_a_session_is_known_by_its_name() -> None:
    assert session_of(" one ") == session_of("one") != session_of("two")
    assert session_of(None) is session_of("") is session_of("  ") is None
    assert session_of("x" * 10_000) == session_of("x" * 9_000), "a name has an end"


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4)
NAMES = st.sampled_from(["role", "content", "text", "image_url", "url", "system", "type", "source"]) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "system", "instructions"]), VALUES))
def test_whatever_a_body_holds_it_has_a_prefix_or_none(fields: dict[str, object]) -> None:
    found = prefix_of(fields)
    assert found is None or 0 <= found < 2**64
    assert prefix_of(fields) == found


def test_a_deep_body_does_no_harm() -> None:
    for name in ("messages", "prompt", "input"):
        prefix_of(orjson.loads(f'{{"{name}":' + "[" * 500 + "1" + "]" * 500 + "}"))


def test_the_memory_says_who_had_it_last() -> None:
    memory = PrefixMemory(10)
    assert memory.last(1) == memory.last(None) == ""
    memory.remember(1, "a")
    memory.remember(1, "b")
    memory.remember(None, "c")
    assert memory.last(1) == "b"
    assert len(memory) == 1


def test_the_memory_forgets_what_was_not_used_for_longest() -> None:
    memory = PrefixMemory(2)
    for key in (1, 2, 1, 3):
        memory.remember(key, "a")
    assert [memory.last(key) for key in (1, 2, 3)] == ["a", "", "a"]
    assert len(memory) == 2
