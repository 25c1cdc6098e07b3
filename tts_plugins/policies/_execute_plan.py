"""Executes a plan: sample, look at the difficulty, and go on as the bin's choice says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tts_plugins.errors import OVER
from tts_plugins.policies._resumed_run import Resumed, SeededRun, satisfied
from tts_plugins.policies.plan import Plan
from tts_plugins.protocols import Run, StopRule
from tts_plugins.stopping import should_stop
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency
from tts_plugins.types import Problem, Scored

Sampling = BestOfN | SelfConsistency


async def follow(run: Run, problem: Problem, plan: Plan) -> Scored:
    """Sample to each stage with the strategy chosen before it, then continue with the last choice."""
    current, seen = plan.fixed, list[Scored]()
    for stage in plan.stages:
        if not isinstance(current, BestOfN | SelfConsistency) or current.n < stage.count:
            break
        if current.n == stage.count and (current is not plan.fixed or current.stop is not None):
            break  # later strategies are not looked at once their samples are complete
        if await _advance(run, problem, current, seen, stage.count):
            break  # its rule has stopped, or no more samples can be had
        place = stage.difficulty(seen)
        chosen = None if place is None else stage.choices[place]
        run.note("difficulty", seen=len(seen), bin=place, bins=stage.difficulty.bins, chosen=repr(chosen or current))
        if chosen is not None and not isinstance(chosen, BestOfN | SelfConsistency):
            return await _search(run, problem, chosen, current, seen)
        current = chosen or current
    return await current(SeededRun(run, seen), problem)


async def _search(run: Run, problem: Problem, chosen: BaseStrategy, before: Sampling, seen: Sequence[Scored]) -> Scored:
    """Run a step search or a revision; if it finds no whole solution, choose among the probe's samples."""
    whole = [c for c in seen if not c.truncated]
    try:
        found = await chosen(SeededRun(run, seen), problem)
        if not (found.truncated and whole):
            return found
    except OVER as error:
        if not whole:
            raise
        run.note("search_ended", error=f"{type(error).__name__}: {error}")
    return await _among(run, problem, before, whole)


async def _among(run: Run, problem: Problem, before: Sampling, seen: Sequence[Scored]) -> Scored:
    """Choose among the samples as the strategy that asked for them does."""
    return await replace(before, n=len(seen), stop=None, wave=None)(SeededRun(run, seen), problem)


async def _advance(run: Run, problem: Problem, current: Sampling, seen: list[Scored], to: int) -> bool:
    """Sample into `seen` until it has `to`; return whether the strategy ended before."""
    if satisfied(current.stop, seen, current.n):
        return True  # the new choice would have stopped already
    rule: StopRule | None = None if current.stop is None else Resumed(current.stop, seen, after=current.n - to)
    before = list(seen)
    try:
        async for candidate in run.sample(problem, to - len(seen), stop=rule, wave=current.wave):
            seen.append(candidate)  # noqa: PERF401 - those that came before an error count
    except OVER as error:
        if not seen:
            raise
        run.note("search_ended", error=f"{type(error).__name__}: {error}")
    seen[len(before) :] = sorted(seen[len(before) :], key=lambda c: c.index)
    return len(seen) < to or should_stop(current.stop, seen, current.n - to)
