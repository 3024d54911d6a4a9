"""Files that are either the old or the new, never half, and never readable by others when they hold keys."""

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace the file as one step that survives a power cut. It never exists with a wider mode."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:  # edge: whatever happened, no half file stays
        scratch.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """``write_atomic`` with mode 0600 from the file's first moment."""
    write_atomic(path, content, mode=0o600)


def make_private_dir(path: Path) -> None:
    """Make the folder with mode 0700, and its missing parents; one that exists is left as it is."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_private_dir(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
