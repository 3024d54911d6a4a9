"""Join tokens and API keys: read back as written, typos are told, secrets are not shown."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.errors import InvalidInput
from pki import api_keys, tokens
from pki.api_keys import ApiKey
from pki.tokens import JoinToken

IDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=12)
SECRETS = st.from_regex(r"[A-Za-z0-9_-]{43}", fullmatch=True)
TOKEN = JoinToken("abcdefghijkl", "A" * 43)
KEY = ApiKey("abcdefghijkl", "A" * 43)


@given(name=IDS, secret=SECRETS)
def test_a_token_is_read_back_as_it_was_written(name: str, secret: str) -> None:
    token = JoinToken(name, secret)
    assert tokens.parse(token.reveal()) == token
    assert tokens.parse(f" {token.reveal()}\n") == token


@given(name=IDS, secret=SECRETS)
def test_an_api_key_is_read_back_as_it_was_written(name: str, secret: str) -> None:
    key = ApiKey(name, secret)
    assert api_keys.parse(key.reveal()) == key


def test_a_new_token_has_256_random_bits_and_the_documented_form() -> None:
    seen = {tokens.new_token() for _ in range(100)}
    assert len({token.id for token in seen}) == len({token.secret for token in seen}) == 100
    for token in seen:
        assert tokens.parse(token.reveal()) == token
        assert token.reveal().startswith(f"inv1_{token.id}_{token.secret}_")


@given(at=st.integers(min_value=0), letter=st.sampled_from("abcXYZ019_-"))
def test_one_wrong_letter_is_always_noticed(at: int, letter: str) -> None:
    text = TOKEN.reveal()
    at %= len(text)
    wrong = text[:at] + letter + text[at + 1 :]
    if wrong != text:
        with pytest.raises(InvalidInput):
            tokens.parse(wrong)


@given(st.text(max_size=200))
def test_any_text_is_either_a_token_or_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        tokens.parse(text)
    with pytest.raises(InvalidInput):
        api_keys.parse(text)


def test_a_typo_and_a_wrong_shape_are_told_apart() -> None:
    with pytest.raises(InvalidInput, match="mistyped or cut"):
        tokens.parse(TOKEN.reveal().replace("_AAA", "_ABA"))
    with pytest.raises(InvalidInput, match="not of the form"):
        tokens.parse(TOKEN.reveal()[:-1])
    with pytest.raises(InvalidInput, match="not of the form"):
        tokens.parse("inv2" + TOKEN.reveal()[4:])


@pytest.mark.parametrize(
    "bad", ["", "inv-", "inv-ABCDEFGHIJKL-" + "A" * 43, f"{KEY.reveal()}A", f"{KEY.reveal()}\n"]
)
def test_a_text_that_is_no_api_key_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInput, match="not of the form"):
        api_keys.parse(bad)


def test_secrets_do_not_show() -> None:
    token, key = tokens.new_token(), api_keys.new_api_key()
    assert token.secret not in f"{token} {token!r}"
    assert key.secret not in f"{key} {key!r}"
    wrong = token.reveal()[:-1] + ("0" if token.reveal()[-1] != "0" else "1")
    with pytest.raises(InvalidInput) as caught:
        tokens.parse(wrong)
    assert token.secret not in str(caught.value)


def test_the_stored_form_is_an_hmac_of_the_secret() -> None:
    pepper = b"p" * 32
    expected = hmac.new(pepper, TOKEN.secret.encode(), hashlib.sha256).digest()
    assert tokens.mac(pepper, TOKEN.secret) == KEY.mac(pepper) == expected
    assert tokens.same(expected, bytes(expected))
    assert KEY.matches(pepper, expected)
    assert not KEY.matches(b"q" * 32, expected)
    assert not ApiKey(KEY.id, "B" * 43).matches(pepper, expected)
