"""What only processes can do wrong: reused pids, strays, children, full disks, deaf engines."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from mesh.kit.errors import InvalidInput
from node_agent.core.command import Command
from node_agent.workers import enginelog, proc
from node_agent.workers.port import CannotStart, Running
from node_agent.workers.process import KEPT_FOLDERS, ProcessRuntime
from node_agent.workers.supervisor import stop_every_engine
from tests.fakes.engine import ScriptEngine, spec
from tests.fakes.patience import eventually

SLEEPER = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path, {"PATH": os.environ["PATH"], "MESH_AGENT_SECRET": "s3cret"})
    yield runtime
    await stop_every_engine(runtime, grace_s=1)


async def begin(runtime: ProcessRuntime, *options: str, worker_id: str = "w-1") -> Running:
    """A script engine, once it has said that it is there."""
    running = await runtime.start(
        worker_id, "hash-1", lambda port: ScriptEngine(options).command(spec(), port=port)
    )
    await eventually(lambda: "the environment has" in runtime.last_line(worker_id))
    return running


def alive(pid: int) -> bool:
    """Whether there is such a process, other than as an entry that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def edit(folder: Path, **changes: object) -> None:
    """Change the record of a worker."""
    record = folder / "worker.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


def leave_stray(tmp_path: Path, worker_id: str) -> int:
    """An engine whose agent was killed before it could note the pid."""
    digest = ProcessRuntime(tmp_path, {})._label(worker_id)
    stray = subprocess.Popen(SLEEPER, env={proc.LABEL: digest}, start_new_session=True)
    stray.returncode = 0
    return stray.pid


async def test_an_engine_has_a_session_a_label_and_a_log_and_none_of_the_agents_settings(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    running = await begin(runtime)
    assert os.getsid(running.pid) == running.pid != os.getsid(0)
    assert runtime.last_line("w-1") == "the environment has ['MESH_WORKER']"
    environment = Path(f"/proc/{running.pid}/environ").read_text()
    assert ":w-1" in environment
    assert "s3cret" not in environment
    assert (tmp_path / "workers" / "w-1").stat().st_mode & 0o077 == 0


async def test_it_listens_on_loopback_only_and_owns_its_port(runtime: ProcessRuntime) -> None:
    running = await begin(runtime)
    await eventually(lambda: runtime.owns_port(running))


async def test_a_port_that_someone_else_took_is_not_its_own(runtime: ProcessRuntime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        running = await runtime.start("w-1", "hash-1", lambda port: ScriptEngine().command(spec(), port=taken))
        assert await runtime.exited(running) == "exit code 1"
        assert runtime.last_line("w-1") == f"cannot listen on 127.0.0.1:{taken}: Address already in use"
        assert not runtime.owns_port(running)


@pytest.mark.parametrize("code", [0, 7])
async def test_how_a_child_ended_is_told(runtime: ProcessRuntime, code: int) -> None:
    running = await begin(runtime)
    await eventually(lambda: runtime.owns_port(running))
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(f"GET /crash?{code} HTTP/1.0\r\n\r\n".encode())
        assert await runtime.exited(running) == f"exit code {code}"


async def test_a_signal_that_ended_it_is_told(runtime: ProcessRuntime) -> None:
    running = await begin(runtime)
    os.kill(running.pid, signal.SIGSEGV)
    assert await runtime.exited(running) == "killed by signal 11"


async def test_a_deaf_engine_is_forced_after_the_grace(runtime: ProcessRuntime) -> None:
    running = await begin(runtime, "--ignore-term")
    await runtime.stop(running, grace_s=0.2)
    assert not alive(running.pid)


async def test_a_frozen_engine_is_forced_after_the_grace(runtime: ProcessRuntime) -> None:
    running = await begin(runtime)
    os.kill(running.pid, signal.SIGSTOP)
    await runtime.stop(running, grace_s=0.2)
    assert not alive(running.pid)


async def test_what_a_dead_engine_left_behind_is_ended_with_it(runtime: ProcessRuntime, tmp_path: Path) -> None:
    running = await begin(runtime, "--child")
    text = enginelog.path(tmp_path / "workers" / "w-1").read_text()
    child = int(text.split("child ")[1].split()[0])
    os.kill(running.pid, signal.SIGKILL)
    await runtime.exited(running)
    assert alive(child)
    await runtime.stop(running, grace_s=1)
    await eventually(lambda: not alive(child))


async def test_children_of_a_living_engine_are_no_strays(runtime: ProcessRuntime) -> None:
    running = await begin(runtime, "--child")
    assert await runtime.found() == (running,)


async def test_an_engine_without_a_record_is_found_by_its_label_and_can_be_stopped(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    stray = leave_stray(tmp_path, "w-1")
    (found,) = await runtime.found()
    assert (found.pid, found.worker_id, found.adoptable) == (stray, "w-1", False)
    await runtime.stop(found, grace_s=5)
    assert not alive(stray)


async def test_stopping_a_stray_spares_the_engine_on_record(runtime: ProcessRuntime, tmp_path: Path) -> None:
    running = await begin(runtime)
    stray = leave_stray(tmp_path, "w-1")
    found = {one.pid: one for one in await runtime.found()}
    assert found.keys() == {running.pid, stray}
    await runtime.stop(found[stray], grace_s=5)
    assert not alive(stray)
    assert await runtime.found() == (running,)


async def test_a_process_of_another_agents_folder_is_none_of_our_business(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    leave_stray(other, "w-1")
    assert await runtime.found() == ()
    assert await stop_every_engine(ProcessRuntime(other, {}), grace_s=5) == 1


async def test_a_pid_that_was_given_to_someone_else_is_neither_adopted_nor_touched(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    running = await begin(runtime)
    await runtime.stop(running, grace_s=5)
    stranger = await asyncio.create_subprocess_exec(*SLEEPER)
    # Even a start time that fits by chance does not make it ours: it lacks the label.
    edit(tmp_path / "workers" / "w-1", pid=stranger.pid, start_time=proc.start_ticks(stranger.pid))
    assert await runtime.found() == ()
    assert alive(stranger.pid)
    stranger.kill()
    await stranger.wait()


async def test_an_engine_whose_start_time_does_not_fit_its_record_is_not_adopted(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    running = await begin(runtime)
    edit(tmp_path / "workers" / "w-1", start_time=1)
    (found,) = await runtime.found()
    assert (found.pid, found.adoptable) == (running.pid, False)
    reused = Running(key="w-1.1", worker_id="w-1", spec_hash="", pid=running.pid, port=1, starts=1)
    assert await runtime.exited(reused) == "ended unseen"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"worker_id": "w-1"}', '{"command": 3}'])
async def test_a_damaged_record_makes_a_stray_of_its_engine(
    runtime: ProcessRuntime, tmp_path: Path, damage: str
) -> None:
    running = await begin(runtime)
    (tmp_path / "workers" / "w-1" / "worker.json").write_text(damage)
    (found,) = await runtime.found()
    assert (found.pid, found.adoptable) == (running.pid, False)


@pytest.mark.parametrize("worker_id", ["", "..", "../../etc", "a/b", ".hidden", "x" * 101, "a\0b"])
async def test_a_worker_id_that_is_no_folder_name_is_refused(runtime: ProcessRuntime, worker_id: str) -> None:
    with pytest.raises(InvalidInput, match="worker_id"):
        await runtime.start(worker_id, "hash-1", lambda _: Command(SLEEPER, {}))


async def test_a_missing_program_is_named(runtime: ProcessRuntime) -> None:
    with pytest.raises(CannotStart, match=r"cannot start /no/such: No such file or directory: /no/such"):
        await runtime.start("w-1", "hash-1", lambda _: Command(("/no/such",), {}))
    assert await runtime.found() == ()


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("in the way")
    with pytest.raises(CannotStart, match="workers"):
        await ProcessRuntime(tmp_path, {}).start("w-1", "hash-1", lambda _: Command(SLEEPER, {}))


async def test_folders_of_workers_that_are_no_more_are_kept_in_a_bounded_number(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    folders = tmp_path / "workers"
    for number in range(KEPT_FOLDERS + 5):
        (folders / f"old-{number}").mkdir(parents=True)
        os.utime(folders / f"old-{number}", (number, number))
    await begin(runtime)
    left = {folder.name for folder in folders.iterdir()}
    assert len(left) <= KEPT_FOLDERS + 1
    assert {"w-1", f"old-{KEPT_FOLDERS + 4}"} <= left
    assert "old-0" not in left


def test_a_log_is_shortened_in_place_and_its_last_part_kept(tmp_path: Path) -> None:
    log = enginelog.path(tmp_path)
    with log.open("ab") as held_by_the_engine:
        held_by_the_engine.write(b"a" * 90 + b"the end\n")
        held_by_the_engine.flush()
        enginelog.trim(tmp_path, cap=98, tail=8)
        assert log.stat().st_size == 98
        enginelog.trim(tmp_path, cap=97, tail=8)
        held_by_the_engine.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    assert log.with_name("engine.log.1").read_bytes() == b"the end\n"


def test_the_last_line_is_short_and_printable(tmp_path: Path) -> None:
    enginelog.path(tmp_path).write_bytes(b"first\n\x1b[31mbad\xff\x07" + b"x" * 1000 + b"\n\n  \n")
    line = enginelog.last_line(tmp_path)
    assert line.startswith(" [31mbad\ufffd xxx")
    assert len(line) == enginelog.LINE


async def test_when_nobody_can_look_nobody_is_taken_for_dead(runtime: ProcessRuntime, tmp_path: Path) -> None:
    running = await begin(runtime)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            await runtime.found()
        with pytest.raises(CannotStart, match="Too many open files"):
            await runtime.start("w-2", "hash-1", lambda _: Command(SLEEPER, {}))
    assert await runtime.found() == (running,)


async def test_a_full_disk_costs_a_note_but_not_the_engine(
    runtime: ProcessRuntime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = await begin(runtime)
    folder = tmp_path / "workers" / "w-1"
    for in_the_way in (".worker.json.new", "engine.log.1"):
        (folder / in_the_way).mkdir()
    os.truncate(enginelog.path(folder), enginelog.CAP + 1)
    assert runtime.remember_ready(running).was_ready
    runtime.trim_log("w-1")
    assert [record.message for record in caplog.records] == [
        "cannot note an engine's state",
        "cannot shorten an engine's log",
    ]
    assert await runtime.found() == (running,)


async def test_a_record_of_another_engine_is_left_alone(runtime: ProcessRuntime, tmp_path: Path) -> None:
    running = await begin(runtime)
    earlier = Running(key="w-1.1", worker_id="w-1", spec_hash="hash-1", pid=running.pid, port=1, starts=1)
    runtime.remember_ready(earlier)
    assert await runtime.found() == (running,)
