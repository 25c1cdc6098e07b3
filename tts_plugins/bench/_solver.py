"""One solve of a benchmark, here or on another machine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from tts_plugins.answers import extract
from tts_plugins.bench._reply_journal import ASKED, Asked, journaled
from tts_plugins.bench._solve_rows import failure, outcome
from tts_plugins.bench.grading import by_answer, by_record, can_grade
from tts_plugins.bench.plan import Arm, Plan
from tts_plugins.bench.storage.rows import CandidateRow, SolveKey, SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.budget import FREE
from tts_plugins.engine import solve
from tts_plugins.engine.many import Handler
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DataError,
    DeadlineExceeded,
    TTSError,
)
from tts_plugins.ledger import Ledger
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.policies.compute_optimal import ComputeOptimal
from tts_plugins.pools import Pool
from tts_plugins.protocols import Model, SetVerifier, Strategy, Verifier
from tts_plugins.types import Problem
from tts_plugins.verifiers.recorded import RecordedVerifier


@dataclass(frozen=True)
class BenchWork:
    """The work of a benchmark on an engine: a job is a `SolveKey`, and comes to its rows."""

    recipe: Callable[[], Plan]
    attempts: int

    def __call__(self, ledger: Ledger | None) -> Handler:
        """Make the plan, and return what does one solve of it."""
        return BenchSolver(self.recipe(), Ledger(None) if ledger is None else ledger, self.attempts, None)


class BenchSolver:
    """Does one solve after the other, or many side by side, of one plan within one account.

    Args:
        store: keeps each reply of a solve until that has ended; None where it is on another machine.
    """

    def __init__(self, plan: Plan, account: Ledger, attempts: int, store: Store | None) -> None:
        self._plan, self._account, self._attempts = plan, account, attempts
        self._problems = {p.id: p for p in plan.problems}
        self._arms = {arm.name: arm for arm in plan.arms}
        self._pool = plan.model if isinstance(plan.model, Pool) else None
        self._model: Model | None = None
        self._made_here = store is None
        if not isinstance(plan.model, Pool):
            self._model = plan.model if store is None else journaled(plan.model, store)
        self._grade = plan.grade or (by_answer if self._pool is None else by_record)
        self._verifiers = {arm.name: self._verifier_for(arm.strategy) for arm in plan.arms}
        self._answer = plan.answer or (extract if self._pool is None else recorded_answer)
        self._replays: dict[int, ReplayModel] = {}

    def _verifier_for(self, strategy: Strategy) -> Verifier | SetVerifier | None:
        given = self._plan.verifier
        if self._pool is None or not isinstance(given, RecordedVerifier):
            return given
        return given.where_needed(self._pool, getattr(strategy, "needs_scores", True))

    async def warm(self) -> None:
        """Have a model that starts with its first call start now, in no solve's time."""
        if self._model is not None:
            await self._model.bound(self._plan.problems[0])

    async def __call__(self, key: SolveKey) -> tuple[SolveRow, list[CandidateRow]] | None:
        """Return the rows of one solve; None if the account of all has ended it."""
        return await self._solve(key, self._problems[key.problem], self._arms[key.arm])

    async def aclose(self) -> None:
        """Close a model that was made here, from a recipe."""
        close = getattr(self._model, "aclose", None)
        if self._made_here and close is not None:
            await close()

    async def _solve(self, key: SolveKey, problem: Problem, arm: Arm) -> tuple[SolveRow, list[CandidateRow]] | None:
        asked = Asked(key)
        ASKED.set(asked)
        ledger = Ledger(arm.budget, inside=self._account)
        model, own = self._model or self._replay(key.seed), Problem(problem.content, problem.id, problem.metadata)
        started = time.monotonic()
        try:
            result = await solve(
                own, model=model, strategy=arm.strategy, verifier=self._verifiers[arm.name], budget=ledger,
                seed=_seed(key), answer=self._answer, profile=None, attempts=self._attempts,
            )  # fmt: skip
        except (AllCandidatesFailed, BudgetExhausted, DeadlineExceeded) as error:
            if isinstance(error, AllCandidatesFailed) and error.may_succeed_later:
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
        return not self._account.has_room(bound.amount.plus(more.amount))

    def _replay(self, seed: int) -> ReplayModel:
        assert self._pool is not None
        if seed not in self._replays:
            self._replays[seed] = ReplayModel(self._pool, seed=seed)
        return self._replays[seed]


def _seed(key: SolveKey) -> int:
    # Not the arm: strategies are compared on the same samples, as far as the server honours seeds.
    return int.from_bytes(hashlib.sha256(f"{key.seed}/{key.problem}".encode()).digest()[:4]) >> 1
