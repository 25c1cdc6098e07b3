"""Strategies on recorded samples, through the engine that runs them live: what they reach, and at what cost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins._internal.config import check_count
from tts_plugins.answers import AnswerKey
from tts_plugins.budget import Budget
from tts_plugins.engine import solve
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.metrics import Estimate, clustered_bootstrap, paired_bootstrap
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.pools import Pool, PoolCandidate, PoolProblem
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.types import Result
from tts_plugins.verifiers.recorded import RecordedVerifier

Grade = Callable[[Result], bool]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The solves of one problem, one value an order: whether right, candidates paid for, tokens paid for."""

    correct: tuple[float, ...]
    samples: tuple[float, ...]
    tokens: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """What a strategy reached on a pool.

    Attributes:
        accuracy: share of right answers.
        samples: generations paid for, a problem; tokens: all tokens paid for, a problem.
        exact: whether the tokens are counts; else the pool's figures are estimates.
        counted: whether all tokens are known; else `tokens` are NaN: null in a pool means unknown, and not 0.
        by_problem: the single solves, by problem id.

    Intervals are for 95 %, from resampling whole problems: the orders of one problem are not independent.
    """

    accuracy: Estimate
    samples: Estimate
    tokens: Estimate
    exact: bool
    by_problem: Mapping[str, Replayed]
    counted: bool = True

    def accuracy_over(self, other: ReplayResult) -> Estimate:
        """Return the difference in accuracy to another strategy's result on the same problems, paired.

        Raises:
            ConfigurationError: the problems are not the same.
        """
        mine, theirs = self._pairs(other)
        return paired_bootstrap([r.correct for r in mine], [r.correct for r in theirs])

    def tokens_saved(self, other: ReplayResult) -> Estimate:
        """Return how many times the tokens of this one the other took, paired; above 1 if this one is cheaper.

        Raises:
            ConfigurationError: the problems are not the same.
            DataError: the pool does not say how many tokens some candidates have.
        """
        if not (self.counted and other.counted):
            raise DataError(
                "tokens of some candidates are null in the pool, which means unknown and not 0, so that nothing can be "
                "said of what was saved; count them and write the pool again"
            )
        mine, theirs = self._pairs(other)
        return paired_bootstrap([r.tokens for r in theirs], [r.tokens for r in mine], ratio=True)

    def _pairs(self, other: ReplayResult) -> tuple[Sequence[Replayed], Sequence[Replayed]]:
        if set(self.by_problem) != set(other.by_problem):
            raise ConfigurationError("the two results are on different problems; replay both on the same ones")
        return list(self.by_problem.values()), [other.by_problem[key] for key in self.by_problem]


async def replay(
    pool: Pool,
    strategy: Strategy,
    verifier: Verifier | SetVerifier | None = None,
    *,
    problems: Iterable[str] | None = None,
    orders: int = 40,
    seed: int = 0,
    budget: Budget | None = None,
    answer: AnswerKey = recorded_answer,
    grade: Grade | None = None,
    concurrency: int = 8,
) -> ReplayResult:
    """Run a strategy on a pool, `orders` times on each problem with its samples shuffled.

    Args:
        pool: recorded samples, enough of each problem for the strategy.
        strategy: any that only samples.
        verifier: such as `RecordedVerifier()`.
        problems: the ids to run on; all if left out.
        orders: shuffled orders of each problem's samples; the same for every strategy with the same `seed`.
        seed: of the shuffled orders, and of the strategy's own draws.
        budget: limits for each solve.
        answer: the vote of a candidate's text; the recorded answer by default.
        grade: whether a result is right; by default the recorded grade of the chosen candidate.
        concurrency: solves under way at once; more helps only if a verifier waits for something.

    Raises:
        ConfigurationError: no problems, one that the pool does not have, or a strategy that asks for more samples
            than a problem has.
        DataError: a chosen candidate was never graded.
    """
    check_count("replay", "orders", orders)
    check_count("replay", "concurrency", concurrency)
    chosen = _chosen(pool, problems)
    if isinstance(verifier, RecordedVerifier):
        verifier = verifier.where_needed(pool, getattr(strategy, "needs_scores", True))
    marked = grade or recorded_grade
    places = asyncio.Semaphore(concurrency)
    rows: dict[str, list[tuple[float, float, float]]] = {p.id: [] for p in chosen}

    async def one(model: ReplayModel, p: PoolProblem, own: int) -> tuple[float, float, float]:
        async with places:
            result = await solve(
                p.problem(), model=model, strategy=strategy, verifier=verifier, budget=budget, seed=own, answer=answer,
                profile=None,
            )  # fmt: skip
        return float(marked(result)), float(result.usage.calls), float(result.usage.tokens)

    for order in range(orders):
        model = ReplayModel(pool, seed=seed * 1_000_003 + order)
        try:
            async with asyncio.TaskGroup() as group:  # one order at a time keeps few solves in memory
                tasks = [group.create_task(one(model, p, order)) for p in chosen]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first to fail; the others were cancelled because of it
        if model.refused:
            raise ConfigurationError(
                f"replay: {strategy!r} asks for more samples than a problem has (the fewest is "
                f"{min(len(p.candidates) for p in chosen)}); lower n, or record more"
            )
        for p, task in zip(chosen, tasks, strict=True):
            rows[p.id].append(task.result())
    counted = all(c.counted is not None for p in chosen for c in p.candidates)
    return _result(rows, exact=pool.exact_tokens and counted, counted=counted)


def replay_sync(
    pool: Pool,
    strategy: Strategy,
    verifier: Verifier | SetVerifier | None = None,
    *,
    problems: Iterable[str] | None = None,
    orders: int = 40,
    seed: int = 0,
    budget: Budget | None = None,
    answer: AnswerKey = recorded_answer,
    grade: Grade | None = None,
    concurrency: int = 8,
) -> ReplayResult:
    """Call `replay` from synchronous code, inside a running event loop too."""
    return run_sync(
        lambda: replay(
            pool, strategy, verifier, problems=problems, orders=orders, seed=seed, budget=budget, answer=answer,
            grade=grade, concurrency=concurrency,
        )
    )  # fmt: skip


def recorded_grade(result: Result) -> bool:
    """Return whether the chosen candidate was right, as recorded.

    Raises:
        DataError: it was not graded, or is not from a pool.
    """
    record = result.best.output
    if not isinstance(record, PoolCandidate) or record.correct is None:
        raise DataError(f"problem {result.problem.id!r}, correct: the chosen candidate was never graded; pass grade=…")
    return record.correct


def _chosen(pool: Pool, problems: Iterable[str] | None) -> list[PoolProblem]:
    by_id = {p.id: p for p in pool.problems}
    wanted = list(by_id) if problems is None else list(problems)
    if not wanted:
        raise ConfigurationError("replay: there are no problems to run on; check that the fold is not empty")
    for name in wanted:
        if name not in by_id:
            raise ConfigurationError(f"replay: the pool has no problem {name!r}; use ids of its own")
    return [by_id[name] for name in wanted]


def _result(rows: Mapping[str, Sequence[tuple[float, float, float]]], *, exact: bool, counted: bool) -> ReplayResult:
    by_problem = {
        key: Replayed(correct=tuple(r[0] for r in runs), samples=tuple(r[1] for r in runs),
                      tokens=tuple(r[2] if counted else math.nan for r in runs))
        for key, runs in rows.items()
    }  # fmt: skip
    return ReplayResult(
        accuracy=clustered_bootstrap([r.correct for r in by_problem.values()]),
        samples=clustered_bootstrap([r.samples for r in by_problem.values()]),
        tokens=clustered_bootstrap([r.tokens for r in by_problem.values()]),
        exact=exact,
        by_problem=by_problem,
        counted=counted,
    )
