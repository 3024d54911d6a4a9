"""Usage on disk: segment files to which lines are only ever appended, each with one write.

A line is in the kernel's hands before the request goes on, so a killed process loses nothing. Segments are read in
their order and deleted in their order, once all in them has been delivered; requests that still run have their
opening copied to the newest segment first. What was delivered and not yet deleted is delivered again after a
restart; the receiver knows requests by their id.
"""

import fcntl
import logging
import os
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from gateway.core import usage
from gateway.core.errors import SpoolUnavailable
from gateway.core.usage import Opening, UsageRecord
from mesh.kit.logs import F
from pki.files import make_private_dir

log = logging.getLogger(__name__)

MAX_OCTETS = 256 * 1024 * 1024  # about 400,000 requests while the control plane is away
SEGMENT = 1024 * 1024  # octets after which a new segment begins: what a restart delivers again at most
RESERVE = 1024  # octets kept free for the record of each request that runs
FRESH = 5_000  # records kept in memory as well; some seconds of a busy gateway, 4 MiB
BATCH = 250  # of those handed out at once
_BLOCK = 64 * 1024  # octets read at once for a batch


class SpoolInUse(Exception):
    """Another gateway writes to this folder."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that wait for delivery, and where reading goes on behind them."""

    records: list[UsageRecord]
    segment: int
    offset: int


@dataclass(slots=True)
class Spool:
    """One gateway's spool. Made with ``open_spool``."""

    directory: Path
    max_octets: int = MAX_OCTETS
    segment_octets: int = SEGMENT
    _lock: int = -1
    _sizes: dict[int, int] = field(default_factory=dict)
    """Octets of each segment on disk, oldest first."""
    _live: dict[str, tuple[Opening, int]] = field(default_factory=dict)
    """Requests that run, each with the segment of its opening."""
    _unwritten: list[UsageRecord] = field(default_factory=list)
    """Records the disk did not take. Nothing new is let in while there are any, so they cannot pile up."""
    _file: int = -1
    _newest: int = 0
    _at: tuple[int, int] = (0, 0)
    """Segment and offset up to which all is delivered."""
    octets: int = 0
    _fresh: deque[Batch] = field(default_factory=deque)
    """The last records written, each with where it ends: what is delivered soon need not be read again."""
    _fresh_is_all: bool = False
    """Whether those are all that wait."""

    def begin(self, opening: Opening) -> None:
        """Write down that this request is let in. SpoolUnavailable: it must not be."""
        self.settle()
        self.check()
        self._append(usage.write(opening))
        self._live[opening.request_id] = opening, self._newest

    def check(self) -> None:
        """SpoolUnavailable when there is no room for one more request."""
        if self.octets + RESERVE * (len(self._live) + 1) > self.max_octets:
            raise SpoolUnavailable(
                f"usage cannot be recorded: {self.octets >> 20} MiB wait for the control plane, as much as is kept"
            )

    def end(self, record: UsageRecord) -> None:
        """Write down how it ended. What the disk does not take now is written with the next line."""
        self._live.pop(record.request_id, None)
        self._unwritten.append(record)
        try:
            self.settle()
        except SpoolUnavailable as exc:
            log.error("usage record not written yet", extra={F.REASON: str(exc), F.COUNT: len(self._unwritten)})

    def settle(self) -> None:
        """Write what the disk refused earlier. SpoolUnavailable: it still does."""
        while self._unwritten:
            record = self._unwritten[0]
            self._append(usage.write(record))
            del self._unwritten[0]
            if len(self._fresh) < FRESH:
                self._fresh.append(Batch([record], self._newest, self._sizes[self._newest]))
            else:
                self._fresh.clear()
                self._fresh_is_all = False

    def waiting(self) -> Batch | None:
        """The oldest records that are not delivered, as many as one reading gives; None when there are none."""
        if self._fresh_is_all:
            if not self._fresh:
                return None
            some = list(islice(self._fresh, BATCH))
            return Batch([one.records[0] for one in some], some[-1].segment, some[-1].offset)
        segment, offset = self._at
        for number in [one for one in self._sizes if one >= segment]:
            start = offset if number == segment else 0
            while start < self._sizes[number]:
                lines, start = _read_lines(self._path(number), start)
                records = usage.records(lines)
                if records:
                    return Batch(records, number, start)
            self.delivered(Batch([], number, start))
        self._fresh.clear()
        self._fresh_is_all = True  # nothing waits on disk: from now on all that comes is seen here
        return None

    def delivered(self, batch: Batch) -> None:
        """All up to the end of this batch is stored elsewhere: forget it."""
        self._at = batch.segment, batch.offset
        while self._fresh and (self._fresh[0].segment, self._fresh[0].offset) <= self._at:
            self._fresh.popleft()
        for number in list(self._sizes):
            done = number < batch.segment or (number == batch.segment and batch.offset >= self._sizes[number])
            if not done or number == self._newest:
                break
            try:
                self._move_live_from(number)
            except SpoolUnavailable:
                break  # the segment stays; the next delivery tries again
            self._path(number).unlink(missing_ok=True)
            self.octets -= self._sizes.pop(number)

    def put_aside(self, record: UsageRecord, *, limit: int) -> None:
        """Keep a record in ``rejected.log`` instead, up to so many octets in all."""
        with (self.directory / "rejected.log").open("ab") as file:
            if file.tell() < limit:
                file.write(usage.write(record))

    def close(self) -> None:
        """Let another process have the folder."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def recover(self) -> int:
        """Take over what an earlier process left: each request that ran then is a record now; returns how many."""
        found = usage.Lines()
        last_sign = 0.0
        for path in sorted(self.directory.glob("[0-9]*.log")):
            status = path.stat()
            self._sizes[int(path.stem)] = status.st_size
            self.octets += status.st_size
            last_sign = max(last_sign, status.st_mtime)
            self._newest = int(path.stem)
            with path.open("rb") as file:
                usage.read((line for line in file if line.endswith(b"\n")), found)
            found.closed.clear()
        if found.unreadable:
            log.error("unreadable lines in the usage spool", extra={F.COUNT: found.unreadable})
        for opening in found.open.values():
            self.end(usage.interrupted(opening, last_sign=datetime.fromtimestamp(last_sign, UTC)))
        return len(found.open)

    def _append(self, line: bytes) -> None:
        try:
            if self._file < 0 or self._sizes[self._newest] + len(line) > self.segment_octets:
                self._next_segment()
            taken = os.write(self._file, line)
        except OSError as exc:
            raise SpoolUnavailable(f"usage cannot be recorded: {exc.strerror}: {self.directory}") from exc
        if taken < len(line):  # the disk is full; the piece must not become the beginning of another line
            self._abandon_segment(taken)
            raise SpoolUnavailable(f"usage cannot be recorded: no space left on device: {self.directory}")
        self._sizes[self._newest] += taken
        self.octets += taken

    def _next_segment(self) -> None:
        number = self._newest + 1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = os.open(self._path(number), flags, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._newest, self._sizes[number] = file, number, 0

    def _abandon_segment(self, torn: int) -> None:
        try:
            os.ftruncate(self._file, self._sizes[self._newest])
        except OSError:
            self._sizes[self._newest] += torn
            self.octets += torn
            os.close(self._file)
            self._file = -1

    def _move_live_from(self, segment: int) -> None:
        for request_id, (opening, home) in list(self._live.items()):
            if home == segment:
                self._append(usage.write(opening))
                self._live[request_id] = opening, self._newest

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:012d}.log"


def open_spool(directory: Path, *, max_octets: int = MAX_OCTETS, segment_octets: int = SEGMENT) -> Spool:
    """The spool in that folder, with what an earlier process left. SpoolInUse when another process has it."""
    make_private_dir(directory)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(lock)
        raise SpoolInUse(str(directory)) from exc
    spool = Spool(directory, max_octets, segment_octets, lock)
    if interrupted := spool.recover():
        log.warning("requests were interrupted", extra={F.COUNT: interrupted})
    return spool


def _read_lines(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Whole lines from there on, one block of them, and the offset behind; a torn end counts as read."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK)
        end = block.rfind(b"\n") + 1
        if not end:
            return [], offset + len(block)
        return block[:end].splitlines(), offset + end
