"""Names: one spelling each, and nothing else is let in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kit.errors import InvalidInput
from pki import names
from pki.names import Identity, Kind

_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DOMAINS = st.lists(_LABEL, min_size=1, max_size=4).map(".".join)
IDS = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True).filter(lambda text: ".." not in text)


@given(kind=st.sampled_from(Kind), name=IDS, domain=DOMAINS)
def test_a_name_is_read_back_as_it_was_written(kind: Kind, name: str, domain: str) -> None:
    identity = Identity(kind, name, domain)
    assert names.parse(names.format(identity)) == identity
    assert str(identity) == f"spiffe://{domain}/{kind}/{name}"


@given(st.text())
def test_whatever_is_read_has_only_that_spelling(text: str) -> None:
    for candidate in (text, f"spiffe://{text}/node/a", f"spiffe://mesh.local/{text}", f"spiffe://m/node/{text}"):
        try:
            identity = names.parse(candidate)
        except InvalidInput:
            continue
        assert names.format(identity) == candidate


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://mesh.local",
        "spiffe://mesh.local/",
        "spiffe://mesh.local/node",
        "spiffe://mesh.local/node/",
        "spiffe://mesh.local//a",
        "spiffe:///node/a",
        "spiffe://mesh.local/node/a/",
        "spiffe://mesh.local/node/a/b",
        "spiffe://mesh.local/owner/o/node/a",
        "spiffe://mesh.local/node/..",
        "spiffe://mesh.local/node/.",
        "spiffe://mesh.local/node/a..b",
        "spiffe://mesh.local/node/../gateway/a",
        "spiffe://mesh.local/node/%61",
        "spiffe://mesh.local/node/A",
        "spiffe://mesh.local/Node/a",
        "spiffe://Mesh.local/node/a",
        "SPIFFE://mesh.local/node/a",
        "spiffe://mesh.local:1/node/a",
        "spiffe://a@mesh.local/node/a",
        "spiffe://mesh..local/node/a",
        "spiffe://.mesh.local/node/a",
        "spiffe://-mesh.local/node/a",
        "spiffe://mesh.local/node/a?b",
        "spiffe://mesh.local/node/a#b",
        "spiffe://mesh.local/node/a\n",
        " spiffe://mesh.local/node/a",
        "spiffe://mesh.local/node/-a",
        "spiffe://mesh.local/node/" + "a" * 65,
        "spiffe://mesh.local/workload/a",
        "https://mesh.local/node/a",
        "spiffe://mesh.local/node/ä",
        "spiffe://mesh.local/node/٣",
    ],
)
def test_any_other_spelling_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput):
        names.parse(uri)


@pytest.mark.parametrize("name", ["", "A", "a/b", "a b", "..", "a..b", "a%2e", ".a", "a-", "a" * 65])
def test_an_identity_cannot_be_made_of_a_bad_id(name: str) -> None:
    with pytest.raises(InvalidInput, match="an id is"):
        Identity(Kind.NODE, name)


@pytest.mark.parametrize(
    "domain", ["", "Mesh.local", "mesh local", "mesh/local", "a..b", "x" * 64, "x." * 110 + "x"]
)
def test_an_identity_cannot_be_made_of_a_bad_trust_domain(domain: str) -> None:
    with pytest.raises(InvalidInput, match="trust domain"):
        Identity(Kind.NODE, "a", domain)


def test_servers_are_called_by_their_kind() -> None:
    assert names.server_name(Kind.CONTROL_PLANE, "mesh.local") == "control-plane.mesh.local"
    assert names.server_name(Kind.GATEWAY, "example.org") == "gateway.example.org"
