"""The context of one solve. All calls pass through here, so that no strategy repeats what all of them need."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from tts_plugins._calls.caller import Caller, acquire, check_bounds
from tts_plugins._calls.cancellation import End, Halt
from tts_plugins._calls.context import SCOPE, derive, seeds_of
from tts_plugins._internal.config import check_straggler
from tts_plugins._trace.recorder import Trace
from tts_plugins.answers import AnswerKey
from tts_plugins.budget import FREE
from tts_plugins.engine._expansion import expansion
from tts_plugins.engine._jobs import Job, Jobs, Revised, Whole
from tts_plugins.engine._sampling import Arrival, Sampling, bounds
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.protocols import Model, ReviseModel, SetVerifier, StopRule, Verifier
from tts_plugins.types import Candidate, Generation, Problem, Reply, Scored, Stopped, Usage

# Seconds that what was cancelled gets to clean up; less at the deadline, which code that swallows its
# cancellation must not move.
_PATIENCE, _AT_DEADLINE = 0.5, 0.1

Tasks = set["asyncio.Task[Any]"]
T = TypeVar("T")


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
        self._end = End()
        self.caller = Caller(ledger=ledger, trace=trace, deadline=deadline, attempts=attempts, end=self._end)
        self.answer = answer
        self.inboxes: set[asyncio.Queue[Arrival]] = set()
        self.on_halt: Callable[[], None] = lambda: None
        self.refused: BudgetExhausted | None = None
        self.events: dict[str, int] = {}  # of candidates
        self.children: dict[str, int] = {}  # how many each candidate has been given
        self._next = 0
        self._tasks: Tasks = set()
        self._left_behind: Tasks = set()
        self._holds: dict[asyncio.Task[Any], Hold] = {}
        self._seeds = seeds_of(seed, "generate")

    async def sample(
        self,
        problem: Problem,
        n: int,
        *,
        stop: StopRule | None = None,
        wave: int | None = None,
        model: Model | None = None,
    ) -> AsyncIterator[Scored]:
        _check_count("sample", n)
        batch = Sampling(self, Jobs(Whole(model or self.model, problem), self.take_indices(n), self.seed), stop, wave)
        try:
            async for candidate in batch.candidates():
                yield candidate
        finally:
            await batch.close()

    async def expand(
        self, candidates: Sequence[Candidate], total: int, *, lookahead: int = 0, straggler: float | None = None
    ) -> AsyncIterator[Scored]:
        _check_count("expand", total, "total")
        if isinstance(lookahead, bool) or not isinstance(lookahead, int) or lookahead < 0:
            raise ConfigurationError(f"Run.expand: lookahead={lookahead!r} must be a whole number of at least 0")
        check_straggler("Run.expand", straggler)
        self.raise_if_halted()
        try:
            batch = await expansion(self, candidates, total, lookahead, straggler)
        except BudgetExhausted as error:
            self.exhausted(error)
            raise
        try:
            async for candidate in batch.candidates():
                yield candidate
        finally:
            await batch.close()

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        if not history:
            raise ConfigurationError("Run.revise: history is empty; give the attempt that is to be revised")
        if not isinstance(self.model, ReviseModel):
            raise ConfigurationError(
                f"{self.model.name} ({type(self.model).__name__}) cannot revise; use OpenAICompatibleModel, LocalModel "
                "or CallableModel(function, revise=…), or give yours the methods of protocols.ReviseModel"
            )
        last = history[-1]
        place = self.children[last.id] = self.children.get(last.id, 0) + 1
        # From the attempt before, so that what happens in other chains changes nothing here.
        seed = self.derive("revise", last.seed, last.index, place)
        ask = Revised(self.model, problem, tuple(history), merge)
        batch = Sampling(self, [Job(self.take_index(), seed, ask)])
        try:
            (revised,) = [candidate async for candidate in batch.candidates()]
            return revised
        finally:
            await batch.close()

    async def together(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        tasks: Tasks = set()
        started = [self.spawn(part, tasks) for part in parts]
        try:
            if started:
                await asyncio.wait(started, return_when=asyncio.FIRST_EXCEPTION)
            for task in started:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            return [task.result() for task in started]
        finally:
            await self.cancel(tasks)

    def prune(self, candidates: Sequence[Candidate]) -> None:
        for candidate in candidates:
            if candidate.id in self.events:
                self.trace.mark(self.events[candidate.id], pruned=True)

    async def room(self, problem: Problem, at_most: int) -> int:
        _check_count("room", at_most, "at_most")
        gen, after = await bounds(self, Whole(self.model, problem))
        return self.ledger.fits((gen or FREE).amount.plus(after), at_most)

    @functools.cached_property
    def rng(self) -> random.Random:
        return random.Random(self.derive("rng"))

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        _check_count("generate", n)
        self.raise_if_halted()
        scope = SCOPE.get()
        inside = scope is not None and scope.ledger is self.ledger
        role, within = ("model", None) if scope is None else (scope.role, scope.hold if inside else None)
        parent = scope.event if scope is not None and inside else self.root
        # Taken before anything is waited for: whose turn comes first must not change who gets which.
        source = self._seeds if scope is None else scope.seeds
        seeds = [next(source) for _ in range(n)]
        bound = await model.bound(problem)
        check_bounds(model, bound, self.ledger)
        unit = (bound or FREE).amount
        made, usage = list[Generation](), Usage()
        while seeds:
            try:
                hold = await acquire(self.ledger, unit, at_most=min(len(seeds), max(1, model.batch)), within=within)
                reply, rest, _ = await self.caller.request(
                    model, problem, seeds[: hold.units], bound=bound, unit=unit, hold=hold, within=within, role=role,
                    parent=parent,
                )  # fmt: skip
            except BudgetExhausted:
                if not made:
                    raise
                break  # fewer came than were asked for
            rest.release()
            made += reply.generations
            usage += reply.usage or Usage()
            seeds = seeds[len(reply.generations) :]
        return Reply(generations=tuple(made), usage=usage)

    def note(self, kind: str, **data: Any) -> None:
        self.trace.note(kind, self.root, **data)

    def derive(self, *path: object) -> int:
        """A seed that depends on the run's seed and the path, and on nothing else."""
        return derive(self.seed, *path)

    def halt(self, why: Halt) -> None:
        """End as soon as possible with what was seen: wakes whoever waits for candidates."""
        if self._end.halted is None and not self._end.closed:
            self._end.halted = self.stopped = why
            self.note(why)
            for inbox in self.inboxes:
                inbox.put_nowait(why)
            self.on_halt()

    @property
    def halted(self) -> Halt | None:
        """Why it ends now, if it does."""
        return self._end.halted

    def raise_if_halted(self) -> None:
        """Start nothing more once the time is up, or the solve over."""
        self._end.check()

    def exhausted(self, error: BudgetExhausted) -> bool:
        """Whether it is this solve's budget that has no room, and not that of a solve inside it; then it is noted."""
        ledger = error.ledger
        if isinstance(ledger, Ledger) and not ledger.pays_for(self.ledger):
            return False
        self.refused = self.refused or error
        if self._end.halted is None and self.stopped != "budget":
            self.stopped = "budget"
            self.note("budget", error=f"BudgetExhausted: {error}")
        return True

    async def cancel(self, tasks: Tasks) -> None:
        """Cancel the tasks and wait until they have ended; what swallows its cancellation is left behind."""
        now = time.monotonic()
        end = now + _PATIENCE if self.deadline is None else min(now + _PATIENCE, self.deadline + _AT_DEADLINE)
        end = max(end, now + 0.03)
        for share in (0.8, 1.0):
            waiting = [t for t in tasks if t is not asyncio.current_task() and t not in self._left_behind]
            if not waiting:
                return
            for task in waiting:
                # A second time only where the first was swallowed, or cleaning up takes long: it would break that off.
                if share == 1.0 or not task.cancelling():
                    task.cancel()
            await asyncio.wait(waiting, timeout=max(now + (end - now) * share - time.monotonic(), 0.0))
        self._left_behind |= {t for t in tasks if t is not asyncio.current_task()}

    def take_index(self) -> int:
        """The next candidate's place."""
        return self.take_indices(1)[0]

    def take_indices(self, n: int) -> range:
        """The next candidates' places."""
        self._next += n
        return range(self._next - n, self._next)

    async def close(self) -> None:
        """Cancel what is left in flight and wait until all of it is settled."""
        self._end.closed = True
        try:
            await self.cancel(self._tasks)
        finally:
            self.on_halt = lambda: None
            self.caller.abandon()
            for task in self._left_behind:
                if (hold := self._holds.get(task)) is not None:
                    hold.release()
            self.trace.abandon(self.root)
            self.refused = None  # its traceback has frames that refer to this

    def carry(self, hold: Hold | None) -> None:
        """The running task goes on with another hold than the one that it was spawned with, or with none."""
        task = asyncio.current_task()
        if task is not None and task in self._tasks:
            self._holds.pop(task, None)
            if hold is not None:
                self._holds[task] = hold

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, Any],
        tasks: Tasks,
        hold: Hold | None = None,
        ended: Callable[[asyncio.Task[Any]], None] | None = None,
    ) -> asyncio.Task[Any]:
        """A task that ends with its group, and with the run; it never leaves `hold` open."""
        task: asyncio.Task[Any] = asyncio.ensure_future(coroutine)
        if hold is not None:
            self._holds[task] = hold
        for group in (tasks, self._tasks):
            group.add(task)

        def done(_: object) -> None:
            for group in (tasks, self._tasks):
                group.discard(task)
            self._left_behind.discard(task)
            if (held := self._holds.pop(task, None)) is not None:
                # A task that is cancelled before its first step runs none of its own clean-up.
                held.release()
            failed = not task.cancelled() and task.exception() is not None  # asked, so that asyncio does not complain
            if ended is not None and (failed or task.cancelled()):
                ended(task)

        task.add_done_callback(done)
        if self._end.closed:
            task.cancel()
        return task


def _check_count(who: str, n: object, name: str = "n") -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigurationError(f"Run.{who}: {name}={n!r} must be a whole number of at least 1")
