"""One mesh for all fault tests of a worker; each test leaves it as it found it."""

from collections.abc import Iterator

import pytest

from tests.fault.harness import Mesh, running_mesh


@pytest.fixture(scope="session")
def whole_mesh() -> Iterator[Mesh]:
    with running_mesh() as mesh:
        yield mesh


@pytest.fixture
async def mesh(whole_mesh: Mesh) -> Mesh:
    """The mesh, with a chat that works."""
    async with whole_mesh.client() as client:
        await whole_mesh.until_routable(client, within_s=30)
    return whole_mesh
