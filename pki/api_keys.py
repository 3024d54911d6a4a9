"""API keys: ``inv-<key id>-<secret>``. The id finds the row, the secret is kept only as a MAC. Pure."""

import re
from dataclasses import dataclass, field

from mesh.kit.errors import InvalidInput
from pki.tokens import ID_LENGTH, mac, new_id, new_secret, same

PREFIX = "inv"
MAX_TEXT = 128

_KEY = re.compile(rf"{PREFIX}-([a-z0-9]{{{ID_LENGTH}}})-([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its holder has it. ``reveal()`` is the only way to its text."""

    id: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """The text that is shown once, and sent as the bearer token."""
        return f"{PREFIX}-{self.id}-{self.secret}"

    def mac(self, pepper: bytes) -> bytes:
        """What is stored of the secret."""
        return mac(pepper, self.secret)

    def matches(self, pepper: bytes, stored: bytes) -> bool:
        """Whether the stored MAC is of this secret, in constant time."""
        return same(self.mac(pepper), stored)


def new_api_key() -> ApiKey:
    """A key nobody has seen before."""
    return ApiKey(new_id(), new_secret())


def parse(text: str) -> ApiKey:
    """The key in the text. InvalidInput, which never repeats the text, when it has not the form of one."""
    match = _KEY.fullmatch(text) if len(text) <= MAX_TEXT else None
    if match is None:
        raise InvalidInput("api key", f"not of the form {PREFIX}-<id>-<secret>")
    return ApiKey(match[1], match[2])
