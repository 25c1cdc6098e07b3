"""Entry points: solve one problem, or many, with a strategy and within a budget."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Literal, Required, TypedDict, Unpack, overload

from tts_plugins._calls.context import SCOPE, seeds_of
from tts_plugins._calls.running_solves import running_loop
from tts_plugins._internal.threads import run_sync
from tts_plugins._trace.recorder import Event, Listener
from tts_plugins.answers import AnswerKey, extract
from tts_plugins.budget import Budget
from tts_plugins.engine._lifecycle import Settings, Solving
from tts_plugins.errors import ConfigurationError, TTSError
from tts_plugins.ledger import Ledger
from tts_plugins.protocols import Model, SetVerifier, Strategy, Verifier, is_model, is_set_verifier, is_verifier
from tts_plugins.strategies import BestOfN, SelfConsistency
from tts_plugins.types import Problem, Result


class SolveOptions(TypedDict, total=False):
    """The keyword arguments of `solve`, for functions that pass them on. `solve` says what they mean."""

    model: Required[Model]
    strategy: Strategy | None
    verifier: Verifier | SetVerifier | Callable[..., Any] | None
    budget: Budget | Ledger | None
    seed: int | None
    answer: AnswerKey
    on_exhausted: Literal["return", "raise"]
    attempts: int
    listener: Listener | None


async def solve(
    problem: object,
    *,
    model: Model,
    strategy: Strategy | None = None,
    verifier: Verifier | SetVerifier | Callable[..., Any] | None = None,
    budget: Budget | Ledger | None = None,
    seed: int | None = None,
    answer: AnswerKey = extract,
    on_exhausted: Literal["return", "raise"] = "return",
    attempts: int = 4,
    listener: Listener | None = None,
) -> Result:
    """Solve one problem.

    Args:
        problem: a text, chat messages, a chain's input, or a `Problem`.
        model: the generator, see `tts_plugins.models`.
        strategy: how compute is spent; `BestOfN(n=8)` where there is a verifier, else `SelfConsistency(n=8)`.
        verifier: scores candidates, see `tts_plugins.verifiers`; or a function, as `CallableVerifier` takes it.
        budget: hard limits for this solve, or a `Ledger` that many solves share. Inside another solve, the account of
            that solve pays as well; only a `Ledger` of your own that is not part of it pays alone.
        seed: fixes each candidate's seed and every random choice. If left out, it is drawn, or derived from the seed
            of the enclosing solve; the result tells it.
        answer: a function from a candidate's text to the value that votes; None for a text without one.
        on_exhausted: when the budget ends the search, return the best answer seen, or raise `BudgetExhausted`.
        attempts: attempts for each request, the first included. The wait between them honours Retry-After; without a
            deadline, at most 120 s.
        listener: a function that is called on the solve's loop with every trace event, when it starts and when it ends.

    Returns:
        The chosen candidate, all that were seen, the usage, why it stopped, and the trace.

    Raises:
        ConfigurationError: a setting is wrong, or a limit cannot hold over this model.
        BudgetExhausted: the budget has no room for a single candidate.
        DeadlineExceeded: the time was up before there was a single candidate.
        TTSError: the strategy returned no candidate, or cancelled itself.
        ModelError: no candidate can succeed: a wrong key, an unknown model.
        AllCandidatesFailed: every candidate was lost; the first cause is its `__cause__`.
    """
    settings = _settings(model, strategy, verifier, budget, seed, answer, on_exhausted, attempts)
    if listener is not None and not callable(listener):
        raise ConfigurationError(f"solve: listener={listener!r} cannot be called; pass a function of one event")
    return await Solving(Problem.of(problem), settings, listener).run()


def solve_sync(problem: object, **settings: Unpack[SolveOptions]) -> Result:
    """Call `solve` from synchronous code: on any thread, and inside a running event loop too, as in a notebook."""
    return run_sync(lambda: solve(problem, **settings))


@overload
async def solve_many(
    problems: Iterable[object],
    *,
    concurrency: int = ...,
    return_errors: Literal[False] = ...,
    **settings: Unpack[SolveOptions],
) -> list[Result]: ...
@overload
async def solve_many(
    problems: Iterable[object],
    *,
    concurrency: int = ...,
    return_errors: Literal[True],
    **settings: Unpack[SolveOptions],
) -> list[Result | TTSError]: ...
async def solve_many(
    problems: Iterable[object],
    *,
    concurrency: int = 64,
    return_errors: bool = False,
    **settings: Unpack[SolveOptions],
) -> list[Result] | list[Result | TTSError]:
    """Solve many problems, at most `concurrency` at a time; results are in the order of the problems.

    Each problem gets a fresh `Budget`; pass a `Ledger` to share one. Each has its own seed, derived from `seed`. With
    `return_errors`, the error of a problem that fails stands in its place; otherwise the first error ends the rest.
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigurationError(f"solve_many: concurrency={concurrency!r} must be a whole number of at least 1")
    running_loop()  # raises where there is none
    places = asyncio.Semaphore(concurrency)
    seeds = seeds_of(_seed(settings.get("seed"), "solve_many"), "problem")

    async def one(problem: object, own: int) -> Result | TTSError:
        async with places:
            try:
                return await solve(problem, **_with_seed(settings, own))
            except TTSError as error:
                if return_errors:
                    return error
                raise

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(p, next(seeds))) for p in problems]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first to fail; the others were cancelled because of it
    return [task.result() for task in tasks]


def _with_seed(settings: SolveOptions, seed: int) -> SolveOptions:
    made = settings.copy()
    made["seed"] = seed
    return made


class SolveEvents:
    """The events of a solve while it runs: `async for event in solve_events(...)`; then `result`.

    Leaving the loop early leaves the solve running: `cancel()` ends it with the best answer so far.
    """

    def __init__(self, problem: object, settings: dict[str, Any]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._solve = Solving(Problem.of(problem), _settings(**settings), self._queue.put_nowait)
        self._task: asyncio.Task[Result] | None = None

    async def __aiter__(self) -> AsyncIterator[Event]:
        task = self._start()
        while (event := await self._queue.get()) is not None:
            yield event
        self._queue.put_nowait(None)  # for whoever else iterates
        await asyncio.shield(task)

    @property
    def result(self) -> Result:
        """The outcome, once the events have ended; raises what `solve` would."""
        if self._task is None or not self._task.done():
            raise RuntimeError("the solve has not ended yet; iterate over its events to the end, or await wait()")
        return self._task.result()

    async def wait(self) -> Result:
        """Wait for the outcome, and return it."""
        return await asyncio.shield(self._start())

    def cancel(self) -> None:
        """End now with the best answer so far (`stopped="cancelled"`), or with `SolveCancelled` if there is none.

        Call it on the loop that the solve runs on.
        """
        self._solve.halt()

    def _start(self) -> asyncio.Task[Result]:
        if self._task is None:
            self._task = running_loop().create_task(self._solve.run())
            self._task.add_done_callback(lambda _: self._queue.put_nowait(None))
        return self._task


def solve_events(
    problem: object,
    *,
    model: Model,
    strategy: Strategy | None = None,
    verifier: Verifier | SetVerifier | Callable[..., Any] | None = None,
    budget: Budget | Ledger | None = None,
    seed: int | None = None,
    answer: AnswerKey = extract,
    on_exhausted: Literal["return", "raise"] = "return",
    attempts: int = 4,
) -> SolveEvents:
    """Solve, and watch it: an asynchronous iterable over the trace's events, whose `result` is the outcome.

    An event appears when it starts (`end` is None) and again when it ends, with the same `id`.
    """
    return SolveEvents(
        problem,
        {
            "model": model,
            "strategy": strategy,
            "verifier": verifier,
            "budget": budget,
            "seed": seed,
            "answer": answer,
            "on_exhausted": on_exhausted,
            "attempts": attempts,
        },
    )


def _settings(
    model: Model,
    strategy: Strategy | None,
    verifier: Verifier | SetVerifier | Callable[..., Any] | None,
    budget: Budget | Ledger | None,
    seed: int | None,
    answer: AnswerKey,
    on_exhausted: Literal["return", "raise"],
    attempts: int,
) -> Settings:
    if not is_model(model):
        raise ConfigurationError(f"solve: model={model!r} is no model; wrap a function with CallableModel(function)")
    check = _verifier(verifier)
    if strategy is None:
        strategy = SelfConsistency(n=8) if check is None else BestOfN(n=8)
    elif isinstance(strategy, type) or not callable(strategy):
        raise ConfigurationError(f"solve: strategy={strategy!r} is no strategy; pass an object such as BestOfN(n=8)")
    if budget is not None and not isinstance(budget, Budget | Ledger):
        raise ConfigurationError(f"solve: budget={budget!r} is neither a Budget nor a Ledger; pass Budget(calls=32)")
    if not callable(answer):
        raise ConfigurationError(f"solve: answer={answer!r} cannot be called; pass a function of a candidate's text")
    if on_exhausted not in ("return", "raise"):
        raise ConfigurationError(f"solve: on_exhausted={on_exhausted!r} is not known; use 'return' or 'raise'")
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise ConfigurationError(f"solve: attempts={attempts!r} must be a whole number of at least 1")
    return Settings(
        model=model, strategy=strategy, verifier=check, budget=budget, seed=_seed(seed, "solve"), answer=answer,
        on_exhausted=on_exhausted, attempts=attempts,
    )  # fmt: skip


def _verifier(given: Any) -> Verifier | SetVerifier | None:
    if given is None or ((is_verifier(given) or is_set_verifier(given)) and not isinstance(given, type)):
        return given
    from tts_plugins.verifiers.callable import as_verifier  # with all of its package, for functions alone

    return as_verifier("solve", given)


def _seed(given: int | None, who: str) -> int:
    if given is None:
        outer = SCOPE.get()
        return random.SystemRandom().getrandbits(31) if outer is None else outer.next_seed()
    if isinstance(given, bool) or not isinstance(given, int):
        raise ConfigurationError(f"{who}: seed={given!r} must be a whole number, or None to draw one")
    return given
