"""A trace of conversations with several turns, and workers whose caches keep what was asked lately."""

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random

from mesh.routing.values import Candidate

Block = tuple[str, int]
BLOCK_S = 0.004  # to compute one block of a prompt that is not in the cache
TOKEN_BLOCK_S = 0.15  # to draw one block of an answer


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: when it is asked, its prompt in blocks of the cache, and how many blocks the answer has."""

    at: float
    conversation: int
    prompt: tuple[Block, ...]
    answer: int

    @property
    def prefix(self) -> int:
        """What the gateway knows the conversation by."""
        return key(f"conversation-{self.conversation}")


def key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def record(seed: int, *, conversations: int = 250, systems: int = 4, arrivals_per_s: float = 1.2) -> list[Turn]:
    """The turns of many conversations in the order they are asked; some instructions are shared by many."""
    random = Random(seed)
    turns: list[Turn] = []
    begin = 0.0
    for conversation in range(conversations):
        begin += random.expovariate(arrivals_per_s)
        system = f"system-{random.randrange(systems)}"
        prompt: list[Block] = [(system, at) for at in range(20)]
        at = begin
        for _ in range(random.randint(3, 9)):
            own = len(prompt)
            prompt += [(f"conversation-{conversation}", own + step) for step in range(random.randint(2, 12))]
            answer = random.randint(4, 16)
            insort(turns, Turn(at, conversation, tuple(prompt), answer), key=lambda turn: turn.at)
            own = len(prompt)
            prompt += [(f"conversation-{conversation}", own + step) for step in range(answer)]
            at += answer * TOKEN_BLOCK_S * 1.6 + random.uniform(1.0, 20.0)
    return turns


@dataclass(slots=True)
class Worker:
    """An engine: slots, and a cache of blocks that forgets what was not used for longest."""

    worker_id: str
    slots: int
    room: int
    cache: OrderedDict[Block, None] = field(default_factory=OrderedDict)
    ends: list[float] = field(default_factory=list)
    taken: int = 0

    def cached(self, prompt: Sequence[Block]) -> int:
        """How many blocks at the prompt's beginning are in the cache."""
        return next((at for at, block in enumerate(prompt) if block not in self.cache), len(prompt))

    def outstanding(self, now: float) -> int:
        while self.ends and self.ends[0] <= now:
            self.ends.pop(0)
        return len(self.ends)

    def take(self, turn: Turn) -> int:
        """Answer it; returns how many blocks of the prompt were in the cache."""
        hit = self.cached(turn.prompt)
        busy = len(self.ends)
        begin = turn.at if busy < self.slots else self.ends[busy - self.slots]
        slower = 1 + busy / self.slots
        took = (len(turn.prompt) - hit) * BLOCK_S + turn.answer * TOKEN_BLOCK_S * slower
        insort(self.ends, begin + took)
        own = turn.prompt[-1][0]
        whole = (*turn.prompt, *((own, len(turn.prompt) + step) for step in range(turn.answer)))
        for block in reversed(whole):  # the beginning is the last to be forgotten
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) > self.room:
            self.cache.popitem(last=False)
        self.taken += 1
        return hit


Choose = Callable[[Turn, tuple[Candidate, ...], dict[str, Worker]], str]


def fleet(count: int = 8, *, slots: int = 8, room: int = 3000) -> dict[str, Worker]:
    return {f"w-{at}": Worker(f"w-{at}", slots, room) for at in range(count)}


def candidates_of(workers: Iterable[Worker], now: float) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(one.worker_id, "n-" + one.worker_id, one.outstanding(now), 0.0, one.slots, 1.0, 0.0, 0)
        for one in workers
    )


def run(turns: Iterable[Turn], workers: dict[str, Worker], choose: Choose) -> float:
    """Answer all of them; returns which part of all prompts' blocks was in a cache."""
    hits = blocks = 0
    for turn in turns:
        taken = choose(turn, candidates_of(workers.values(), turn.at), workers)
        hits += workers[taken].take(turn)
        blocks += len(turn.prompt)
    return hits / blocks


def oracle(turn: Turn, candidates: tuple[Candidate, ...], workers: dict[str, Worker]) -> str:
    """Knows every cache: the longest prefix among those with a free slot, then the least load."""
    free = [one for one in candidates if one.outstanding < one.slots] or list(candidates)
    return max(free, key=lambda one: (workers[one.worker_id].cached(turn.prompt), -one.outstanding)).worker_id
