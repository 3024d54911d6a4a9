"""Join tokens: ``inv1_<id>_<secret>_<crc>``. The id finds the row, the secret is kept only as a MAC. Pure."""

import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

from mesh.kit.errors import InvalidInput

PREFIX = "inv1"
ID_LENGTH = 12
SECRET_OCTETS = 32  # 256 random bits, 43 characters: nothing to guess, so a fast MAC is the right hash
MAX_TEXT = 128

_ALPHABET = string.ascii_lowercase + string.digits
_TOKEN = re.compile(rf"({PREFIX}_([a-z0-9]{{{ID_LENGTH}}})_([A-Za-z0-9_-]{{43}}))_([0-9a-f]{{8}})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token as its holder has it. ``reveal()`` is the only way to its text."""

    id: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """The text that is shown once."""
        body = f"{PREFIX}_{self.id}_{self.secret}"
        return f"{body}_{_check(body)}"


def new_token() -> JoinToken:
    """A token nobody has seen before."""
    return JoinToken(new_id(), new_secret())


def parse(text: str) -> JoinToken:
    """The token in the text. InvalidInput says whether its shape is wrong or it was mistyped, not what it was."""
    match = _TOKEN.fullmatch(text.strip()) if len(text) <= MAX_TEXT else None
    if match is None:
        raise InvalidInput("token", f"not of the form {PREFIX}_<id>_<secret>_<check>")
    if _check(match[1]) != match[4]:
        raise InvalidInput("token", "mistyped or cut: its check does not match")
    return JoinToken(match[2], match[3])


def mac(pepper: bytes, secret: str) -> bytes:
    """HMAC-SHA256(pepper, secret): what the database keeps."""
    return hmac.digest(pepper, secret.encode(), "sha256")


def same(one: bytes, other: bytes) -> bool:
    """Whether two MACs are equal, in constant time."""
    return hmac.compare_digest(one, other)


def new_id() -> str:
    """A public id: lower-case letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH))


def new_secret() -> str:
    """A secret: base64url without padding."""
    return secrets.token_urlsafe(SECRET_OCTETS)


def _check(body: str) -> str:
    # No security in it: it turns a typo into a clear message without a round trip.
    return f"{zlib.crc32(body.encode()):08x}"
