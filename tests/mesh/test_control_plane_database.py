"""The database goes away and comes back: what lives lives on, what asks is told, and everything resumes."""

import asyncio
import itertools
import os
import signal
from pathlib import Path

import grpc
import pytest

from control_plane.app import StartFailed
from mesh.admin.v1 import organization_pb2
from mesh.gateway.v1 import gateway_pb2
from pki.files import write_private
from tests.mesh.control_plane_clients import eventually, status, status_of
from tests.mesh.control_plane_harness import Plane, open_folder, plane_in, running

AWAY = (grpc.StatusCode.UNAVAILABLE, "unavailable")
FINE = (grpc.StatusCode.OK, "")


def postmaster(folder: Path) -> int:
    """The process of the embedded database."""
    return int((folder / "state/postgres/data/postmaster.pid").read_text().split()[0])


async def ask(plane: Plane) -> tuple[grpc.StatusCode, str]:
    return await status_of(plane.organizations.ListOrganizations(organization_pb2.ListOrganizationsRequest()))


async def test_streams_outlive_the_database_and_calls_are_told_to_come_back() -> None:
    async with running() as plane:
        assert plane.postgres is not None
        joined, token = await plane.join(), await plane.token()
        node = await plane.connect(joined)
        await node.welcome()
        await node.desired()
        snapshots = plane.watch()
        await anext(snapshots)
        await plane.deploy("before")
        [spec] = (await node.desired(lambda state: bool(state.workers))).workers

        await plane.postgres.stop()
        assert await ask(plane) == AWAY
        assert await status_of(plane.join(token)) == AWAY
        assert await status_of(plane.gateway("gw-2").ReportUsage(gateway_pb2.ReportUsageRequest())) == AWAY
        assert await (await plane.connect(joined)).ended() == AWAY
        status_code, why = await plane.http("/readyz")
        assert (status_code, "database" in why) == (503, True)
        assert await plane.http("/healthz") == (200, "ok\n")
        assert "inventiv_control_plane_database_up 0.0" in (await plane.http("/metrics"))[1]
        await node.report(workers=[status(spec)])  # heard, not stored; the stream stays

        await plane.postgres.start()
        await eventually(lambda: ask(plane), lambda answer: answer == FINE)
        assert await plane.http("/readyz") == (200, "ok\n")
        await node.report(workers=[status(spec)])
        async for seen in snapshots:
            if any(route.phase for model in seen.models for route in model.routes if model.name == "before"):
                break
        await plane.deploy("after")
        told = await node.desired(lambda state: len(state.workers) == 2)
        assert {worker.model for worker in told.workers} == {"before", "after"}
        assert (await plane.join(token)).node_id != joined.node_id


async def test_a_revocation_is_felt_though_its_hint_was_lost() -> None:
    async with running() as plane:
        assert plane.postgres is not None
        joined = await plane.join()
        node = await plane.connect(joined)
        await node.welcome()
        await plane.postgres.stop()
        await plane.postgres.start()
        async with plane.database() as db:  # as another replica would, while nobody here listens yet
            await db.execute("UPDATE nodes SET state = 'revoked' WHERE node_id = $1", joined.node_id)
        assert await node.ended() == (grpc.StatusCode.PERMISSION_DENIED, "node_revoked")


async def test_the_embedded_database_is_started_again_when_it_dies() -> None:
    with open_folder() as folder:
        plane = await plane_in(folder).start()
        try:
            joined = await plane.join()
            node = await plane.connect(joined)
            await node.welcome()
            os.kill(postmaster(folder), signal.SIGKILL)
            await eventually(lambda: ask(plane), lambda answer: answer == FINE)
            await deploy_when_it_can(plane)
            assert (await node.desired(lambda state: bool(state.workers))).workers
        finally:
            await plane.stop()


async def deploy_when_it_can(plane: Plane) -> None:
    """A connection of the pool may still be one of before: its caller is told to come again."""
    async with asyncio.timeout(20):
        for number in itertools.count():
            try:
                await plane.deploy(f"again-{number}")
                return
            except grpc.aio.AioRpcError as exc:
                if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.1)


async def test_it_waits_for_a_database_that_starts_later() -> None:
    async with running() as other:
        assert other.postgres is not None
        await other.stop()
        await other.postgres.stop()
        starting = asyncio.create_task(other.start())
        try:
            await other.postgres.start()
            await starting
            assert await ask(other) == FINE
        finally:
            await starting


async def test_another_pepper_than_the_databases_own_is_one_line_and_no_start() -> None:
    async with running() as plane:
        await plane.stop()
        mine = (plane.state / "pepper").read_text()
        write_private(plane.state / "pepper", b"ab" * 32)
        try:
            with pytest.raises(
                StartFailed, match="pepper is not the one this database's keys and tokens"
            ) as refused:
                await plane.start()
            assert "\n" not in str(refused.value)
            assert "abab" not in str(refused.value)
        finally:
            write_private(plane.state / "pepper", mine.encode())
            await plane.start()
        assert await ask(plane) == FINE
