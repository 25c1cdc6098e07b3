"""Entry points: solve one problem, or many, with a strategy and within a budget."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Unpack

from tts_plugins._calls.context import SCOPE
from tts_plugins._calls.running_solves import running_loop
from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins._internal.config import check_count
from tts_plugins._internal.signatures import called_as, check_names
from tts_plugins._trace.recorder import Event
from tts_plugins.answers import extract, prepare
from tts_plugins.budget import Budget
from tts_plugins.engine._lifecycle import Settings, Solving
from tts_plugins.errors import ConfigurationError, UnknownSettingError
from tts_plugins.ledger import Ledger
from tts_plugins.options import PROFILE_VARIABLE, SolveOptions, check_common
from tts_plugins.protocols import SetVerifier, Verifier, is_model, is_set_verifier, is_verifier
from tts_plugins.strategies import BestOfN, SelfConsistency
from tts_plugins.strategies.abstaining import Abstaining
from tts_plugins.types import Problem, Result

_drawing = random.SystemRandom()


@called_as("solve(problem, model=model, budget=Budget(calls=32))")
async def solve(problem: object, **options: Unpack[SolveOptions]) -> Result:
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
        profile: a named bundle that gives what is not set here, see `tts_plugins.profiles`; where it is left out, the
            one that the environment variable TTS_PLUGINS_PROFILE names, unless this is inside of another solve. None
            takes none.
        attempts: attempts for each request, the first included. The wait between them honours Retry-After; without a
            deadline, at most 120 s.
        abstain_below: the least confidence with which the question is answered, from 0 to 1; see `Result.confidence`.
            None takes the threshold of a policy that was calibrated with `abstain_risk`, else answers always.
        on_abstain: below it, give a result without an answer ("none"), raise `LowConfidence` ("raise"), or ask what
            `escalate` says, within the same budget ("escalate"). What comes of that is held to the same threshold,
            but for a single answer of another model, of which nothing says how sure it is.
        escalate: a larger model, which is asked once; a strategy; or an `Escalation` of both.
        listener: a function that is called on the solve's loop with every trace event, when it starts and when it ends,
            and once more when something is added to it, such as `pruned` to a candidate.

    Returns:
        The chosen candidate, all that were seen, the usage, why it stopped, and the trace.

    Raises:
        ConfigurationError: a setting is wrong, or a limit cannot hold over this model.
        BudgetExhausted: the budget has no room for a single candidate.
        DeadlineExceeded: the time was up before there was a single candidate.
        TTSError: the strategy returned no candidate, or cancelled itself.
        ModelError: no candidate can succeed: a wrong key, an unknown model.
        AllCandidatesFailed: every candidate failed; the first cause is its `__cause__`.
        LowConfidence: the choice is not sure enough, and `on_abstain` is "raise".
    """
    made = solving(problem, options)
    del problem, options  # of thousands in flight, none need keep them
    return await made.run()


def solving(problem: object, options: SolveOptions) -> Solving:
    """Return what `solve` runs, for callers whose arguments are known to fit."""
    return Solving(Problem.of(problem), settings_of(options))


@called_as("solve_sync(problem, model=model, budget=Budget(calls=32))")
def solve_sync(problem: object, **options: Unpack[SolveOptions]) -> Result:
    """Call `solve` from synchronous code: on any thread, and inside a running event loop too, as in a notebook."""
    return run_sync(lambda: solve(problem, **options))


class SolveEvents:
    """The events of a solve while it runs: `async for event in solve_events(...)`; then `result`.

    Leaving the loop early leaves the solve running: `cancel()` ends it with the best answer so far.
    """

    def __init__(self, problem: object, **options: Unpack[SolveOptions]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        settings = settings_of(options)
        self._listener = settings.listener
        self._solve = Solving(Problem.of(problem), replace(settings, listener=self._heard))
        self._task: asyncio.Task[Result] | None = None
        self._cancelled = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        task = self._start()
        while (event := await self._queue.get()) is not None:
            yield event
        self._queue.put_nowait(None)  # for other iterators
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
        self._cancelled = True

    def _heard(self, event: Event) -> None:
        self._queue.put_nowait(event)
        if self._listener is not None:
            self._listener(event)

    def _start(self) -> asyncio.Task[Result]:
        if self._task is None:
            self._task = running_loop().create_task(self._solve.run())
            self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._queue.put_nowait(None)
        if self._cancelled and not task.cancelled():
            task.exception()  # looked at: asyncio need not complain if nobody else asks what came of it


@called_as("solve_events(problem, model=model)")
def solve_events(problem: object, **options: Unpack[SolveOptions]) -> SolveEvents:
    """Solve, and watch it: an asynchronous iterable over the trace's events, whose `result` is the outcome.

    An event appears when it starts (`end` is None) and again when it ends, with the same `id`; a candidate appears once
    more, with `pruned`, when the search drops it. `solve` says what the options mean.
    """
    return SolveEvents(problem, **options)


def settings_of(options: SolveOptions) -> Settings:
    """Check the options, and fill them from the profile and with the defaults."""
    if "n" in options:
        raise UnknownSettingError("solve: 'n' is a setting of the strategy; write strategy=BestOfN(n=8)")
    check_names("solve", options, SolveOptions.__annotations__)
    check_common("solve", options)
    whole = filled(options, profile_of(options))
    model, strategy = whole.get("model"), whole.get("strategy")
    if not is_model(model):
        raise ConfigurationError(
            f"solve: model={model!r} must be a model; wrap a function with CallableModel(function)"
        )
    verifier = _verifier(whole.get("verifier"))
    if strategy is None:
        strategy = SelfConsistency(n=8) if verifier is None else BestOfN(n=8)
    elif isinstance(strategy, type) or not callable(strategy):
        raise ConfigurationError(
            f"solve: strategy={strategy!r} must be a strategy; pass an object such as BestOfN(n=8)"
        )
    given = {**whole, "strategy": strategy, "verifier": verifier, "seed": seed_or_drawn(whole.get("seed"))}
    given["abstaining"] = Abstaining.of(
        "solve", whole.get("abstain_below"), whole.get("on_abstain", "none"), whole.get("escalate"), strategy
    )
    made = Settings(**given)
    if made.budget is not None and not isinstance(made.budget, Budget | Ledger):
        raise ConfigurationError(
            f"solve: budget={made.budget!r} is neither a Budget nor a Ledger; pass Budget(calls=32)"
        )
    if not callable(made.answer):
        raise ConfigurationError(
            f"solve: answer={made.answer!r} cannot be called; pass a function of a candidate's text"
        )
    check_count("solve", "attempts", made.attempts)
    if made.listener is not None and not callable(made.listener):
        raise ConfigurationError(f"solve: listener={made.listener!r} cannot be called; pass a function of one event")
    if made.answer is extract:
        prepare()
    return made


def profile_of(options: Mapping[str, Any]) -> str | None:
    """Return the name of the profile: the one that is given, else the environment's default."""
    name = options["profile"] if "profile" in options else default_profile()
    return name or None


def default_profile() -> str | None:
    """Return the profile that the environment names, if it does.

    It is for what an application asks. What a verifier, a model or a strategy solves inside of that is part of that
    search: the profile's own verifier would else call itself without end.
    """
    return (os.environ.get(PROFILE_VARIABLE) or None) if SCOPE.get() is None else None


def filled(options: Mapping[str, Any], profile: str | None) -> dict[str, Any]:
    """Return the options, and what they leave out as the profile of that name has it."""
    given = {name: value for name, value in options.items() if name != "profile"}
    if profile is None:
        return given
    from tts_plugins.profiles import load_profile  # with all that its verifiers need

    lacking = load_profile(profile).settings()
    return {**lacking, **{key: value for key, value in given.items() if value is not None or key not in lacking}}


def _verifier(given: Any) -> Verifier | SetVerifier | None:
    if given is None or ((is_verifier(given) or is_set_verifier(given)) and not isinstance(given, type)):
        return given
    from tts_plugins.verifiers.callable import as_verifier  # with all of its package, for functions alone

    return as_verifier("solve", given)


def seed_or_drawn(given: int | None) -> int:
    """Return the seed, or draw one: from the enclosing solve's if there is one."""
    if given is None:
        outer = SCOPE.get()
        return _drawing.getrandbits(31) if outer is None else outer.next_seed()
    return given
