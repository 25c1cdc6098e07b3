"""Runs a batch on any engine, and acknowledges each result in its journal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from tts_plugins.batch.journal import Journal
from tts_plugins.batch.rows import Row
from tts_plugins.engine.many import Engine, Handler, Solver
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    CandidateError,
    DeadlineExceeded,
    JobFailed,
    TTSError,
)
from tts_plugins.ledger import Ledger
from tts_plugins.options import ManyOptions
from tts_plugins.types import Result

_WITHIN = 0.2  # seconds after which what has come is acknowledged, with all that came with it
_MOST = 256  # results that are acknowledged together


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """How a batch ended.

    Attributes:
        rows: of the input.
        solved, failed: of them, those of earlier starts included.
        fresh: results of this start.
        complete: whether each row has a result; False where the budget of the whole batch ended it.
    """

    rows: int
    solved: int
    failed: int
    fresh: int
    complete: bool


class OutOfBudget(TTSError):
    """The budget of the whole batch has ended a solve, which is not kept."""


@dataclass(frozen=True)
class BatchWork:
    """The work of a batch: a job is a `Row`, and comes to a row of the output.

    Args:
        settings: of `solve`; the model and the verifier may be factories.
        seed: from which, and from a row's id, the seed of its solve is made.
        candidates: whether a result has all candidates, and not the chosen one alone.
    """

    settings: Mapping[str, Any]
    seed: int = 0
    candidates: bool = False

    def __call__(self, ledger: Ledger | None) -> Handler:
        """Make what is given as factories, and return the function that solves one row."""
        return _Handler(self, ledger)


class _Handler:
    def __init__(self, work: BatchWork, ledger: Ledger | None) -> None:
        self._work, self._solve = work, Solver(cast(ManyOptions, {"profile": None, **work.settings}), ledger)

    async def __call__(self, row: Row) -> dict[str, Any]:
        seed = int.from_bytes(hashlib.sha256(f"{self._work.seed}/{row.id}".encode()).digest()[:4]) >> 1
        problem = row.problem()
        try:
            result: Result = await self._solve((problem, seed))
        except (AllCandidatesFailed, BudgetExhausted, DeadlineExceeded, CandidateError) as error:
            if isinstance(error, AllCandidatesFailed) and error.may_succeed_later:
                raise  # of the server, which is down: not this row's failure
            if isinstance(error, CandidateError) and getattr(error, "fatal", False):
                raise
            if isinstance(error, BudgetExhausted | DeadlineExceeded) and await self._solve.ended_by_all(problem):
                raise OutOfBudget(str(error)) from error
            return {"id": row.id, "error": f"{type(error).__name__}: {error}", "seed": seed}
        if result.stopped in ("budget", "deadline") and await self._solve.ended_by_all(problem):
            raise OutOfBudget("the budget of the whole batch ended a solve")
        if result.stopped == "error":
            raise TTSError(f"{row.where}: {'; '.join(result.warnings)}")
        return result_row(row.id, result, self._work.candidates)

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self._solve.aclose()


async def run_batch(
    rows: Iterable[Row], journal: Journal, work: BatchWork, *, engine: Engine, ledger: Ledger | None = None,
    on_result: Callable[[Mapping[str, Any]], None] | None = None,
) -> BatchReport:  # fmt: skip
    """Solve all rows that the journal does not have yet, and acknowledge each there.

    Args:
        rows: registered in the journal; read a second time, as there is room for them.
        ledger: pays for all of it; None where the engine has a budget of its own, or nothing limits it.
        on_result: called with each row of the output, once it is acknowledged.

    Raises:
        TTSError: a setting is wrong, the server is down, or the journal cannot be written. What is acknowledged stays.
    """
    sink, complete = _Sink(journal, on_result), True
    asked = dict[int, str]()  # ids of the rows under way, by the numbers of their jobs

    def todo() -> Iterator[Row]:
        numbers = itertools.count()
        for row in rows:
            if not complete:
                return
            if not journal.has(row.id):
                asked[next(numbers)] = row.id
                yield row

    try:
        async with contextlib.aclosing(engine.run(todo(), work, ledger=ledger)) as outcomes:
            async for number, value in outcomes:
                name = asked.pop(number)
                if isinstance(value, JobFailed):
                    value = {"id": name, "error": f"JobFailed: {value}"}
                if isinstance(value, OutOfBudget | BudgetExhausted):
                    complete = False  # those under way, which are paid for, go on to their ends
                    continue
                if isinstance(value, BaseException):
                    raise value
                sink.put(value)
    except BudgetExhausted:  # nothing was left to begin with
        complete = False
    finally:
        sink.flush()
    sink.check()
    solved, failed = journal.counts()
    return BatchReport(rows=journal.rows, solved=solved, failed=failed, fresh=sink.count, complete=complete)


class _Sink:
    """Acknowledges results together that come together: a commit waits for the disk."""

    def __init__(self, journal: Journal, on_result: Callable[[Mapping[str, Any]], None] | None) -> None:
        self._journal, self._on_result = journal, on_result
        self._kept: list[Mapping[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._failed: TTSError | None = None
        self.count = 0

    def put(self, row: Mapping[str, Any]) -> None:
        self.check()
        self._kept.append(row)
        if len(self._kept) >= _MOST:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WITHIN, self._flush_late)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kept, self._kept = self._kept, []
        if kept:
            self._journal.add(kept)
            self.count += len(kept)
            for row in kept:
                if self._on_result is not None:
                    self._on_result(row)

    def check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _flush_late(self) -> None:
        try:
            self.flush()
        except TTSError as error:  # raised by the next `put`: nobody awaits a timer
            self._failed = error


def result_row(name: str, result: Result, candidates: bool) -> dict[str, Any]:
    """Return a result as a row of the output."""
    usage = result.usage
    row: dict[str, Any] = {
        "id": name, "text": result.text, "answer": result.answer, "score": result.score,
        "confidence": result.confidence, "agreement": result.agreement,
        "abstained": None if result.abstained is None else result.abstained.reason,
        "stopped": result.stopped, "error": None, "seed": result.seed,
        "calls": usage.calls, "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens, "usd": usage.usd,
        "seconds": round(usage.seconds, 3), "exact": usage.exact,
    }  # fmt: skip
    if candidates:
        row["candidates"] = [{"text": c.text, "answer": c.answer, "score": c.score} for c in result.candidates]
    return row
