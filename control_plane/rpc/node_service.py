"""The control streams of nodes: reports in, desired state out.

One session is four tasks under one roof, and whichever ends first ends the session: one hears reports, one
follows the rows that concern this node, one writes what is newest, and one counts the silence. A write that a
frozen peer holds up therefore delays neither a revocation nor the fence against a newer session.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta

import grpc

from control_plane.core.desired import DesiredState
from control_plane.rpc import convert_in, convert_out
from control_plane.rpc.desk import Context, within_budget
from control_plane.rpc.latest import Latest
from control_plane.rpc.metrics import Metrics
from control_plane.rpc.sessions import NodeSession, Sessions
from control_plane.store import assignments, nodes
from control_plane.store.db import Pool, connection, transaction
from control_plane.store.wake import HUBS, Wake, node_topic, revocation_topic
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput, StaleEpoch, Unavailable
from mesh.kit.ids import NodeId
from mesh.kit.logs import F
from mesh.node.v1 import node_pb2 as pb
from mesh.node.v1.node_pb2_grpc import NodeServiceServicer
from pki.peer import Caller, caller_of

log = logging.getLogger(__name__)

HELLO_BUDGET_S = 10.0  # from the start of the stream to its Hello: an agent says it at once
POLL_S = 15.0  # a hint that was lost is made up for this late
RETRY_S = 2.0  # after a look at the rows that failed; the hint after a lost connection comes sooner


class _HungUp(Exception):
    """The node ended its side of the stream; an ordinary end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """How often nodes report, and how long one may be silent."""

    interval: timedelta
    grace: timedelta


@dataclass(slots=True)
class _Talk:
    """What the tasks of one session share."""

    session: NodeSession
    caller: Caller
    heard_at: float
    desired: Latest[DesiredState] = field(default_factory=Latest)


@dataclass(frozen=True)
class NodeLink(NodeServiceServicer):
    """mesh.node.v1.NodeService."""

    pool: Pool
    wake: Wake
    clock: Clock
    metrics: Metrics
    heartbeat: Heartbeat
    sessions: Sessions

    async def Connect(self, _: object, context: Context) -> None:
        caller = caller_of(context.auth_context())
        node_id = NodeId(caller.identity.id)
        hello = await self._hello(context)
        session = NodeSession(node_id, await self._begin(node_id, caller, hello))
        talk = _Talk(session, caller, self.clock.monotonic())
        facts: dict[str, object] = {F.NODE: node_id, F.EPOCH: session.epoch}
        log.info("node connected", extra=facts)
        with self.sessions.admitted(session), self.metrics.stream("Connect"):
            try:
                await self._converse(talk, context)
            finally:  # nothing is awaited here: a handler that ends may be cancelled more than once
                log.info("node disconnected", extra=facts)

    async def _converse(self, talk: _Talk, context: Context) -> None:
        """Until the node hangs up, or something raises the reason to end."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(talk.session.until_cut())
                group.create_task(self._hear(talk, context))
                group.create_task(self._follow(talk))
                group.create_task(self._tell(talk, context))
                group.create_task(self._count_silence(talk))
        except* _HungUp:
            pass

    async def _hello(self, context: Context) -> pb.Hello:
        try:
            async with asyncio.timeout(HELLO_BUDGET_S):
                first = await context.read()
        except TimeoutError:
            raise InvalidInput("hello", f"must come within {HELLO_BUDGET_S:.0f} seconds") from None
        if first is grpc.aio.EOF or first.WhichOneof("message") != "hello":
            raise InvalidInput("hello", "must be the first message")
        hello: pb.Hello = first.hello
        return hello

    async def _begin(self, node_id: NodeId, caller: Caller, hello: pb.Hello) -> int:
        info, hardware = convert_in.agent_info(hello.agent_info), convert_in.hardware(hello.hardware)
        workers = convert_in.workers(hello.workers)
        async with within_budget(), transaction(self.pool) as db:
            return await nodes.begin_session(
                db,
                node_id,
                serial=caller.serial_hex,
                agent_info=info,
                hardware=hardware,
                workers=workers,
                applied_revision=convert_in.revision(hello.applied_revision),
                last_epoch=convert_in.revision(hello.last_epoch),
                now=self.clock.now(),
            )

    async def _hear(self, talk: _Talk, context: Context) -> None:
        """Store every report once, until the node hangs up."""
        last = 0
        while (message := await context.read()) is not grpc.aio.EOF:
            if message.WhichOneof("message") != "report":
                raise InvalidInput("message", "only reports follow the hello")
            talk.heard_at = self.clock.monotonic()
            report = convert_in.report(message.report)
            if message.report.sequence <= last:
                self.metrics.report("repeated")
                continue
            last = message.report.sequence
            session = talk.session
            try:
                async with within_budget(), transaction(self.pool) as db:
                    stored = await nodes.record_report(
                        db, session.node_id, session.epoch, report, now=self.clock.now()
                    )
                if not stored:  # after the block: whoever holds a connection must not wait for a second one
                    await self._require_current(talk)
                self.metrics.report("stored")
            except Unavailable as exc:  # the next report says everything again
                self.metrics.report("lost")
                log.warning("report lost", extra={F.NODE: session.node_id, F.REASON: str(exc)})
        raise _HungUp

    async def _follow(self, talk: _Talk) -> None:
        """Look at what concerns this node after every hint and now and then; raise when it has to go."""
        node_id = talk.session.node_id
        with self.wake.subscribe(node_topic(node_id), HUBS, revocation_topic(node_id)) as hints:
            while True:
                pause = POLL_S
                try:
                    await self._require_current(talk)
                    async with connection(self.pool) as db:
                        talk.desired.put(await assignments.desired_for(db, node_id))
                except Unavailable as exc:  # the node goes on with what it has
                    log.warning("desired state not read", extra={F.NODE: node_id, F.REASON: str(exc)})
                    pause = RETRY_S
                await hints.wait(pause)

    async def _require_current(self, talk: _Talk) -> None:
        """Raise when the node is revoked, or a newer session of it exists in any replica."""
        session = talk.session
        async with connection(self.pool) as db:
            newest = await nodes.require_admitted(db, session.node_id, serial=talk.caller.serial_hex)
        if newest != session.epoch:
            raise StaleEpoch(epoch=session.epoch, newest=newest)

    async def _tell(self, talk: _Talk, context: Context) -> None:
        """Write the welcome, then every desired state that differs from the last one written."""
        welcome = pb.Welcome(
            epoch=talk.session.epoch,
            server_time=convert_out.timestamp(self.clock.now()),
            heartbeat_interval_s=round(self.heartbeat.interval.total_seconds()),
        )
        await context.write(pb.ConnectResponse(welcome=welcome))
        told: DesiredState | None = None
        while True:
            desired = await talk.desired.take()
            if desired != told:
                await context.write(pb.ConnectResponse(desired_state=convert_out.desired_state(desired)))
                told = desired
                log.info("desired state sent", extra={F.NODE: talk.session.node_id, F.REVISION: desired.revision})

    async def _count_silence(self, talk: _Talk) -> None:
        """Raise when nothing was heard for longer than the grace."""
        grace = self.heartbeat.grace.total_seconds()
        while (left := talk.heard_at + grace - self.clock.monotonic()) > 0:
            await self.clock.sleep(left)
        raise Unavailable(f"no report for {grace:.0f} seconds")
