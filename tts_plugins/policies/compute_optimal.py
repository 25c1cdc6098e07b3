"""The compute-optimal choice at run time: strategy by difficulty and budget (Snell et al. 2024, 2408.03314)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from tts_plugins._config import check_count, check_flag
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import _files
from tts_plugins.policies._part import Part
from tts_plugins.policies._seeded import OVER, Resumed, SeededRun, satisfied
from tts_plugins.policies.difficulty import Difficulty
from tts_plugins.protocols import Model, Run, SetVerifier, StopRule, Verifier
from tts_plugins.selection import Aggregate
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency
from tts_plugins.types import Problem, Scored

FORMAT, VERSION = "tts-policy", 1
Interval = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Expected(Part):
    """What is expected of a problem, each with its 95 % interval (value, low, high) over problems.

    Attributes:
        accuracy: share of right answers; samples, tokens: paid for, a problem.
    """

    accuracy: Interval
    samples: Interval
    tokens: Interval


@dataclass(frozen=True, kw_only=True)
class Stage(Part):
    """A look at the difficulty, after `count` samples.

    Args:
        count: samples that are looked at: a probe, which the strategy that follows uses.
        difficulty: how they are looked at.
        choices: what to go on with, for each bin, the easiest first; None goes on as before.

    Raises:
        ConfigurationError: not one choice for each bin.
    """

    count: int
    difficulty: Difficulty
    choices: tuple[BaseStrategy | None, ...]

    def __post_init__(self) -> None:
        check_count("Stage", "count", self.count)
        object.__setattr__(self, "choices", tuple(self.choices))
        if len(self.choices) != self.difficulty.bins:
            raise ConfigurationError(
                f"Stage: {len(self.choices)} choices for {self.difficulty.bins} bins; give one for each, or None"
            )


@dataclass(frozen=True, kw_only=True)
class Plan(Part):
    """What to do at one budget.

    Args:
        budget: samples a problem at most.
        price: of a token in accuracy, by which bins were chosen.
        fixed: the strategy that is best for all problems alike, and with which every run begins.
        stages: where bins of difficulty part from it, by rising count; none where that was no gain.
        expected, expected_fixed, expected_full: of the plan, of `fixed`, and of all `budget` samples without a stop
            rule, on problems that the fit had not seen.
        gain: accuracy over `fixed`; saved: tokens of `fixed` over the plan's; both paired.

    Raises:
        ConfigurationError: stages that do not rise, or do not fit into the budget.
    """

    budget: int
    fixed: BaseStrategy
    price: float = 0.0
    stages: tuple[Stage, ...] = ()
    expected: Expected | None = None
    expected_fixed: Expected | None = None
    expected_full: Expected | None = None
    gain: Interval | None = None
    saved: Interval | None = None

    def __post_init__(self) -> None:
        check_count("Plan", "budget", self.budget)
        object.__setattr__(self, "stages", tuple(self.stages))
        counts = [stage.count for stage in self.stages]
        if counts != sorted(set(counts)):
            raise ConfigurationError(f"Plan: stages after {counts} samples; their counts have to rise")
        if counts and counts[-1] >= self.budget:
            raise ConfigurationError(
                f"Plan: budget={self.budget} leaves nothing to choose after the probe's {counts[-1]} samples; "
                "raise the budget, or probe less"
            )


@dataclass(frozen=True, kw_only=True, repr=False)
class ComputeOptimal(BaseStrategy):
    """Begins with the strategy that is best for all, looks at the first samples, and goes on as their bin wants.

    Every sample of the probe is used by the strategy that follows, and is paid for once. Where no bin gained anything
    over the best fixed strategy when it was fitted, that one runs and nothing is probed. Make one with
    `policies.calibrate`, or read one with `from_file`.

    Args:
        plans: one for each budget, by rising budget. The largest that the run's own budget is sure to pay for is
            followed, else the smallest, without its probe.
        budget: samples a problem at most; the largest plan's where left out.
        model, verifier: whose samples and scores it was fitted to; None for any.
        any_model, any_verifier: run with others all the same.
        scores: low, middle and high (1 %, 50 %, 99 %) of the scores of the fit, for `check_scores`.
        aggregate: how step scores became one in the fit; None where they were no step scores.
        version: of the file format.

    Raises:
        ConfigurationError: no plans, a budget below the smallest plan or its probe, another version; at the call,
            another model or verifier, or a verifier that scores sets, whose scores of a probe mean nothing later.
    """

    plans: tuple[Plan, ...]
    budget: int | None = None
    model: str | None = None
    verifier: str | None = None
    any_model: bool = False
    any_verifier: bool = False
    scores: Interval | None = None
    aggregate: Aggregate | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigurationError(
                f"ComputeOptimal: version={self.version!r} is not {VERSION}, which this release reads; calibrate again"
            )
        object.__setattr__(self, "plans", tuple(self.plans))
        for name in ("any_model", "any_verifier"):
            check_flag("ComputeOptimal", name, getattr(self, name))
        budgets = [plan.budget for plan in self.plans]
        if not budgets or budgets != sorted(set(budgets)):
            raise ConfigurationError(
                f"ComputeOptimal: plans for budgets {budgets}; give at least one, by rising budget"
            )
        if self.budget is None:
            return
        check_count("ComputeOptimal", "budget", self.budget)
        if self.budget < budgets[0]:
            first = self.plans[0].stages
            probe = f" (its probe alone takes {first[0].count})" if first else ""
            raise ConfigurationError(
                f"ComputeOptimal: budget={self.budget} is below {budgets[0]}, the smallest that was calibrated{probe}; "
                f"raise it, or calibrate with budgets=({self.budget}, …)"
            )

    def __repr__(self) -> str:
        return f"ComputeOptimal(budgets={[p.budget for p in self.plans]}, budget={self.budget}, model={self.model!r})"

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, model: Model | str | None = None,
        verifier: Verifier | SetVerifier | str | None = None, budget: int | None = None, any_model: bool = False,
        any_verifier: bool = False,
    ) -> Self:  # fmt: skip
        """The policy in a file that `save` wrote.

        Args:
            model, verifier: those that it is to run with; a policy of others is refused, here or at the call.
            budget: samples a problem at most.
            any_model, any_verifier: take it all the same.

        Raises:
            DataError: it is no policy, or of another version: names the file and the field.
            ConfigurationError: it was fitted to another model or verifier, or the budget is too small.
        """
        made = _files.read(path, FORMAT, cls, "policy")
        made = replace(
            made, budget=made.budget if budget is None else budget, any_model=any_model, any_verifier=any_verifier
        )
        made._check_names(
            model if isinstance(model, str) else getattr(model, "name", None),
            verifier if isinstance(verifier, str) else getattr(verifier, "name", None),
        )
        return made

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        _files.write(path, FORMAT, self)

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that whole-answer strategies ask for."""
        return 1, self._cap

    def check_scores(self, scores: Sequence[float]) -> None:
        """Hold some scores of a verifier against the scale that the policy was fitted to.

        Raises:
            ConfigurationError: their median lies outside of all but 1 % of the fit's scores on either side.
        """
        if self.scores is None or not scores:
            return
        middle = sorted(scores)[len(scores) // 2]
        low, _, high = self.scores
        if not low <= middle <= high:
            raise ConfigurationError(
                f"ComputeOptimal: scores around {middle:.3g} are on another scale than those of the fit, {low:.3g} to "
                f"{high:.3g}; calibrate on a pool of this verifier's scores, or fit it a verifiers.Calibrated"
            )

    @property
    def _cap(self) -> int:
        return self.plans[-1].budget if self.budget is None else self.budget

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        self._check_names(run.model.name, None if run.verifier is None else run.verifier.name)
        self._check_aggregate(getattr(run.verifier, "aggregate", None))
        room = await run.room(problem, self._cap)
        fitting = [plan for plan in self.plans if plan.budget <= room]
        plan = fitting[-1] if fitting else replace(self.plans[0], stages=())
        run.note("plan", budget=plan.budget, room=room, fixed=repr(plan.fixed), stages=len(plan.stages))
        if plan.stages and isinstance(run.verifier, SetVerifier):
            raise ConfigurationError(
                f"ComputeOptimal: {run.verifier.name} scores candidates against each other, and the probe's scores "
                "would mean something else later; use one that scores one at a time, or the plan's fixed strategy"
            )
        return await _follow(run, problem, plan)

    def _check_names(self, model: str | None, verifier: str | None) -> None:
        given = (("model", self.model, model, self.any_model), ("verifier", self.verifier, verifier, self.any_verifier))
        for kind, mine, theirs, told in given:
            # A replay of a model's samples stands for the model.
            if told or mine is None or theirs is None or theirs.removeprefix("replay of ") == mine:
                continue
            raise ConfigurationError(
                f"ComputeOptimal: it was fitted to {kind} {mine!r}, and runs with {theirs!r}; calibrate on a pool of "
                f"that one, or say any_{kind}=True"
            )

    def _check_aggregate(self, theirs: object) -> None:
        if not self.any_verifier and self.aggregate is not None and theirs not in (None, self.aggregate):
            raise ConfigurationError(
                f"ComputeOptimal: it was fitted to the {self.aggregate!r} of step scores, and the verifier takes "
                f"{theirs!r}; give the verifier aggregate={self.aggregate!r}, or say any_verifier=True"
            )


async def _follow(run: Run, problem: Problem, plan: Plan) -> Scored:
    """Sample to each stage under what was chosen before it; then go on with the last choice, from those samples."""
    current, seen = plan.fixed, list[Scored]()
    for stage in plan.stages:
        if not isinstance(current, BestOfN | SelfConsistency) or current.n <= stage.count:
            break
        if await _advance(run, problem, current, seen, stage.count):
            break  # its rule wants no more, or no more can be had
        place = stage.difficulty(seen)
        chosen = None if place is None else stage.choices[place]
        run.note("difficulty", seen=len(seen), bin=place, bins=stage.difficulty.bins, chosen=repr(chosen or current))
        current = chosen or current
    return await current(SeededRun(run, seen), problem)


async def _advance(run: Run, problem: Problem, current: BestOfN | SelfConsistency, seen: list[Scored], to: int) -> bool:
    """Sample until there are `to`, into `seen`; whether it ended before."""
    if satisfied(current.stop, seen, current.n):
        return True  # what was just chosen would have stopped already
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
    return len(seen) < to or (current.stop is not None and current.stop(seen, current.n - to))
