"""Problems x strategies x budgets x seeds, each solved once, and stored before the next begins."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tts_plugins._internal.config import check_count
from tts_plugins.answers import extract
from tts_plugins.bench._reply_journal import ASKED, Asked, journaled
from tts_plugins.bench._solve_rows import failure, outcome
from tts_plugins.bench.grading import by_answer, by_record, can_grade
from tts_plugins.bench.plan import Arm, Plan
from tts_plugins.bench.storage.rows import CandidateRow, SolveKey, SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.budget import FREE, Budget
from tts_plugins.engine import solve
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DataError,
    DeadlineExceeded,
    ModelError,
    TTSError,
)
from tts_plugins.ledger import Ledger
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.policies.compute_optimal import ComputeOptimal
from tts_plugins.pools import Pool
from tts_plugins.protocols import Model
from tts_plugins.types import Problem
from tts_plugins.verifiers.recorded import RecordedVerifier

_EVERY = 0.5  # seconds between the commits of a replay, which costs nothing to repeat


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a benchmark after each solve.

    Attributes:
        solve: the solve that ended.
        done, of: solves, those of earlier starts included.
        fresh: solves of this start.
        seconds: since this start.
    """

    solve: SolveRow
    done: int
    of: int
    fresh: int
    seconds: float

    @property
    def left(self) -> float:
        """Seconds that the rest will take at this start's pace."""
        return (self.of - self.done) * self.seconds / self.fresh


async def bench(
    plan: Plan,
    store: Store,
    *,
    concurrency: int = 8,
    total: Budget | None = None,
    attempts: int = 4,
    on_solve: Callable[[Progress], None] | None = None,
) -> bool:
    """Run the part of a plan that is not in its store yet.

    Args:
        plan: strategies, problems, models and seeds.
        store: as `plan.open` gives it.
        concurrency: solves under way at once.
        total: limits for all solves together, those of earlier starts included, but for its `seconds`: those are
            of this start. A solve that it cuts short is not kept; what was replied to it is.
        attempts: attempts at each request, as for `solve`.
        on_solve: called after each solve.

    Returns:
        Whether all is done; False if `total` ended it.

    Raises:
        TTSError: a setting is wrong, no solve can succeed (a wrong key, an unknown model), or the server is down and
            stayed so over all attempts at one solve. What is done is kept, and that solve is not.
    """
    check_count("bench", "concurrency", concurrency)
    account = _account(total, store)
    if account is None:
        return False
    work = _Work(plan, store, account, attempts, on_solve)
    await work.warm()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work.go())
    except BaseExceptionGroup as errors:
        if work.is_refused(errors.exceptions[0]):
            work.forget()
        raise errors.exceptions[0] from None  # the first to fail; the others were cancelled because of it
    finally:
        work.flush()
    return not work.ended


class _Work:
    def __init__(
        self, plan: Plan, store: Store, account: Ledger, attempts: int, on_solve: Callable[[Progress], None] | None
    ) -> None:
        self._plan, self._store, self._account, self._on_solve = plan, store, account, on_solve
        self._attempts = attempts
        self._before = store.done()
        self._of = len(plan.arms) * len(plan.problems) * len(plan.seeds)
        self._todo = self._order()
        self._pool = plan.model if isinstance(plan.model, Pool) else None
        self._model = None if isinstance(plan.model, Pool) else journaled(plan.model, store)
        self._grade = plan.grade or (by_answer if self._pool is None else by_record)
        self._verifier = plan.verifier
        if self._pool is not None and isinstance(plan.verifier, RecordedVerifier):
            self._verifier = plan.verifier.of(self._pool)
        self._answer = plan.answer or (extract if self._pool is None else recorded_answer)
        self._kept: list[tuple[SolveRow, list[CandidateRow]]] = []
        self._started = self._flushed = time.monotonic()
        self._fresh = 0
        self._replays: dict[int, ReplayModel] = {}
        self.ended = False

    def _order(self) -> Iterator[tuple[SolveKey, Problem, Arm]]:
        # Arms innermost: wherever it ends, every arm has had nearly the same problems.
        for seed in self._plan.seeds:
            for problem in self._plan.problems:
                for arm in self._plan.arms:
                    key = SolveKey(problem=problem.id or "", arm=arm.name, seed=seed)
                    if (key.problem, key.arm, key.seed) not in self._before:
                        yield key, problem, arm

    async def warm(self) -> None:
        """Have a model that starts with its first call start now, in no solve's time."""
        if self._model is not None and len(self._before) < self._of:
            await self._model.bound(self._plan.problems[0])

    async def go(self) -> None:
        for key, problem, arm in self._todo:
            if self.ended:
                return
            # A task of its own, so that what one solve sets is not seen by the next.
            row = await asyncio.create_task(self._solve(key, problem, arm))
            if row is None:
                self.ended = True
                return
            self._keep(*row)

    async def _solve(self, key: SolveKey, problem: Problem, arm: Arm) -> tuple[SolveRow, list[CandidateRow]] | None:
        asked = Asked(key)
        ASKED.set(asked)
        ledger = Ledger(arm.budget, inside=self._account)
        model, own = self._model or self._replay(key.seed), Problem(problem.content, problem.id, problem.metadata)
        started = time.monotonic()
        try:
            result = await solve(
                own, model=model, strategy=arm.strategy, verifier=self._verifier, budget=ledger,
                seed=_seed(key), answer=self._answer, profile=None, attempts=self._attempts,
            )  # fmt: skip
        except (AllCandidatesFailed, BudgetExhausted, DeadlineExceeded) as error:
            if _server_down(error):
                raise
            if isinstance(asked.fatal, DataError):
                raise asked.fatal from error  # of the store: a full disk, say, which is not the strategy's failure
            self._check_pool(key, arm, model)
            if isinstance(error, BudgetExhausted | DeadlineExceeded) and await self._cut(arm, own, model):
                return None
            seconds, gradable = time.monotonic() - started, can_grade(self._grade, problem)
            return failure(key, error, ledger.usage, seconds, gradable=gradable), []
        if asked.fatal is not None:
            raise asked.fatal
        if result.stopped == "error":  # of the verifier, say: too few candidates to be measured
            raise TTSError(f"bench: {key.arm}, problem {key.problem!r}: {'; '.join(result.warnings)}")
        self._check_pool(key, arm, model)
        if result.stopped in ("budget", "deadline") and await self._cut(arm, own, model):
            return None
        return outcome(key, problem, result, self._grade, texts=self._pool is None)

    def _check_pool(self, key: SolveKey, arm: Arm, model: Model) -> None:
        if self._pool is not None and isinstance(model, ReplayModel) and model.refused:
            policy = isinstance(arm.strategy, ComputeOptimal)  # which has no n
            lower = f"give it a budget={self._pool.fewest}" if policy else "lower n"
            raise ConfigurationError(
                f"bench: {key.arm} asks for more samples than problem {key.problem!r} has; {lower}, or record more"
            )

    async def _cut(self, arm: Arm, problem: Problem, model: Model) -> bool:
        """Return whether the limit that ended a solve was the whole benchmark's; then the solve is not kept."""
        limit = self._account.deadline(time.monotonic())
        if arm.budget is None or (limit is not None and limit <= time.monotonic()):
            return True
        bound = await model.bound(problem) or FREE
        check = self._plan.verifier
        more = FREE if check is None else await check.bound(problem, bound.completion_tokens)
        try:
            self._account.reserve(bound.amount.plus(more.amount)).release()
        except BudgetExhausted:
            return True
        return False

    def _replay(self, seed: int) -> ReplayModel:
        assert self._pool is not None
        if seed not in self._replays:
            self._replays[seed] = ReplayModel(self._pool, seed=seed)
        return self._replays[seed]

    def _keep(self, row: SolveRow, candidates: list[CandidateRow]) -> None:
        self._kept.append((row, candidates))
        self._fresh += 1
        if self._pool is None or time.monotonic() - self._flushed > _EVERY:
            self.flush()
        if self._on_solve is not None:
            self._on_solve(
                Progress(solve=row, done=len(self._before) + self._fresh, of=self._of, fresh=self._fresh,
                         seconds=time.monotonic() - self._started)
            )  # fmt: skip

    def is_refused(self, error: BaseException) -> bool:
        """Return whether a plan does not fit its recorded samples, and its store is still empty."""
        return self._pool is not None and not self._before and isinstance(error, ConfigurationError)

    def forget(self) -> None:
        """Keep nothing, so that the plan can be fixed: on a pool it costs nothing to do again."""
        self._kept = []
        self._store.clear()

    def flush(self) -> None:
        kept, self._kept = self._kept, []
        self._store.add(kept)
        self._flushed = time.monotonic()


def _account(total: Budget | None, store: Store) -> Ledger | None:
    """Return what is left of the whole benchmark's limits; None if that is nothing."""
    if total is None:
        return Ledger(None)
    solves = store.solves()
    spent = {"calls": sum(s.calls for s in solves), "tokens": sum(s.tokens for s in solves),
             "usd": sum(s.usd or 0.0 for s in solves), "seconds": 0.0}  # fmt: skip
    left = {name: limit - spent[name] for name, limit in total.to_dict().items()}
    return None if any(value <= 0 for value in left.values()) else Ledger(Budget(**left))


def _server_down(error: TTSError) -> bool:
    """Return whether the solve failed only because of the server's state: it may well succeed later."""
    causes = error.errors if isinstance(error, AllCandidatesFailed) else ()
    return bool(causes) and all(isinstance(cause, ModelError) and cause.retryable for cause in causes)


def _seed(key: SolveKey) -> int:
    # Not the arm: strategies are compared on the same samples, as far as the server honours seeds.
    return int.from_bytes(hashlib.sha256(f"{key.seed}/{key.problem}".encode()).digest()[:4]) >> 1
