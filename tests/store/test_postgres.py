"""The embedded Postgres: made, restarted, adopted, and clear about why it does not come up."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from control_plane.store import postgres_home as home
from control_plane.store.db import open_pool, ping
from control_plane.store.postgres import EmbeddedPostgres, complaint_in
from control_plane.store.postgres_home import PostgresFailed
from mesh.kit.clock import WallClock
from mesh.kit.errors import Unavailable
from tests.fakes.database import FAST

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root runs it as another user")
# A control plane that starts the database, says its process, and then does nothing until it is killed.
_CONTROL_PLANE = """
import asyncio, sys
from pathlib import Path
from control_plane.store.postgres import EmbeddedPostgres
from mesh.kit.clock import WallClock

async def main():
    postgres = EmbeddedPostgres(Path(sys.argv[1]), WallClock(), options={"fsync": "off"})
    await postgres.start()
    print(postgres.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mesh-test-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A folder whose cluster is made already; every test leaves it stopped."""
    made = Path(tempfile.mkdtemp(prefix="mesh-test-"))
    made.chmod(0o711)
    directory = made / "postgres"

    async def make() -> None:
        async with running(directory):
            pass

    asyncio.run(make())
    yield directory
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def in_reach() -> Iterator[Path]:
    """The programs where any user can run them: root's own copy may lie where no other user may look."""
    made = Path(tempfile.mkdtemp(prefix="mesh-test-"))
    made.chmod(0o711)
    yield home.reachable_bin_dir(home.find_bin_dir(None), made, home.run_as(None))
    shutil.rmtree(made)


@asynccontextmanager
async def running(directory: Path, **more: object) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(directory, WallClock(), options=FAST, **more)  # type: ignore[arg-type]
    await postgres.start()
    try:
        yield postgres
    finally:
        await postgres.stop()


async def query(postgres: EmbeddedPostgres, statement: str) -> object:
    db = await asyncpg.connect(postgres.dsn)
    try:
        return await db.fetchval(statement)
    finally:
        await db.close()


async def eventually(works: Callable[[], Awaitable[object]]) -> None:
    """Try until it no longer raises Unavailable."""
    async with asyncio.timeout(60):
        while True:
            try:
                await works()
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def another_than(pid: int, postgres: EmbeddedPostgres) -> None:
    """Wait until it runs under another number."""
    async with asyncio.timeout(60):
        while postgres.pid == pid:  # noqa: ASYNC110  # the product tells nobody; its rows come back
            await asyncio.sleep(0.05)


async def start_control_plane(directory: Path) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CONTROL_PLANE,
        directory,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def test_what_was_written_is_there_after_a_restart(folder: Path) -> None:
    async with running(folder / "postgres") as postgres:
        dsn = postgres.dsn
        await query(postgres, "CREATE TABLE t AS SELECT 7 AS x")
        assert await query(postgres, "SHOW data_checksums") == "on"
        assert await query(postgres, "SHOW server_encoding") == "UTF8"
        assert await query(postgres, "SHOW listen_addresses") == ""
    async with running(folder / "postgres") as postgres:
        assert postgres.dsn == dsn
        assert await query(postgres, "SELECT x FROM t") == 7
    password = folder / "postgres" / "password"
    assert password.stat().st_mode & 0o777 == 0o600
    assert (folder / "postgres" / "run").stat().st_mode & 0o777 == 0o700
    assert not (folder / "postgres" / "run" / "password").exists()


async def test_nobody_connects_without_the_password(cluster: Path) -> None:
    async with running(cluster) as postgres:
        secret = (cluster / "password").read_text()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.dsn.replace(secret, "guess"))


async def test_a_folder_serves_one_control_plane_at_a_time(cluster: Path) -> None:
    async with running(cluster):
        with pytest.raises(PostgresFailed, match="another control plane uses"):
            await EmbeddedPostgres(cluster, WallClock()).start()
    async with running(cluster):
        pass


async def test_a_server_that_dies_is_started_again_and_the_pool_recovers(cluster: Path) -> None:
    async with running(cluster) as postgres:
        pool = await open_pool(postgres.dsn)
        await ping(pool)
        keeping = asyncio.ensure_future(postgres.run())
        for _ in range(2):
            first = postgres.pid
            os.kill(first, signal.SIGKILL)
            await eventually(lambda: ping(pool))
            await another_than(first, postgres)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        await eventually(lambda: ping(pool))
        await pool.close()


async def test_a_server_that_outlived_its_control_plane_is_adopted(cluster: Path) -> None:
    process, pid = await start_control_plane(cluster)
    process.kill()
    await process.wait()
    async with running(cluster) as postgres:
        assert postgres.pid == pid
        assert await query(postgres, "SELECT 1") == 1
        adopted, keeping = postgres.pid, asyncio.ensure_future(postgres.run())
        os.kill(adopted, signal.SIGKILL)
        await another_than(adopted, postgres)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
        assert await query(postgres, "SELECT 1") == 1
    assert not (cluster / "data" / "postmaster.pid").exists()


async def test_an_adopted_server_is_stopped_like_our_own(cluster: Path) -> None:
    process, pid = await start_control_plane(cluster)
    process.kill()
    await process.wait()
    async with running(cluster) as postgres:
        assert postgres.pid == pid
    assert not home.is_server_of(pid, cluster / "data")


async def test_a_pid_file_that_names_another_process_is_no_obstacle(cluster: Path) -> None:
    async with running(cluster):
        lines = (cluster / "data" / "postmaster.pid").read_text().splitlines()
    (cluster / "data" / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    if ROOT:
        shutil.chown(cluster / "data" / "postmaster.pid", *os.stat(cluster / "data")[4:6])
    async with running(cluster) as postgres:
        assert await query(postgres, "SELECT 1") == 1


async def test_a_making_that_was_cut_off_is_begun_afresh(folder: Path) -> None:
    half = folder / "postgres" / "data.new" / "cluster"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with running(folder / "postgres") as postgres:
        assert await query(postgres, "SELECT 1") == 1
    assert not (folder / "postgres" / "data.new").exists()


async def test_a_path_too_long_for_a_socket_and_full_of_odd_characters_works(folder: Path, in_reach: Path) -> None:
    directory = folder / ("a b,c'd\"e%20f&g?h#ü" + "x" * 80)
    async with running(directory, bin_dir=in_reach) as postgres:
        first = postgres.dsn
        assert await query(postgres, "SELECT 1") == 1
    async with running(directory, bin_dir=in_reach) as postgres:
        assert postgres.dsn == first
    sockets = Path((directory / "socket-dir").read_text())
    assert sockets.stat().st_mode & 0o777 == 0o700
    sockets.rmdir()
    async with running(directory, bin_dir=in_reach) as postgres:
        assert postgres.dsn != first
    Path((directory / "socket-dir").read_text()).rmdir()


async def test_odd_characters_in_a_short_path_work_too(folder: Path, in_reach: Path) -> None:
    directory = folder / "a b,c'd\"e%20f&g?h#ü"
    async with running(directory, bin_dir=in_reach) as postgres:
        assert await query(postgres, "SELECT 1") == 1
    Path((directory / "socket-dir").read_text()).rmdir()


async def test_a_cluster_of_another_version_is_named(cluster: Path) -> None:
    version = cluster / "data" / "PG_VERSION"
    ours = version.read_text()
    version.write_text("12\n")
    try:
        with pytest.raises(
            PostgresFailed, match=r"incompatible with server.*initialized by PostgreSQL version 12"
        ):
            await EmbeddedPostgres(cluster, WallClock()).start()
    finally:
        version.write_text(ours)
    async with running(cluster):
        pass


async def test_missing_programs_are_named(folder: Path) -> None:
    with pytest.raises(PostgresFailed, match=r"no program 'initdb' in .*MESH_CP_POSTGRES_BIN_DIR"):
        await EmbeddedPostgres(folder / "postgres", WallClock(), bin_dir=folder).start()


def programs(folder: Path, **scripts: str) -> Path:
    """A folder of programs that only say something and fail."""
    made = folder / "bin"
    made.mkdir(mode=0o755)
    for name, text in scripts.items():
        (made / name).write_text(f"#!/bin/sh\necho '{text}'\nexit 1\n")
        (made / name).chmod(0o755)
    return made


async def test_a_full_disk_is_one_clear_line(folder: Path) -> None:
    line = 'initdb: error: could not write to file "pg_wal/xlogtemp.7": No space left on device'
    bin_dir = programs(folder, initdb=line, postgres="")
    with pytest.raises(PostgresFailed) as caught:
        await EmbeddedPostgres(folder / "postgres", WallClock(), bin_dir=bin_dir).start()
    assert str(caught.value) == (
        'embedded Postgres cannot be made: could not write to file "pg_wal/xlogtemp.7": No space left on device'
    )
    assert not (folder / "postgres" / "run" / "password").exists()


async def test_a_failure_without_a_word_points_to_the_log(folder: Path) -> None:
    bin_dir = programs(folder, initdb="", postgres="")
    with pytest.raises(PostgresFailed, match=r"see .*server\.log"):
        await EmbeddedPostgres(folder / "postgres", WallClock(), bin_dir=bin_dir).start()


def test_a_complaint_is_told_without_time_and_level_and_with_its_detail() -> None:
    assert complaint_in([]) == ""
    assert complaint_in(["starting", "x: error while loading shared libraries: libpq.so", ""]) == (
        "x: error while loading shared libraries: libpq.so"
    )
    lines = [
        "2026-01-01 00:00:00.000 UTC [7] FATAL:  database files are incompatible with server",
        "2026-01-01 00:00:00.000 UTC [7] DETAIL:  The data directory was initialized by version 12.",
        "2026-01-01 00:00:00.000 UTC [7] LOG:  database system is shut down",
    ]
    assert complaint_in(lines) == (
        "database files are incompatible with server (The data directory was initialized by version 12.)"
    )


def test_a_full_disk_is_the_reason_whatever_else_follows_from_it() -> None:
    lines = [
        "FATAL:  could not extend file: wrote only 4096 of 8192 bytes",
        "HINT:  Check free disk space.",
        'PANIC:  could not write to file "pg_wal/xlogtemp.7": No space left on device',
        "ERROR:  cannot abort transaction 1, it was already committed",
    ]
    assert complaint_in(lines) == 'could not write to file "pg_wal/xlogtemp.7": No space left on device'


async def test_a_place_that_cannot_be_written_is_one_line(folder: Path) -> None:
    (folder / "postgres").write_text("a file")
    with pytest.raises(PostgresFailed, match="File exists"):
        await EmbeddedPostgres(folder / "postgres", WallClock()).start()


@needs_root
async def test_a_user_that_does_not_exist_or_is_root_is_refused(folder: Path) -> None:
    with pytest.raises(PostgresFailed, match="no user 'no-such-user'"):
        await EmbeddedPostgres(folder / "postgres", WallClock(), user="no-such-user").start()
    with pytest.raises(PostgresFailed, match="refuses to run as root"):
        await EmbeddedPostgres(folder / "postgres", WallClock(), user="root").start()


@needs_root
async def test_a_closed_folder_above_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PostgresFailed, match=rf"cannot enter {closed}: chmod o\+x"):
        await EmbeddedPostgres(closed / "postgres", WallClock()).start()
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
async def test_programs_out_of_reach_are_copied_once(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    install = home.find_bin_dir(None).parent
    package = install.parent
    for name in ("bin", "lib", "share"):
        shutil.copytree(install / name, private / package.name / install.name / name, symlinks=True)
    shutil.copytree(f"{package}.libs", private / f"{package.name}.libs")
    bin_dir = private / package.name / install.name / "bin"
    for _ in range(2):
        async with running(folder / "postgres", bin_dir=bin_dir, user="nobody") as postgres:
            assert await query(postgres, "SELECT 1") == 1
        assert len([*(folder / "postgres").glob("install-*")]) == 1
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("odd", ['"', "$", "`", "\\"])
async def test_programs_in_a_folder_that_a_shell_misreads_are_an_error(folder: Path, odd: str) -> None:
    (folder / odd).mkdir()
    bin_dir = programs(folder / odd, initdb="", postgres="")
    with pytest.raises(PostgresFailed, match=r"cannot run in .*may be in that path"):
        await EmbeddedPostgres(folder / "postgres", WallClock(), bin_dir=bin_dir).start()


@needs_root
async def test_programs_out_of_reach_that_are_no_installation_are_an_error(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    bin_dir = programs(private, initdb="", postgres="")
    with pytest.raises(PostgresFailed, match=r"cannot reach .*no installation we could copy"):
        await EmbeddedPostgres(folder / "postgres", WallClock(), bin_dir=bin_dir).start()
