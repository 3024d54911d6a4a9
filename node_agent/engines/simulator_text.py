"""What the simulator says: token i of an answer is a pure function of seed, conversation and i.

A token is a word with the space before it; the tokens of a text are counted as its words. So where an answer was
cut can be read off the text itself, and whoever continues it, on whichever machine, continues it to the letter.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

# 128 words; some take two, three or four octets a letter.
_LIST: Final = """
    amber anchor apple autumn badger bamboo barley basil beacon birch bluebell bramble breeze brook buttercup
    candle canyon caravan cedar chalk cherry cinder clover cobalt comet copper coral cotton crane crystal
    cypress daisy dawn delta dragonfly driftwood dune eagle ebony ember falcon fern fiddle flint foxglove
    frost garnet ginger glacier granite harbour hazel heather heron hickory honey indigo iris island ivory
    jasmine juniper kestrel lagoon lantern larch lavender lichen lilac linen lotus magnet mallow maple marble
    meadow mercury mint mosaic moss myrtle nectar nettle nutmeg oak ochre olive onyx orchard otter pebble
    pepper pine plum pollen poplar prairie quartz raven reed ripple rosemary rye saffron sage sandal silver
    sparrow spruce thistle thyme timber umbra velvet walnut willow zephyr café naïve Straße żółw señor ночь
    река 東京 물결 🌊 🦊
"""
WORDS: Final = tuple(_LIST.split())
FIRST: Final = WORDS * 2  # one for each octet of a digest
LATER: Final = tuple(f" {word}" for word in FIRST)
_IDS: Final = {word: number for number, word in enumerate(WORDS)}
_TOKEN = re.compile(r"\s*\S+")
_BLOCK = 64  # tokens for which one digest is enough
SHORTEST, LONGEST = 20, 60
LOOK_BACK = 1024  # words of a prompt that are looked at for an answer begun


@dataclass(frozen=True, slots=True)
class Voice:
    """Draws the tokens of one answer. ``spaced``: the first one, too, has a space before it."""

    key: bytes
    spaced: bool = False

    def tokens(self, start: int, stop: int) -> list[str]:
        """Tokens ``start`` up to and without ``stop``."""
        drawn: list[str] = []
        for block in range(start // _BLOCK, -(-stop // _BLOCK)):
            digest = blake2b(block.to_bytes(8, "big"), key=self.key, digest_size=_BLOCK).digest()
            drawn += [LATER[octet] for octet in digest]
        drawn = drawn[start % _BLOCK : start % _BLOCK + max(0, stop - start)]
        if start == 0 and drawn and not self.spaced:
            drawn[0] = drawn[0][1:]
        return drawn

    def length(self) -> int:
        """Tokens after which the whole answer ends by itself."""
        return SHORTEST + int.from_bytes(blake2b(self.key, digest_size=4).digest(), "big") % (
            LONGEST - SHORTEST + 1
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """Where an answer was cut: ``tokens`` are there, of which the last lacks ``rest``."""

    tokens: int
    rest: str = ""
    space: bool = False
    """The space of the next token is there already."""


def voice(seed: int, conversation: Iterable[str], *, choice: int = 0, spaced: bool = False) -> Voice:
    """The voice that answers a conversation. The answer begun so far is no part of it."""
    digest = blake2b(b"%d/%d" % (seed, choice), digest_size=32)
    for part in conversation:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(data) + data)
    return Voice(digest.digest(), spaced)


def cut(text: str, last: str) -> Cut:
    """Where an answer that begins with ``text`` was cut. ``last``: the answer's token in place of its last word.

    Other words than the answer's count as if they were.
    """
    words = text.split()
    if not words or text[-1].isspace():
        return Cut(len(words), space=bool(text))
    word, last = words[-1], last.strip()
    return Cut(len(words), last[len(word) :] if last.startswith(word) else "")


def continued(tokens: Sequence[str], text: str) -> list[str]:
    """What of ``tokens`` comes after ``text``: ``text`` and the join of it are the whole answer."""
    at = cut(text, next(iter(tokens[max(0, count(text) - 1) :]), ""))
    return resumed(at, list(tokens[at.tokens :]))


def resumed(at: Cut, rest: list[str]) -> list[str]:
    """The tokens after a cut, of which ``rest`` are the whole ones."""
    if at.space and rest:
        rest[0] = rest[0].lstrip()
    return [at.rest, *rest] if at.rest else rest


def voice_of_prompt(seed: int, prompt: str, *, choice: int = 0) -> tuple[Voice, str]:
    """The voice for a bare prompt, and what of the answer the prompt holds already at its end.

    Words that only this simulator uses are looked at from the back: is what follows some point exactly what would
    have been said there? If so the prompt is taken for an answer that was cut.
    """
    whole = prompt.rstrip()
    tail = prompt[len(whole) :]
    found, at = (voice(seed, [whole], choice=choice, spaced=not tail), tail), len(whole)
    drawn: list[str] = []
    for match in reversed(list(_TOKEN.finditer(whole))):
        word = match[0].strip()
        if word not in _IDS or len(drawn) >= LOOK_BACK:
            break
        drawn.insert(0, word)
        at = match.start()
        before = voice(seed, [whole[:at].rstrip()], choice=choice, spaced=match[0][0].isspace())
        if [one.strip() for one in before.tokens(0, len(drawn))] == drawn:
            found = (before, prompt[at:])
    return found


def split(text: str) -> list[str]:
    """The tokens of any text, each a word with the space before it; space at the very end is nobody's."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(text.split())


def token_id(word: str) -> int:
    """A number for a word: below 128 for our own, some 31 bits for every other."""
    known = _IDS.get(word)
    return (
        known
        if known is not None
        else len(WORDS) + zlib.crc32(word.encode("utf-8", "surrogatepass")) % (2**31 - 128)
    )


def word_of(number: int) -> str | None:
    """Our own word with that number; None for every other."""
    return WORDS[number] if 0 <= number < len(WORDS) else None
