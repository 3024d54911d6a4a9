"""What the tests of this folder share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.mesh.control_plane_harness import Plane, running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane() -> AsyncIterator[Plane]:
    """One control plane for the whole module: its tests use names of their own."""
    async with running() as started:
        yield started
