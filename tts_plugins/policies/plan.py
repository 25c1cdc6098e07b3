"""The plan for one budget: a strategy for all problems, and the stages where bins of difficulty depart from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies._base import Part, check_kinds, check_list
from tts_plugins.policies.abstention import Abstention
from tts_plugins.policies.difficulty import Difficulty
from tts_plugins.policies.ladder import Ladder
from tts_plugins.strategies import BaseStrategy

Interval = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Expected(Part):
    """Expected figures of a strategy for one problem, each with its 95 % interval over problems (value, low, high).

    Attributes:
        accuracy: share of right answers; samples, tokens: paid for, a problem. A token of the larger model counts as
            many of the smaller one's as was given to the fit.
        rounds: requests that wait for each other, so that their times add up; None where that is not known.
    """

    accuracy: Interval
    samples: Interval
    tokens: Interval
    rounds: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Compared(Part):
    """A plan beside another strategy on the same problems, paired; each with its 95 % interval.

    Attributes:
        accuracy: the plan's less the other's.
        tokens: the other's divided by the plan's.
    """

    accuracy: Interval
    tokens: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Alternative(Part):
    """What else would do: the cheapest strategy in other waves, with its figures."""

    strategy: BaseStrategy
    expected: Expected


@dataclass(frozen=True, kw_only=True)
class Stage(Part):
    """A look at the difficulty, after `count` samples.

    Args:
        count: samples of the probe, which the strategy that follows uses.
        difficulty: how ease is predicted from them, and its bins.
        choices: for each bin, the easiest first: a strategy to go on with; None goes on as before.

    Raises:
        ConfigurationError: not one choice for each bin.
    """

    count: int
    difficulty: Difficulty
    choices: tuple[BaseStrategy | None, ...]

    def __post_init__(self) -> None:
        check_count("Stage", "count", self.count)
        object.__setattr__(self, "choices", tuple(self.choices))
        super().__post_init__()
        if len(self.choices) != self.difficulty.bins:
            raise ConfigurationError(
                f"Stage: {len(self.choices)} choices for {self.difficulty.bins} bins; give one for each, or None"
            )


@dataclass(frozen=True, kw_only=True)
class Plan(Part):
    """The plan for one budget.

    Args:
        budget: samples a problem at most, of both models together.
        price: of a token in accuracy, by which bins were chosen.
        fixed: the strategy that is best for all problems, with which every run begins; a `Ladder` may ask others.
        stages: where bins of difficulty depart from it, by rising count; empty if that gained nothing.
        expected, expected_fixed, expected_full, expected_one: figures of the plan, of `fixed` alone, of all samples
            without a stop rule, and of one sample, on problems that were held out of the fit.
        over_full, over_fixed: the plan beside all samples, and beside `fixed` alone.
        target, lost_at_most: the most accuracy to lose that was asked for, and the bound that the plan passed.
        others: the cheapest that does as well in other waves.
        notes: what to know before it is trusted.
        abstain: how sure its answers have to be, if it was calibrated with `abstain_risk`.

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
    expected_one: Expected | None = None
    over_full: Compared | None = None
    over_fixed: Compared | None = None
    target: float | None = None
    lost_at_most: float | None = None
    others: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()
    abstain: Abstention | None = None

    def __post_init__(self) -> None:
        check_count("Plan", "budget", self.budget)
        for name in ("stages", "others", "notes"):
            check_list("Plan", name, getattr(self, name))
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        counts = [stage.count for stage in self.stages]
        if counts != sorted(set(counts)):
            raise ConfigurationError(f"Plan: stages after {counts} samples; their counts have to rise")
        if counts and counts[-1] >= self.budget:
            raise ConfigurationError(
                f"Plan: budget={self.budget} leaves nothing to choose after the probe's {counts[-1]} samples; "
                "raise the budget, or probe less"
            )

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that it may ask besides the run's own."""
        return self.fixed.names if isinstance(self.fixed, Ladder) else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Outcomes of a strategy that cannot be replayed on recorded samples, such as a step search or a revision.

    Attributes:
        strategy: the strategy, configured as it is to run.
        right, samples, tokens: the share of right answers and the mean cost, by problem id. A probe before it is
            charged in addition.

    Raises:
        ConfigurationError: a field is of another kind, or a figure is out of range.
    """

    strategy: BaseStrategy
    right: Mapping[str, float]
    samples: Mapping[str, float]
    tokens: Mapping[str, float]

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, most in (("right", 1.0), ("samples", math.inf), ("tokens", math.inf)):
            for problem, value in getattr(self, name).items():
                if not 0 <= _figure(value) <= most:
                    end = "from 0 to 1" if name == "right" else "from 0"
                    raise ConfigurationError(f"Measured: {name}[{problem!r}]={value!r:.80} must be a number {end}")


def _figure(value: Any) -> float:
    """Return a number, also one of another library's; NaN for anything else. A grade may be a yes or a no."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
