"""Who a certificate is for: ``spiffe://<trust domain>/<kind>/<id>``, parsed strictly. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum

from mesh.kit.errors import InvalidInput

DEFAULT_TRUST_DOMAIN = "mesh.local"
MAX_ID = 64
MAX_TRUST_DOMAIN = 200  # a server's name is a label longer, and a DNS name has at most 253 characters

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_URI = re.compile(r"spiffe://([a-z0-9.-]{1,253})/([a-z-]{1,32})/([a-z0-9._-]{1,64})")


class Kind(StrEnum):
    """What a process or a person is to the mesh. The value is the path segment of its name."""

    NODE = "node"
    GATEWAY = "gateway"
    CONTROL_PLANE = "control-plane"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Identity:
    """One caller. Cannot be made with an id or a trust domain that a name may not carry (InvalidInput)."""

    kind: Kind
    id: str
    trust_domain: str = DEFAULT_TRUST_DOMAIN

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        if _ID.fullmatch(self.id) is None or ".." in self.id:
            raise InvalidInput(
                "identity", f"an id is 1 to {MAX_ID} of a-z 0-9 . _ - and begins and ends with a letter or digit"
            )

    def __str__(self) -> str:
        return format(self)


def check_dns_name(text: str, *, field: str = "dns name") -> str:
    """The text itself when it is a lower-case DNS name; InvalidInput otherwise."""
    if len(text) > 253 or _DNS_NAME.fullmatch(text) is None:
        raise InvalidInput(field, "must be a lower-case DNS name")
    return text


def check_trust_domain(text: str) -> str:
    """The text itself when servers' names can be made of it; InvalidInput otherwise."""
    if len(text) > MAX_TRUST_DOMAIN:
        raise InvalidInput("trust domain", f"longer than {MAX_TRUST_DOMAIN} characters")
    return check_dns_name(text, field="trust domain")


def parse(uri: str) -> Identity:
    """The identity that a URI SAN names. InvalidInput for anything but the one canonical spelling."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise InvalidInput("identity", "not of the form spiffe://<trust domain>/<kind>/<id>")
    try:
        kind = Kind(match[2])
    except ValueError:
        raise InvalidInput("identity", "of no known kind") from None
    return Identity(kind, match[3], match[1])


def format(identity: Identity) -> str:
    """The URI of an identity; ``parse`` gives the identity back."""
    return f"spiffe://{identity.trust_domain}/{identity.kind}/{identity.id}"


def server_name(kind: Kind, trust_domain: str) -> str:
    """The DNS name in the certificates of servers of that kind, wherever they listen."""
    return f"{kind}.{trust_domain}"
