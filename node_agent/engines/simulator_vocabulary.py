"""Numbers for words: /tokenize and /detokenize of the simulator."""

from collections import OrderedDict

from node_agent.engines.simulator_text import token_id, word_of

REMEMBERED = 65536  # words of others that can be said again


class Vocabulary:
    """Numbers for words. Others' words are known again for as long as they are among the last ones seen."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, str] = OrderedDict()

    def number(self, word: str) -> int:
        """The number of a word, the same everywhere."""
        number = token_id(word)
        if word_of(number) is None:
            self._seen[number] = word
            self._seen.move_to_end(number)
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        return number

    def word(self, number: int) -> str | None:
        """The word of a number, if known."""
        return word_of(number) or self._seen.get(number)
