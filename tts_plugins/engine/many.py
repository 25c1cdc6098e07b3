"""Solve many problems: here, or on machines that an engine brings.

An engine knows nothing of solving. It is given jobs, and work: a function that makes, at the place where jobs are done,
the function that does one. So the same work runs here and on a cluster, where the objects that it needs (clients,
accounts) are made anew from a recipe that can be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Unpack, overload, runtime_checkable

from tts_plugins._calls.context import seeds_of
from tts_plugins._calls.running_solves import running_loop
from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins._internal.config import check_count
from tts_plugins._internal.signatures import called_as, check_names
from tts_plugins.budget import FREE
from tts_plugins.engine.solve import filled, profile_of, seed_or_drawn, solving
from tts_plugins.errors import ConfigurationError, TTSError
from tts_plugins.ledger import Ledger
from tts_plugins.options import Factory, ManyOptions, check_common, made
from tts_plugins.protocols import is_set_verifier, is_verifier
from tts_plugins.types import Problem, Result

Handler = Callable[[Any], Awaitable[Any]]
Work = Callable[[Ledger | None], Handler]
Outcomes = AsyncGenerator[tuple[int, Any], None]


@runtime_checkable
class Engine(Protocol):
    """Runs jobs side by side."""

    def run(self, jobs: Iterable[Any], work: Work, *, ledger: Ledger | None = None) -> Outcomes:
        """Yield each job's number, from 0, with what it came to, in the order in which they end.

        Args:
            jobs: taken one after the other, as there is room for them.
            work: called where jobs are done, with the account that all of them share there.
            ledger: the account that pays for all jobs.

        A job's `TTSError` is what it came to; any other exception ends the rest.
        """
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Runs jobs on this event loop, at most `concurrency` at a time.

    Raises:
        ConfigurationError: `concurrency` is not a whole number of at least 1.
    """

    concurrency: int = 64

    def __post_init__(self) -> None:
        check_count("LocalEngine", "concurrency", self.concurrency)

    async def run(self, jobs: Iterable[Any], work: Work, *, ledger: Ledger | None = None) -> Outcomes:
        """See `Engine.run`."""
        running_loop()  # raises where there is none
        handle, source = work(ledger), enumerate(jobs)
        ended: asyncio.Queue[asyncio.Task[tuple[int, Any]]] = asyncio.Queue()
        running: set[asyncio.Task[tuple[int, Any]]] = set()
        try:
            while True:
                for number, job in itertools.islice(source, self.concurrency - len(running)):
                    task = asyncio.create_task(outcome(number, job, handle))
                    running.add(task)
                    task.add_done_callback(ended.put_nowait)
                if not running:
                    return
                task = await ended.get()
                running.discard(task)
                yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            close = getattr(handle, "aclose", None)
            if close is not None:
                await close()


async def outcome(number: int, job: Any, handle: Handler) -> tuple[int, Any]:
    """Do one job; its `TTSError` is what it came to."""
    try:
        return number, await handle(job)
    except TTSError as error:
        return number, error


@overload
async def solve_many(
    problems: Iterable[object],
    *,
    concurrency: int = ...,
    return_errors: Literal[False] = ...,
    engine: Engine | None = ...,
    **settings: Unpack[ManyOptions],
) -> list[Result]: ...
@overload
async def solve_many(
    problems: Iterable[object],
    *,
    concurrency: int = ...,
    return_errors: Literal[True],
    engine: Engine | None = ...,
    **settings: Unpack[ManyOptions],
) -> list[Result | TTSError]: ...
@called_as("solve_many(problems, model=model, budget=Budget(calls=32))")
async def solve_many(
    problems: Iterable[object],
    *,
    concurrency: int = 64,
    return_errors: bool = False,
    engine: Engine | None = None,
    **settings: Unpack[ManyOptions],
) -> list[Result] | list[Result | TTSError]:
    """Solve many problems; results are in the order of the problems.

    Each problem gets a fresh `Budget`; pass a `Ledger` to share one. Each has its own seed, derived from `seed`.

    Args:
        problems: as for `solve`; taken as there is room for them.
        concurrency: solves under way at once on this event loop; an engine has settings of its own.
        return_errors: let the error of a problem that fails stand in its place; otherwise the first error ends the
            rest.
        engine: where the solves run, such as `tts_plugins.distributed.RayEngine(…)`; here if left out.
    """
    found = dict[int, Result | TTSError]()
    async with contextlib.aclosing(_stream(problems, concurrency, engine, settings)) as outcomes:
        async for number, outcome in outcomes:
            if isinstance(outcome, TTSError) and not return_errors:
                raise outcome
            found[number] = outcome
    return [found[number] for number in range(len(found))]


@overload
def solve_many_sync(
    problems: Iterable[object],
    *,
    concurrency: int = ...,
    return_errors: Literal[False] = ...,
    engine: Engine | None = ...,
    **settings: Unpack[ManyOptions],
) -> list[Result]: ...
@overload
def solve_many_sync(
    problems: Iterable[object],
    *,
    concurrency: int = ...,
    return_errors: Literal[True],
    engine: Engine | None = ...,
    **settings: Unpack[ManyOptions],
) -> list[Result | TTSError]: ...
@called_as("solve_many_sync(problems, model=model, budget=Budget(calls=32))")
def solve_many_sync(problems: Iterable[object], **settings: Any) -> list[Any]:
    """Call `solve_many` from synchronous code: on any thread, and inside a running event loop too."""
    return run_sync(lambda: solve_many(problems, **settings))


@called_as("solve_stream(problems, model=model, budget=Budget(calls=32))")
async def solve_stream(
    problems: Iterable[object],
    *,
    concurrency: int = 64,
    return_errors: bool = False,
    ordered: bool = False,
    engine: Engine | None = None,
    **settings: Unpack[ManyOptions],
) -> AsyncGenerator[tuple[int, Result | TTSError], None]:
    """Solve many problems, and yield each result with its problem's number, from 0, as it comes.

    Problems are taken as there is room for them, so neither they nor the results need fit into memory.

    Args:
        problems, concurrency, return_errors, engine: as for `solve_many`.
        ordered: yield in the order of the problems; results that come early are kept until their turn.
    """
    early, turn = dict[int, Result | TTSError](), 0
    async with contextlib.aclosing(_stream(problems, concurrency, engine, settings)) as outcomes:
        async for number, outcome in outcomes:
            if isinstance(outcome, TTSError) and not return_errors:
                raise outcome
            if not ordered:
                yield number, outcome
                continue
            early[number] = outcome
            while turn in early:
                yield turn, early.pop(turn)
                turn += 1


def _stream(problems: Iterable[object], concurrency: int, engine: Engine | None, settings: ManyOptions) -> Outcomes:
    given: object = problems
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ConfigurationError(f"solve_many: problems={given!r:.80} must be a list of problems; for one, use solve")
    check_count("solve_many", "concurrency", concurrency)
    check_names("solve_many", settings, {*ManyOptions.__annotations__, "concurrency", "return_errors", "engine"})
    check_common("solve_many", settings)
    if engine is not None and not isinstance(engine, Engine):
        raise ConfigurationError(f"solve_many: engine={engine!r} is not an engine; pass a RayEngine(…) or leave it out")
    running_loop()  # raises where there is none
    ledger, own = settings.get("budget"), settings.copy()
    own["profile"] = profile = profile_of(settings)  # where the jobs run, the environment may name another one
    seeds = seeds_of(seed_or_drawn(filled({"seed": settings.get("seed")}, profile)["seed"]), "problem")
    if isinstance(ledger, Ledger):
        own["budget"] = None
    jobs = ((problem, next(seeds)) for problem in problems)
    shared = ledger if isinstance(ledger, Ledger) else None
    return (engine or LocalEngine(concurrency)).run(jobs, Solves(own), ledger=shared)


@dataclass(frozen=True)
class Solves:
    """The work of solving: a job is a problem and its seed, and comes to a `Result`."""

    settings: ManyOptions

    def __call__(self, ledger: Ledger | None) -> Handler:
        """Make what is given as factories, and return what solves one problem."""
        return Solver(self.settings, ledger)


class Solver:
    """Solves problems with settings of which the factories have been made, within an account that all share."""

    def __init__(self, settings: ManyOptions, ledger: Ledger | None) -> None:
        self.given: dict[str, Any] = {name: made(value) for name, value in settings.items()}
        self._own = [self.given[name] for name, value in settings.items() if isinstance(value, Factory)]
        self._budget, self._ledger = self.given.pop("budget", None), ledger

    async def __call__(self, job: tuple[object, int]) -> Result:
        """Solve a problem with a seed."""
        problem, seed = job
        budget = self._ledger or self._budget
        if self._ledger is not None and self._budget is not None:
            budget = Ledger(self._budget, inside=self._ledger)
        options: Any = {**self.given, "budget": budget, "seed": seed}
        return await solving(problem, options).run()

    async def ended_by_all(self, problem: Problem) -> bool:
        """Return whether the limit that ended a solve was that of all, and not its own."""
        if self._ledger is None or self._budget is None:
            return self._ledger is not None
        limit = self._ledger.deadline(now := time.monotonic())
        if limit is not None and limit <= now:
            return True
        bound = await self.given["model"].bound(problem) or FREE
        check = self.given.get("verifier")
        more = FREE
        if is_verifier(check) or is_set_verifier(check):
            more = await check.bound(problem, bound.completion_tokens)
        return not self._ledger.has_room(bound.amount.plus(more.amount))

    async def aclose(self) -> None:
        """Close what was made here."""
        for each in self._own:
            close = getattr(each, "aclose", None)
            if close is not None:
                await close()
