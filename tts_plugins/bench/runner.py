"""Problems x strategies x budgets x seeds, each solved once, and stored before the next begins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tts_plugins._internal.config import check_count
from tts_plugins.bench._solver import BenchSolver, BenchWork
from tts_plugins.bench.plan import Plan
from tts_plugins.bench.storage.rows import CandidateRow, SolveKey, SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.budget import Budget
from tts_plugins.engine import Engine, LocalEngine
from tts_plugins.engine.many import Handler
from tts_plugins.errors import (
    ConfigurationError,
)
from tts_plugins.ledger import Ledger
from tts_plugins.pools import Pool

_EVERY = 0.5  # seconds between the commits of a replay, which costs nothing to repeat


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a benchmark after each solve.

    Attributes:
        solve: the solve that ended.
        done, of: solves, those of earlier starts included.
        fresh: solves of this start.
        seconds: since the first solve of this start began; a cluster may have needed longer to be there.
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
    engine: Engine | None = None,
    recipe: Callable[[], Plan] | None = None,
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
        engine: where the solves run; here, `concurrency` at a time, if left out. On other machines the replies to
            solves that have not ended are not kept: what a worker that dies was doing is done again.
        recipe: makes the same plan on such a machine; it is pickled.

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
    todo = _Todo(plan, store, on_solve)
    if engine is None:
        solver = BenchSolver(plan, account, attempts, store)
        if todo.left:
            await solver.warm()
        engine = LocalEngine(concurrency)

        def work(ledger: Ledger | None) -> Handler:
            return solver
    else:
        work = BenchWork(recipe or (lambda: plan), attempts)
    try:
        async with contextlib.aclosing(engine.run(todo.keys(), work, ledger=account)) as outcomes:
            async for _, value in outcomes:
                if isinstance(value, BaseException):
                    raise value
                if value is None:
                    todo.ended = True  # those under way go on to their ends
                else:
                    todo.keep(*value)
    except ConfigurationError:
        if isinstance(plan.model, Pool) and todo.is_first:
            todo.forget()
        raise
    finally:
        todo.flush()
    return not todo.ended


class _Todo:
    """What is left of a plan, and what has come of it."""

    def __init__(self, plan: Plan, store: Store, on_solve: Callable[[Progress], None] | None) -> None:
        self._plan, self._store, self._on_solve = plan, store, on_solve
        self._before = store.done()
        self._of = len(plan.arms) * len(plan.problems) * len(plan.seeds)
        self._together = isinstance(plan.model, Pool)
        self._kept: list[tuple[SolveRow, list[CandidateRow]]] = []
        self._started = self._flushed = time.monotonic()
        self._fresh = 0
        self.ended = False

    @property
    def left(self) -> bool:
        """Whether anything is to be done."""
        return len(self._before) < self._of

    @property
    def is_first(self) -> bool:
        """Whether the store was empty."""
        return not self._before

    def keys(self) -> Iterator[SolveKey]:
        """Yield what is to be solved, until the run has ended."""
        self._started = time.monotonic()  # an engine takes the first as soon as its workers are there
        # Arms innermost: wherever it ends, every arm has had nearly the same problems.
        for seed in self._plan.seeds:
            for problem in self._plan.problems:
                for arm in self._plan.arms:
                    if self.ended:
                        return
                    if (problem.id, arm.name, seed) not in self._before:
                        yield SolveKey(problem=problem.id or "", arm=arm.name, seed=seed)

    def keep(self, row: SolveRow, candidates: list[CandidateRow]) -> None:
        self._kept.append((row, candidates))
        self._fresh += 1
        if not self._together or time.monotonic() - self._flushed > _EVERY:
            self.flush()
        if self._on_solve is not None:
            self._on_solve(
                Progress(solve=row, done=len(self._before) + self._fresh, of=self._of, fresh=self._fresh,
                         seconds=time.monotonic() - self._started)
            )  # fmt: skip

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
