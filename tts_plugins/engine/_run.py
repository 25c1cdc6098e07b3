"""The context of one solve. All calls pass through here, so that no strategy repeats what all of them need."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from tts_plugins.answers import AnswerKey
from tts_plugins.budget import FREE
from tts_plugins.engine._calls import Caller, acquire, check_bounds
from tts_plugins.engine._sampling import Arrival, Halt, Sampling, cancel
from tts_plugins.engine._scope import SCOPE
from tts_plugins.engine._trace import Trace
from tts_plugins.errors import DeadlineExceeded
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.protocols import Model, SetVerifier, StopRule, Verifier
from tts_plugins.types import Problem, Reply, Scored, Stopped


class SolveRun:
    """`Run` as `solve` makes it; see `protocols.Run` for what strategies may use."""

    def __init__(
        self,
        *,
        model: Model,
        verifier: Verifier | SetVerifier | None,
        ledger: Ledger,
        trace: Trace,
        root: int,
        seed: int,
        deadline: float | None,
        attempts: int,
        answer: AnswerKey,
    ) -> None:
        self.model, self.verifier, self.seed = model, verifier, seed
        self.seen: list[Scored] = []
        self.stopped: Stopped = "complete"
        self.ledger, self.trace, self.root, self.deadline = ledger, trace, root, deadline
        self.caller = Caller(ledger=ledger, trace=trace, deadline=deadline, attempts=attempts)
        self.answer = answer
        self._next = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self.inboxes: set[asyncio.Queue[Arrival]] = set()
        self._halted: Halt | None = None

    async def sample(
        self, problem: Problem, n: int, *, stop: StopRule | None = None, wave: int | None = None
    ) -> AsyncIterator[Scored]:
        first, self._next = self._next, self._next + n
        batch = Sampling(self, problem, range(first, first + n), stop, wave)
        try:
            async for candidate in batch.candidates():
                yield candidate
        finally:
            await batch.close()

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        scope = SCOPE.get()
        role = "model" if scope is None else scope.role
        bound = await model.bound(problem)
        check_bounds(model, bound, self.ledger)
        self.raise_if_halted()
        within = None if scope is None or scope.ledger is not self.ledger else scope.hold
        unit = (bound or FREE).amount
        hold = await acquire(self.ledger, unit, at_most=n, within=within)
        seeds = [self.derive("generate", self._take_index()) for _ in range(hold.units)]
        parent = self.root if scope is None else scope.event
        reply, rest, _ = await self.caller.request(
            model, problem, seeds, bound=bound, unit=unit, hold=hold, within=within, role=role, parent=parent
        )
        if rest is not None:
            rest.release()
        return reply

    def note(self, kind: str, **data: Any) -> None:
        self.trace.note(kind, self.root, **data)

    def derive(self, *path: object) -> int:
        """A seed of 31 bits that depends on the run's seed and the path, and on nothing else."""
        text = "/".join(map(str, (self.seed, *path)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1

    def halt(self, why: Halt) -> None:
        """End as soon as possible with what was seen: wakes whoever waits for candidates."""
        if self._halted is None:
            self._halted = self.stopped = why
            self.note(why)
            for inbox in self.inboxes:
                inbox.put_nowait(why)

    @property
    def halted(self) -> Halt | None:
        """Why it ends now, if it does."""
        return self._halted

    def raise_if_halted(self) -> None:
        """Start nothing more once the time is up."""
        if self._halted == "deadline":
            raise DeadlineExceeded("the deadline has passed; give more seconds, or ask for less")
        if self._halted == "cancelled":
            raise asyncio.CancelledError

    async def close(self) -> None:
        """Cancel what is left in flight and wait until all of it is settled."""
        await cancel(self._tasks)

    def spawn(self, coroutine: Any, tasks: set[asyncio.Task[Any]], hold: Hold | None = None) -> None:
        """A task that ends with its group, and with the run; it never leaves `hold` open."""
        task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
        if hold is not None:
            # A task that is cancelled before its first step runs none of its own clean-up.
            task.add_done_callback(lambda _: hold.release())
        for group in (tasks, self._tasks):
            group.add(task)
            task.add_done_callback(group.discard)

    def _take_index(self) -> int:
        self._next += 1
        return self._next - 1
