"""Limits counted in Redis, for all gateways at once: exact at every moment, one round trip per request."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from gateway.control import quota_scripts as scripts
from gateway.control.quota import AWAY_S, alone
from gateway.core import refusals
from gateway.core.limits import NOTHING, Lack, Meter, Need, Refused, Reservation, Subject
from gateway.core.refusals import limit_reached
from gateway.core.windows import Unit, end_of
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.logs import F

log = logging.getLogger(__name__)

HOLD_S: Final = 60  # after a gateway's last sign, what it had under way is counted no more
RENEW_S: Final = 15.0  # three signs may be lost
CALLS: Final = 32  # reservations on their way at once
CONNECTIONS: Final = CALLS + 4  # nobody waits for one
CALL_S: Final = 0.5  # one round trip; beyond it Redis is away
RECORD_S: Final = 120  # a reservation whose answer was lost can be taken back so long; later it stays set aside
GRACE_S: Final = 120  # a window's counter outlives it by this, for gateways whose clocks are behind
DAY_S: Final = 86_400
BATCH: Final = 200  # counters in one settling
GATHER_S: Final = 0.01  # between two settlings, so that many requests share one
MAX_OWED: Final = 100_000  # counters with changes that wait for Redis
MAX_UNSURE: Final = 10_000  # reservations whose answers were lost
SLOTS: Final = "slots"


def open_redis(url: str) -> Redis:
    """A client that is quick to say that Redis is away, and sends nothing twice. It connects when first used."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=CALL_S,
        socket_timeout=CALL_S,
        socket_connect_timeout=CALL_S,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    return Redis.from_pool(pool)


def new_id() -> str:
    """For a process, or a reservation."""
    return secrets.token_hex(12)


@dataclass(slots=True, eq=False)
class _Held(Reservation):
    """A reservation that Redis holds. ``keys``: of its parts, in their order."""

    keys: tuple[str, ...] = ()
    holder: str = ""


@dataclass(frozen=True, slots=True)
class _Unsure:
    """A reservation that Redis may hold or not."""

    keys: tuple[str, ...]
    args: tuple[str | int, ...]


@dataclass(slots=True)
class RedisQuota:
    """Every gateway counts in the same Redis.

    While Redis is away, limits by the minute and of requests at once are counted here, an even part of each for
    each of the ``gateways``; subjects with budgets are refused with Unavailable. What ends meanwhile is kept, one
    number for each counter, and delivered when Redis is back, each change once. What a gateway had under way that
    was away for more than a minute is counted no more. A Redis that loses its data begins all windows anew.
    """

    redis: Redis
    clock: Clock
    gateways: Callable[[], int] = alone
    ids: Callable[[], str] = new_id
    prefix: str = "mesh:{quota}:"
    _mirror: Meter = field(init=False, default_factory=Meter)
    """What Redis last said, for headers."""
    _alone: Meter = field(init=False, default_factory=lambda: Meter(shared=True))
    """What was let in while Redis was away."""
    _sender: str = field(init=False)
    _holder: str = field(init=False)
    _number: int = field(init=False, default=0)
    _batch: list[tuple[str, str, int]] = field(init=False, default_factory=list)
    """Under way, or to be sent again with the same number."""
    _owed: dict[tuple[str, str], int] = field(init=False, default_factory=dict)
    _unsure: dict[str, _Unsure] = field(init=False, default_factory=dict)
    _work: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _room: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(CALLS))
    _away_until: float = field(init=False, default=0.0)
    _reserve: AsyncScript = field(init=False)
    _take_back: AsyncScript = field(init=False)
    _settle: AsyncScript = field(init=False)
    _renew: AsyncScript = field(init=False)

    def __post_init__(self) -> None:
        self._sender, self._holder = self.ids(), self.ids()
        self._reserve = self.redis.register_script(scripts.RESERVE)
        self._take_back = self.redis.register_script(scripts.TAKE_BACK)
        self._settle = self.redis.register_script(scripts.SETTLE)
        self._renew = self.redis.register_script(scripts.RENEW)

    async def reserve(self, subjects: tuple[Subject, ...], need: Need) -> Reservation:
        """As ``Quota`` has it; with limits, one round trip."""
        lacks = self._lacks(subjects, need)
        if not lacks:
            return NOTHING
        for lack in lacks:
            if lack.amount > lack.bound.limit:
                raise limit_reached(self._mirror.refusal(lack, self.clock.now()))
        if self.clock.monotonic() >= self._away_until:
            async with self._room:
                if self.clock.monotonic() >= self._away_until:  # still, after having waited
                    try:
                        return await self._ask(lacks)
                    except (RedisError, OSError) as exc:
                        self._lost(exc)
        return self._reserve_alone(subjects, need)

    def settle(self, reservation: Reservation, tokens: int, money: int) -> None:
        """As ``Quota`` has it."""
        self._end(reservation, (1, 0, tokens, money))

    def refund(self, reservation: Reservation) -> None:
        """As ``Quota`` has it."""
        self._end(reservation, (0, 0, 0, 0))

    def headers(self, subjects: tuple[Subject, ...]) -> dict[str, str]:
        """As ``Quota`` has it, by what Redis last said here."""
        return refusals.headers(subjects, self._mirror, self.clock.now())

    async def run(self) -> None:
        """Deliver what ended, and show that this process is alive."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._delivering())
            group.create_task(self._renewing())

    async def deliver(self) -> None:
        """Tell Redis all that ended and all that is unsure. Raises RedisError or OSError; then it is kept."""
        async with self._turn:
            try:
                while self._batch or self._owed:
                    await self._deliver_some()
                while self._unsure:
                    record, one = next(iter(self._unsure.items()))
                    await self._take_back(keys=list(one.keys), args=list(one.args))
                    self._unsure.pop(record, None)
            finally:
                if self._batch or self._unsure:
                    self._work.set()

    async def _deliver_some(self) -> None:
        """One call. When it fails or is cancelled it is made again, with the same number."""
        if not self._batch:
            self._number += 1
            self._batch = [(*name, change) for name, change in islice(self._owed.items(), BATCH)]
            for key, holder, _ in self._batch:
                del self._owed[key, holder]
        changes = [text for _, holder, change in self._batch for text in (holder, change)]
        keys = [self.prefix + "sent:" + self._sender, *(key for key, _, _ in self._batch)]
        await self._settle(keys=keys, args=[self._number, DAY_S, *changes])
        self._batch = []

    async def renew(self, dead: str = "") -> None:
        """Show that this process is alive, under a new name if it is thought dead: the one it had was ``dead``."""
        async with self._turn:
            if not dead or dead == self._holder:
                args: list[str | int] = [self._holder, self.ids(), HOLD_S]
                self._holder = str(await self._renew(keys=[self.prefix + "holders"], args=args))

    def _lacks(self, subjects: tuple[Subject, ...], need: Need) -> list[Lack]:
        """All that is to be set aside, with the counters that mirror what Redis has."""
        amounts = need.amounts()
        bounds = [(subject, bound) for subject in subjects for bound in subject.bounds]
        if not bounds:
            return []
        now, meter = self.clock.now(), self._mirror
        return [
            Lack(subject, bound, meter.window(bound.span, now), amounts[bound.unit], meter.count(bound))
            for subject, bound in bounds
        ]

    async def _ask(self, lacks: list[Lack]) -> Reservation:
        now_s = int(self.clock.now().timestamp())
        names = tuple(f"{self.prefix}{one.subject.id}:{one.bound.kind}:{one.window}" for one in lacks)
        terms: list[str | int] = []
        for one in lacks:
            span, window = one.bound.span, one.window
            mode, ttl_s = (SLOTS, DAY_S) if not span else ("window", end_of(span, window) - now_s + GRACE_S)
            terms += (mode, one.bound.limit, one.amount, ttl_s)
        told_all = False
        while True:
            holder = self._holder
            state, *used = await self._send(lacks, names, terms, holder)
            for one, text in zip(lacks, used, strict=False):
                one.counter.used = int(text)
            if state == "ok":
                parts = tuple((one.counter, one.bound.unit, one.amount) for one in lacks)
                return _Held(parts, keys=names, holder=holder)
            if state == "stale":
                await self.renew(dead=holder)
            elif not told_all and (self._batch or self._owed or self._unsure):
                told_all = True  # what ended here a moment ago may be the room that is missing
                await self.deliver()
            else:
                break
        full = [one for one in lacks if one.amount and one.counter.used + one.amount > one.bound.limit] or lacks
        now = self.clock.now()
        raise limit_reached(max((self._mirror.refusal(one, now) for one in full), key=lambda no: no.retry_after_s))

    async def _send(
        self, lacks: list[Lack], names: tuple[str, ...], terms: list[str | int], holder: str
    ) -> list[str]:
        record = f"{self.prefix}reservation:{self.ids()}"
        keys = [self.prefix + "holders", record, *names]
        answered = False
        try:
            answer: list[str] = await self._reserve(keys=keys, args=[holder, RECORD_S, *terms])
            answered = True
        finally:
            if not answered:  # lost, or the caller left: it may have been set aside
                amounts = [text for one in lacks for text in (_mode(one.bound.unit), one.amount)]
                if len(self._unsure) < MAX_UNSURE:
                    self._unsure[record] = _Unsure((record, *names), (holder, RECORD_S, *amounts))
                self._work.set()
        return answer

    def _reserve_alone(self, subjects: tuple[Subject, ...], need: Need) -> Reservation:
        now = self.clock.now()
        outcome = self._alone.reserve(subjects, need, now, gateways=max(1, self.gateways()))
        if isinstance(outcome, Reservation):
            return outcome
        if isinstance(outcome, Refused):
            raise limit_reached(outcome)
        for lack in outcome.lacks:
            if lack.bound.kind.is_budget:
                raise Unavailable("budgets cannot be counted at the moment")
        raise limit_reached(self._alone.refusal(outcome.lacks[0], now))

    def _end(self, reservation: Reservation, actual: tuple[int, int, int, int]) -> None:
        if not reservation.is_open or not reservation.parts:
            return
        reservation.is_open = False
        held = reservation if isinstance(reservation, _Held) else None
        for at, (count, unit, amount) in enumerate(reservation.parts):
            change = actual[unit] - amount
            count.used += change
            if held is not None and change:
                self._owe((held.keys[at], held.holder if unit is Unit.RUNNING else ""), change)

    def _owe(self, name: tuple[str, str], change: int) -> None:
        if name in self._owed or len(self._owed) < MAX_OWED:
            self._owed[name] = self._owed.get(name, 0) + change
        self._work.set()

    def _lost(self, exc: Exception) -> None:
        if self.clock.monotonic() >= self._away_until:
            log.warning("limits cannot be counted in Redis", extra={F.REASON: str(exc) or type(exc).__name__})
        self._away_until = self.clock.monotonic() + AWAY_S

    async def _delivering(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self.deliver()
            except (RedisError, OSError) as exc:
                self._lost(exc)
                self._work.set()
                await self.clock.sleep(AWAY_S)
            else:
                await self.clock.sleep(GATHER_S)

    async def _renewing(self) -> None:
        while True:
            try:
                await self.renew()
            except (RedisError, OSError) as exc:
                self._lost(exc)
            await self.clock.sleep(RENEW_S)


def _mode(unit: Unit) -> str:
    return SLOTS if unit is Unit.RUNNING else "window"
