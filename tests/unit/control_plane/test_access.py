"""What is shown of a key once, and what is kept of it."""

from datetime import UTC, datetime

from control_plane.core.access import ApiKey, api_key_mac, api_key_text
from mesh.kit.ids import OrganizationId


def test_the_key_text_begins_with_its_public_part() -> None:
    assert api_key_text("k1", "s3cret") == "inv-k1-s3cret"
    key = ApiKey("k1", OrganizationId("org"), "laptop", datetime(2026, 1, 1, tzinfo=UTC))
    assert api_key_text("k1", "s3cret").startswith(f"{key.prefix}-")


def test_what_is_kept_depends_on_pepper_and_secret_and_shows_neither() -> None:
    kept = api_key_mac(b"pepper", "s3cret")
    assert kept == api_key_mac(b"pepper", "s3cret")
    assert len({kept, api_key_mac(b"other", "s3cret"), api_key_mac(b"pepper", "s3creT")}) == 3
    assert (len(kept), b"s3cret" in kept) == (32, False)
