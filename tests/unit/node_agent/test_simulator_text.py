"""What the simulator says: the same on every machine, and continued to the letter wherever it was cut."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.engines.simulator_answer import Answer, Wish, as_json, instance, recited, spoken
from node_agent.engines.simulator_text import (
    LONGEST,
    SHORTEST,
    WORDS,
    Voice,
    continued,
    count,
    split,
    token_id,
    voice,
    voice_of_prompt,
    word_of,
)
from node_agent.engines.simulator_vocabulary import REMEMBERED, Vocabulary

SEEDS = st.integers(0, 2**40)
TEXTS = st.text(max_size=30)
TALKS = st.lists(TEXTS, max_size=4)
AMPLE = Wish(budget=1 << 20)


def test_there_are_128_words_without_space_and_of_every_width_in_octets() -> None:
    assert len(set(WORDS)) == len(WORDS) == 128
    assert all(word.split() == [word] for word in WORDS)
    assert {len(letter.encode()) for word in WORDS for letter in word} == {1, 2, 3, 4}


def test_the_text_of_a_seed_and_conversation_never_changes() -> None:
    said = spoken(voice(7, ["user", "hi"]), "", Wish(budget=6))
    assert said == Answer(["spruce", " poplar", " daisy", " nectar", " mint", " foxglove"], "length")


@given(SEEDS, TALKS, st.integers(0, 200), st.integers(0, 200))
def test_a_token_is_the_same_however_it_is_asked_for(seed: int, talk: list[str], one: int, other: int) -> None:
    start, stop = sorted((one, other))
    speaker = voice(seed, talk)
    assert speaker.tokens(start, stop) == speaker.tokens(0, stop)[start:]
    assert voice(seed, talk).tokens(start, stop) == speaker.tokens(start, stop)


@given(SEEDS, TALKS, TALKS)
def test_other_conversations_other_seeds_and_other_choices_have_other_answers(
    seed: int, one: list[str], other: list[str]
) -> None:
    text = voice(seed, one).tokens(0, 40)
    assert (text == voice(seed, other).tokens(0, 40)) == (one == other)
    assert text != voice(seed + 1, one).tokens(0, 40)
    assert text != voice(seed, one, choice=1).tokens(0, 40)


@given(SEEDS, TALKS)
def test_an_answer_is_20_to_60_tokens_long_and_its_tokens_are_its_words(seed: int, talk: list[str]) -> None:
    said = spoken(voice(seed, talk), "", AMPLE)
    assert SHORTEST <= len(said.tokens) <= LONGEST
    assert said.reason == "stop"
    assert split(said.text) == said.tokens
    assert count(said.text) == len(said.tokens)


@given(SEEDS, TALKS, st.data(), st.integers(0, 90))
def test_wherever_an_answer_is_cut_its_continuation_is_the_rest(
    seed: int, talk: list[str], data: st.DataObject, length: int
) -> None:
    wish = Wish(budget=1 << 20, length=length)
    speaker = voice(seed, talk)
    whole = spoken(speaker, "", wish)
    at = data.draw(st.integers(0, len(whole.tokens)))
    begun = "".join(whole.tokens[:at])
    rest = spoken(speaker, begun, wish)
    assert rest.tokens == whole.tokens[at:]
    assert begun + rest.text == whole.text
    assert rest.reason == whole.reason


@given(SEEDS, TALKS, st.data())
def test_a_cut_inside_a_token_is_continued_inside_it(seed: int, talk: list[str], data: st.DataObject) -> None:
    speaker = voice(seed, talk)
    whole = spoken(speaker, "", AMPLE).text
    begun = whole[: data.draw(st.integers(0, len(whole)))]
    assert begun + spoken(speaker, begun, AMPLE).text == whole


@given(SEEDS, TALKS, st.data(), st.integers(1, 70))
def test_the_budget_that_is_left_ends_a_continuation_where_the_whole_would_have_ended(
    seed: int, talk: list[str], data: st.DataObject, budget: int
) -> None:
    speaker = voice(seed, talk)
    whole = spoken(speaker, "", Wish(budget=budget))
    at = data.draw(st.integers(0, len(whole.tokens) - 1))
    rest = spoken(speaker, "".join(whole.tokens[:at]), Wish(budget=budget - at))
    assert whole.tokens[:at] + rest.tokens == whole.tokens
    assert rest.reason == whole.reason
    assert len(whole.tokens) <= budget


@given(SEEDS, TEXTS, st.data())
@settings(max_examples=60)
def test_a_bare_prompt_that_ends_with_the_answer_so_far_is_continued(
    seed: int, prompt: str, data: st.DataObject
) -> None:
    speaker, begun = voice_of_prompt(seed, prompt)
    whole = spoken(speaker, begun, AMPLE)
    at = data.draw(st.integers(0, len(whole.tokens)))
    longer = prompt + "".join(whole.tokens[:at])
    speaker, begun = voice_of_prompt(seed, longer)
    assert longer + spoken(speaker, begun, AMPLE).text == prompt + whole.text


def test_a_word_of_ours_in_a_prompt_is_no_answer_begun() -> None:
    speaker, begun = voice_of_prompt(0, "an amber lantern")
    assert begun == ""
    assert speaker.tokens(0, 1)[0].startswith(" ")


def test_what_a_client_begins_in_words_of_its_own_is_gone_on_with() -> None:
    speaker = voice(0, ["hi"])
    said = spoken(speaker, "Of course:", AMPLE)
    assert said.tokens == speaker.tokens(2, speaker.length())
    assert spoken(speaker, "Of course: ", AMPLE).text == said.text.lstrip()
    assert spoken(speaker, "a " * 100, AMPLE) == Answer([], "stop")


def test_an_answer_that_may_not_end_by_itself_is_as_long_as_its_budget() -> None:
    said = spoken(voice(0, []), "", Wish(budget=500, to_the_budget=True))
    assert (len(said.tokens), said.reason) == (500, "length")


def test_the_least_is_kept_and_a_budget_of_just_the_length_ends_by_itself() -> None:
    assert len(spoken(voice(0, []), "", Wish(budget=500, least=300)).tokens) == 300
    assert spoken(voice(0, []), "", Wish(budget=30, length=30)).reason == "stop"
    assert spoken(voice(0, []), "", Wish(budget=29, length=30)).reason == "length"


@given(SEEDS, st.integers(0, 19), st.integers(1, 4), st.booleans())
def test_a_stop_string_ends_the_answer(seed: int, at: int, size: int, with_stop: bool) -> None:
    speaker = voice(seed, ["stop"])
    free = spoken(speaker, "", AMPLE)
    stop = "".join(free.tokens[at : at + size])[-6:]
    said = spoken(speaker, "", Wish(budget=1 << 20, stops=["never said", "", stop], with_stop=with_stop))
    before = free.text.partition(stop)[0]
    assert said.text == before + (stop if with_stop else "")
    assert (said.reason, said.stopped_by) == ("stop", stop)
    assert len(said.tokens) == count(before + stop)


@given(SEEDS, st.data())
def test_json_is_valid_and_continued_to_the_letter(seed: int, data: st.DataObject) -> None:
    text = as_json({}, voice(seed, []))
    assert isinstance(json.loads(text), dict)
    begun = text[: data.draw(st.integers(0, len(text)))]
    assert begun + recited(text, begun, AMPLE).text == text
    assert recited(text, "", Wish(budget=2)) == Answer(split(text)[:2], "length")


def test_an_answer_fits_its_schema() -> None:
    schema = {
        "type": "object",
        "$defs": {"colour": {"enum": ["red", "green"]}},
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 3},
            "share": {"type": "number"},
            "good": {"type": "boolean"},
            "none": {"type": "null"},
            "kind": {"const": "x"},
            "colours": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/colour"}},
            "either": {"anyOf": [{"type": ["null", "string"]}]},
            "inner": {"properties": {"deep": {}}},
            "lost": {"$ref": "#/$defs/nowhere"},
        },
    }
    value = json.loads(as_json(schema, voice(0, [])))
    assert set(value) == set(schema["properties"])
    assert (value["age"], value["kind"], value["none"], value["either"]) == (3, "x", None, None)
    assert value["colours"][0] in ("red", "green")
    assert len(value["colours"]) == 2
    assert isinstance(value["name"], str)
    assert isinstance(value["good"], bool)


def test_a_schema_without_a_bottom_ends() -> None:
    endless = {"properties": {"again": {"$ref": "#"}}}
    assert json.dumps(instance(endless, voice(0, [])))


@given(TEXTS)
def test_the_tokens_of_any_text_are_its_words(text: str) -> None:
    assert [token.strip() for token in split(text)] == text.split()
    assert continued(split(text), "") == split(text)


@given(st.text(min_size=1, max_size=8))
def test_words_have_numbers_and_come_back_from_them(word: str) -> None:
    known = Vocabulary()
    assert known.word(known.number(word)) == word
    assert 0 <= token_id(word) < 2**31
    assert token_id(word) >= 128 or word in WORDS


def test_the_vocabulary_forgets_the_oldest_of_others_words_and_never_its_own() -> None:
    known = Vocabulary()
    first = known.number("first")
    for number in range(REMEMBERED + 64):
        known.number(f"w{number}")
    assert known.word(first) is None
    assert [known.word(number) for number in range(128)] == list(WORDS)
    assert word_of(128) is None


@pytest.mark.parametrize("spaced", [False, True])
def test_no_tokens_are_no_tokens(spaced: bool) -> None:
    assert Voice(b"k", spaced).tokens(5, 5) == []
    assert Voice(b"k", spaced).tokens(5, 3) == []
