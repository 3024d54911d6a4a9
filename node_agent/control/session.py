"""The control stream: heartbeats out, desired state in.

Rules
* Desired state is on disk before it is acted on; a lower revision than the last one is refused. While the control
  plane is away the node goes on with what is on disk.
* When the disk is full the node goes on as it is, refuses the new revision, and tries again with every heartbeat.
* Hello says the last revision and epoch seen here: a control plane whose database was restored counts on from
  them, instead of being refused for ever.
* A refusal in words (revoked, expired, unknown) is logged in words, and the node stays away for a while.
  One that crosses our Hello on its way may be lost to gRPC's own "Internal error from Core"; the next attempt,
  moments later, hears it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Protocol

import grpc

from mesh.kit.backoff import Backoff, jitter
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from mesh.kit.settings import Address
from mesh.node.v1.node_pb2 import ConnectRequest, ConnectResponse, Welcome
from mesh.node.v1.node_pb2_grpc import NodeServiceStub
from mesh.wire.channel import secure_channel
from node_agent.agent import AgentInfo
from node_agent.control import convert
from node_agent.core.desired import DesiredState, Hub
from node_agent.core.report import GpuSample, Hardware, HostSample, Report, essence
from node_agent.core.worker import WorkerSpec, WorkerStatus
from node_agent.disk import Disk
from pki.peer import reason_of
from pki.tls import TlsFiles, channel_credentials, load_tls

log = logging.getLogger(__name__)

CONNECT_S = 15.0  # for TCP, TLS, Hello and Welcome together
DEBOUNCE_S = 0.05  # changes that come together leave together
CAP_S = 10.0  # a control plane that is back has its whole fleet back soon after
REFUSED_S = 60.0  # a refusal will not be another answer a second later
REPLACED_S = 5.0  # another agent took our place: rather not fight
SKEW_S = 60.0  # certificates and tokens start to go wrong beyond this
HEARTBEAT_BOUNDS_S = (1, 300)

Call = grpc.aio.StreamStreamCall[ConnectRequest, ConnectResponse]

WORDS = {
    "certificate_expired": "our certificate has expired; enroll again",
    "certificate_revoked": "our certificate was revoked; enroll again with a new token",
    "node_revoked": "this node was revoked; it may not come back under this identity",
    "node_unknown": "the control plane does not know this node; enroll again",
    "wrong_trust_domain": "our certificate is of another mesh; enroll again",
    "wrong_kind": "our certificate is not a node's",
    "stale_epoch": "another agent with this identity connected; is the state folder a copy?",
}


STAY_AWAY_S = {
    grpc.StatusCode.UNAUTHENTICATED: REFUSED_S,
    grpc.StatusCode.PERMISSION_DENIED: REFUSED_S,
    grpc.StatusCode.ABORTED: REPLACED_S,
}


class Workers(Protocol):
    """What runs here."""

    def apply(self, specs: Sequence[WorkerSpec]) -> None:
        """These workers from now on, and no other."""

    def statuses(self) -> tuple[WorkerStatus, ...]:
        """How they are."""

    async def wait_changed(self) -> None:
        """Return after the next change."""


class Tunnels(Protocol):
    """Who may send us requests."""

    epoch: int

    def apply(self, hubs: Sequence[Hub]) -> None:
        """These hubs from now on, and no other."""


class Probes(Protocol):
    """What the machine is, and how it is."""

    async def hardware(self) -> Hardware:
        """What it is made of."""

    def host(self) -> HostSample | None:
        """A reading of the host."""

    def gpus(self) -> tuple[GpuSample, ...]:
        """A reading of each accelerator; none without a driver."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a connection ended, in words, and how long to stay away at least."""

    why: str
    stay_away_s: float = 0.0


@dataclass(slots=True, eq=False)
class ControlSession:
    """The node's side of ``NodeService.Connect``, for ever. A part."""

    disk: Disk
    clock: Clock
    agent: AgentInfo
    workers: Workers
    tunnels: Tunnels
    probes: Probes
    address: Address | None = None
    """Where the control plane is, if not where joining said."""

    connected: bool = field(init=False, default=False)
    trouble: str = field(init=False, default="")
    """Why we are not connected, in words."""

    applied: DesiredState = field(init=False, default_factory=DesiredState)
    _unsaved: DesiredState | None = field(init=False, default=None)
    _taking: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _due: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """A report should leave now."""

    def resume(self) -> None:
        """Go on with what is on disk, before anyone was reached."""
        self.tunnels.epoch = self.disk.epoch()
        kept = self.disk.desired()
        if kept is not None:
            log.info("going on with the desired state on disk", extra={F.REVISION: kept.revision})
            self._act(kept)

    async def run(self) -> None:
        """Until cancelled."""
        async for _ in Backoff(self.clock, cap_s=CAP_S).attempts():
            try:
                ended = await self._connected()
            except grpc.aio.AioRpcError as exc:
                ended = _in_words(exc)
            except TimeoutError:
                ended = Ended("no answer")
            except (MeshError, OSError) as exc:
                ended = Ended(str(exc))
            except Exception as exc:  # edge: one bad connection must not end what goes on without it
                log.exception("control session failed")
                ended = Ended(f"unexpected: {type(exc).__name__}; see the log")
            finally:
                self.connected = False
            self.trouble = ended.why
            log.warning("not connected to the control plane", extra={F.REASON: ended.why})
            if ended.stay_away_s:
                await self.clock.sleep(ended.stay_away_s + jitter(ended.stay_away_s))

    async def _connected(self) -> Ended:
        """One connection, to its end. Raises what kept it from beginning."""
        identity = self.disk.identity()
        files = load_tls(self.disk.identity_dir)
        if (ended := self._outside_validity(files)) is not None:
            return ended
        where = str(self.address or identity.node_endpoint)
        credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
        async with secure_channel(where, credentials, server_name=identity.server_name) as channel:
            hardware = await self.probes.hardware()
            call: Call = NodeServiceStub(channel).Connect()
            async with asyncio.timeout(CONNECT_S):
                await call.write(
                    convert.hello(
                        agent=self.agent,
                        hardware=hardware,
                        applied_revision=self.applied.revision,
                        last_epoch=self.tunnels.epoch,
                        workers=self.workers.statuses(),
                    )
                )
                answer = await _next(call)
            if answer is None or not answer.HasField("welcome"):
                return Ended("the control plane did not say welcome")
            self._welcomed(answer.welcome, where)
            return await self._converse(call, answer.welcome.heartbeat_interval_s)

    def _outside_validity(self, files: TlsFiles) -> Ended | None:
        # A peer refuses such a certificate without giving a reason, so we look at it ourselves.
        now, begin, end = self.clock.now(), files.certificate.not_valid_before_utc, files.not_after
        if now >= end:
            return Ended(f"certificate expired at {end:%Y-%m-%d %H:%M} UTC; enroll again", REFUSED_S)
        if now < begin:
            return Ended(
                f"certificate not valid before {begin:%Y-%m-%d %H:%M} UTC; is the clock wrong?", REFUSED_S
            )
        if now > end - (end - begin) / 4:
            log.warning("certificate ends soon", extra={F.SECONDS: round((end - now).total_seconds())})
        return None

    def _welcomed(self, welcome: Welcome, where: str) -> None:
        self.connected, self.trouble = True, ""
        self.tunnels.epoch = welcome.epoch
        try:
            self.disk.keep_epoch(welcome.epoch)
        except OSError as exc:  # we know it as long as we live
            log.warning("epoch not stored", extra={F.EPOCH: welcome.epoch, F.REASON: exc.strerror})
        log.info("connected to the control plane", extra={F.EPOCH: welcome.epoch, F.ADDRESS: where})
        if welcome.HasField("server_time"):
            skew_s = (self.clock.now() - welcome.server_time.ToDatetime(UTC)).total_seconds()
            if abs(skew_s) > SKEW_S:
                log.error("this machine's clock is wrong", extra={F.SECONDS: round(skew_s)})

    async def _converse(self, call: Call, heartbeat_interval_s: int) -> Ended:
        lowest, highest = HEARTBEAT_BOUNDS_S
        interval_s = min(max(heartbeat_interval_s, lowest), highest)
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self._report(call)),
                group.create_task(self._beat(interval_s)),
                group.create_task(self._watch()),
            ]
            ended = await self._listen(call)
            for task in others:
                task.cancel()
        return ended

    async def _listen(self, call: Call) -> Ended:
        """Until the stream ends. The only place that learns why: a failed write says nothing."""
        try:
            while (message := await _next(call)) is not None:
                if message.HasField("desired_state"):
                    await self._take(convert.desired_state(message.desired_state))
        except grpc.aio.AioRpcError as exc:
            return _in_words(exc)
        return Ended("the control plane closed the stream")

    # Heartbeats

    async def _report(self, call: Call) -> None:
        sequence = 0
        while True:
            self._due.clear()
            sequence += 1
            report = Report(
                sequence=sequence,
                observed_at=self.clock.now(),
                applied_revision=self.applied.revision,
                workers=self.workers.statuses(),
                host=self.probes.host(),
                gpus=self.probes.gpus(),
            )
            try:
                await call.write(convert.report(report, self.agent))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return
            await self._due.wait()

    async def _beat(self, interval_s: float) -> None:
        while True:
            # A tenth early at random, so that a fleet which came back as one does not beat as one.
            await self.clock.sleep(interval_s - jitter(interval_s / 10))
            if self._unsaved is not None:
                await self._take(self._unsaved)
            self._due.set()

    async def _watch(self) -> None:
        said = essence(self.workers.statuses())
        while True:
            await self.workers.wait_changed()
            await self.clock.sleep(DEBOUNCE_S)
            if (now := essence(self.workers.statuses())) != said:
                said = now
                self._due.set()

    # Desired state

    async def _take(self, state: DesiredState) -> None:
        async with self._taking:  # a retry must not overtake what came meanwhile
            await self._take_in_turn(state)

    async def _take_in_turn(self, state: DesiredState) -> None:
        if state.revision < self.applied.revision:
            log.warning("older desired state refused", extra={F.REVISION: state.revision})
            return
        if state != self.applied:
            try:
                await asyncio.to_thread(self.disk.keep_desired, state)
            except OSError as exc:
                # Acting on what a restart would not know of could start what the next agent stops.
                self._unsaved = state
                log.error(
                    "desired state not stored, so refused",
                    extra={F.REVISION: state.revision, F.REASON: exc.strerror},
                )
                return
        self._unsaved = None
        self._act(state)

    def _act(self, state: DesiredState) -> None:
        self.workers.apply(state.workers)
        self.tunnels.apply(state.hubs)
        self.applied = state
        self._due.set()
        log.info("desired state applied", extra={F.REVISION: state.revision, F.COUNT: len(state.workers)})


async def _next(call: Call) -> ConnectResponse | None:
    """The next message; None at the stream's end."""
    message = await call.read()
    if message is grpc.aio.EOF:
        return None
    assert isinstance(message, ConnectResponse)
    return message


def _in_words(exc: grpc.aio.AioRpcError) -> Ended:
    reason = reason_of(exc)
    said = exc.details() or exc.code().name.lower()
    words = WORDS.get(reason, f"{reason}: {said}" if reason else said)
    return Ended(words, STAY_AWAY_S.get(exc.code(), 0.0))
