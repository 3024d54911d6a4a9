"""Snapshots are values: whoever holds one can compare it with the next."""

from dataclasses import FrozenInstanceError, replace

import pytest

from control_plane.core.fleet import WorkerPhase
from control_plane.core.snapshot import KeyEntry, ModelEntry, Route, Snapshot
from mesh.kit.ids import DeploymentId, NodeId, OrganizationId, WorkerId
from tests.unit.control_plane.fleets import NOW

ROUTE = Route(WorkerId("w"), NodeId("n"), DeploymentId("d"), "llamacpp", 4, WorkerPhase.STARTING)
KEY = KeyEntry("k", bytes(32), OrganizationId("org"), None)
SNAPSHOT = Snapshot(7, (KEY,), (ModelEntry("small", NOW, 4096, (ROUTE,)),), ("revoked",))


def test_snapshots_that_tell_the_same_are_equal_and_a_phase_is_a_difference() -> None:
    same = replace(SNAPSHOT, api_keys=(replace(KEY),))
    moved = replace(SNAPSHOT.models[0], routes=(replace(ROUTE, phase=WorkerPhase.READY),))
    assert same == SNAPSHOT
    assert hash(same) == hash(SNAPSHOT)
    assert replace(SNAPSHOT, models=(moved,)) != SNAPSHOT


def test_a_snapshot_is_never_changed_only_replaced() -> None:
    with pytest.raises(FrozenInstanceError):
        SNAPSHOT.revision = 8  # type: ignore[misc]  # the point of the case
