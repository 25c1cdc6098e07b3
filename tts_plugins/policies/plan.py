"""The plan for one budget: a strategy for all problems, and the stages where bins of difficulty depart from it."""

from __future__ import annotations

from dataclasses import dataclass

from tts_plugins._internal.config import check_count, check_flag
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies._base import Part
from tts_plugins.policies.abstention import Abstention
from tts_plugins.policies.difficulty import Difficulty
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency

Interval = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Expected(Part):
    """Expected figures of a plan for one problem, each with its 95 % interval over problems (value, low, high).

    Attributes:
        accuracy: share of right answers; samples, tokens: paid for, a problem. A token of the larger model counts as
            many of the smaller one's as the fit was told.
    """

    accuracy: Interval
    samples: Interval
    tokens: Interval


@dataclass(frozen=True, kw_only=True)
class Larger(Part):
    """Asks the policy's larger model.

    If it gives nothing (budget, time, failures), the smaller model's answer is kept.

    Args:
        strategy: `BestOfN` or `SelfConsistency`, how the larger model is sampled; its `n` counts that one's samples.
        beside: choose among the samples of both, and not of the larger model alone.

    Raises:
        ConfigurationError: the strategy is another one; a second model gives whole answers only.
    """

    strategy: BaseStrategy
    beside: bool = False

    def __post_init__(self) -> None:
        check_flag("Larger", "beside", self.beside)
        if not isinstance(self.strategy, BestOfN | SelfConsistency):
            raise ConfigurationError(
                f"Larger: strategy={self.strategy!r} is neither BestOfN nor SelfConsistency; only whole answers come "
                "from a second model"
            )


@dataclass(frozen=True, kw_only=True)
class Stage(Part):
    """A look at the difficulty, after `count` samples.

    Args:
        count: samples of the probe, which the strategy that follows uses.
        difficulty: how ease is predicted from them, and its bins.
        choices: for each bin, the easiest first: a strategy or the larger model to go on with; None goes on as before.

    Raises:
        ConfigurationError: not one choice for each bin.
    """

    count: int
    difficulty: Difficulty
    choices: tuple[BaseStrategy | Larger | None, ...]

    def __post_init__(self) -> None:
        check_count("Stage", "count", self.count)
        object.__setattr__(self, "choices", tuple(self.choices))
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
        fixed: the strategy that is best for all problems, with which every run begins.
        stages: where bins of difficulty depart from it, by rising count; empty if that gained nothing.
        expected, expected_fixed, expected_full: figures of the plan, of `fixed` alone, and of all samples without a
            stop rule, on held-out problems.
        gain: the plan's accuracy above that of `fixed`, paired.
        saved: the tokens of `fixed` divided by the plan's, paired.
        abstain: how sure its answers have to be, if it was calibrated with `abstain_risk`.

    Raises:
        ConfigurationError: stages that do not rise, or do not fit into the budget.
    """

    budget: int
    fixed: BaseStrategy | Larger
    price: float = 0.0
    stages: tuple[Stage, ...] = ()
    expected: Expected | None = None
    expected_fixed: Expected | None = None
    expected_full: Expected | None = None
    gain: Interval | None = None
    saved: Interval | None = None
    abstain: Abstention | None = None

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

    @property
    def asks_larger(self) -> bool:
        """Whether the plan may ask the larger model."""
        return any(isinstance(c, Larger) for c in (self.fixed, *(c for s in self.stages for c in s.choices)))
