"""Which conversation, and which session, a request belongs to; and which worker had it last.

A conversation is known by how it begins: what the model is told first, and the first thing that is said. Both stay
the same from turn to turn, and the second tells conversations apart that begin with the same instructions.
"""

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

MAX_TEXT: Final = 4096
"""Characters hashed of the instructions, and of what is said first; of a longer one both ends and the length."""
MAX_PROMPT: Final = 1024
"""Characters hashed of a bare prompt: what is added to it later must not matter."""
MAX_TOKENS: Final = 256
"""The same for a prompt of token numbers."""
MAX_PARTS: Final = 16
"""Messages looked at before somebody speaks, and parts of one message."""
MAX_SESSION: Final = 256
"""Characters of a session's name that count."""

_INSTRUCTIONS: Final = ("system", "developer")
_CARRIERS: Final = ("text", "image_url", "video_url", "audio_url", "input_audio", "source", "file_id")
"""Where a part of a message has its content, by OpenAI and by Anthropic."""


def prefix_of(fields: Mapping[str, object], salt: str = "") -> int | None:
    """The 64-bit hash of the beginning of that request; None when there is none to be known by.

    ``fields`` is the parsed body of an endpoint that generates text; whatever they hold, nothing is raised.
    ``salt`` keeps apart what shares no cache: give the model's name.
    """
    told, said = _beginning(fields)
    if not said:
        return None
    return _hash(salt, _ends(told), _ends(said))


def session_of(header: str | None, salt: str = "") -> int | None:
    """The 64-bit hash of the session that ``X-Inventiv-Session`` names; None when it names none.

    ``salt`` keeps apart sessions that happen to be called the same: give the model and the organization.
    """
    name = header.strip() if header else ""
    return _hash(salt, name[:MAX_SESSION]) if name else None


class PrefixMemory:
    """Which worker had a prefix, or a session, last: there is its cache. Forgets what was not used for longest."""

    def __init__(self, capacity: int) -> None:
        assert capacity > 0, "a memory that remembers"
        self._capacity = capacity
        self._workers: OrderedDict[int, str] = OrderedDict()

    def last(self, key: int | None) -> str:
        """The worker; empty when it is not known."""
        return "" if key is None else self._workers.get(key, "")

    def remember(self, key: int | None, worker_id: str) -> None:
        """That worker has it now. Nothing happens without a key."""
        if key is None:
            return
        self._workers[key] = worker_id
        self._workers.move_to_end(key)
        if len(self._workers) > self._capacity:
            self._workers.popitem(last=False)

    def __len__(self) -> int:
        return len(self._workers)


def _beginning(fields: Mapping[str, object]) -> tuple[str, str]:
    """What the model is told, and what is said first."""
    told = _text(fields.get("system")) + _text(fields.get("instructions"))
    for name in ("messages", "input"):
        said = fields.get(name)
        if isinstance(said, list) and said and isinstance(said[0], dict):
            return _of_messages(told, said)
        if said and isinstance(said, str):
            return told, said
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]  # of several prompts the first
    if isinstance(prompt, list):
        return told, " ".join([str(token) for token in prompt[:MAX_TOKENS] if isinstance(token, int)])
    return told, prompt[:MAX_PROMPT] if isinstance(prompt, str) else ""


def _of_messages(told: str, messages: list[object]) -> tuple[str, str]:
    for message in messages[:MAX_PARTS]:
        if not isinstance(message, dict):
            continue
        text = _text(message.get("content"))
        if message.get("role") not in _INSTRUCTIONS:
            # Not even an empty one is nothing: it may carry what we do not know.
            return told, f"said:{text}"
        told += _ends(text)
    return "", told  # nobody has spoken yet: the instructions are all there is


def _text(content: object) -> str:
    """The text of a message's content: a string, or parts of several kinds."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join([_ends(_part(part)) for part in content[:MAX_PARTS]])


def _part(part: object) -> str:
    """What tells a part from another: its text, or where its picture or sound is."""
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    for name in _CARRIERS:
        value = part.get(name)
        if isinstance(value, dict):
            value = value.get("url") or value.get("data")
        if isinstance(value, str):
            return value
    return ""


def _ends(text: str) -> str:
    """The text, or both ends and the length of a long one."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n{len(text)}\n{text[-half:]}"


def _hash(*parts: str) -> int:
    digest = blake2b(digest_size=8)
    for part in parts:
        octets = part.encode("utf-8", "surrogatepass")
        digest.update(len(octets).to_bytes(4, "big"))
        digest.update(octets)
    return int.from_bytes(digest.digest(), "big")
