"""Compares a small model with test-time compute to a larger model's single answer at equal FLOPs. Pure.

Source: Snell, Lee, Xu & Kumar 2024 (2408.03314), section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from tts_plugins.bench.analysis import flops
from tts_plugins.bench.analysis.arm import Arm, Costs
from tts_plugins.bench.analysis.summary import Summary
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.metrics import Estimate, clustered_bootstrap, paired_bootstrap
from tts_plugins.pools import Pool

# R = D_inference / D_pretraining of the paper's figures; None counts inference alone.
SHARES: Sequence[float | None] = (None, 22.0, 0.79, 0.16)


@dataclass(frozen=True, kw_only=True)
class Larger:
    """A larger model's single answers.

    Attributes:
        correct: for each problem, the grades of its answers; each counts as one attempt at a single answer.
        tokens: of one answer, the mean over problems.
        prompts: whether these include its prompt's; None where that is not known.
    """

    name: str
    parameters: float
    correct: Mapping[str, Sequence[float]]
    tokens: float
    prompts: bool | None = None

    @classmethod
    def of_pool(cls, pool: Pool, parameters: float) -> Larger:
        """Read a larger model's answers from recorded samples.

        Raises:
            DataError: an answer was not graded or its tokens were not counted; or some prompts were counted and some
                were not.
        """
        correct: dict[str, list[float]] = {}
        tokens: list[float] = []
        for p in pool.problems:
            for i, c in enumerate(p.candidates):
                if c.correct is None or c.counted is None:
                    name = "correct" if c.correct is None else "tokens"
                    found = "is 0, though it says something" if c.tokens == 0 and name == "tokens" else "is null"
                    where = f"pool of {pool.header.model}, problem {p.id!r}, candidates[{i}]"
                    raise DataError(f"{where}, {name}: {found}")
                correct.setdefault(p.id, []).append(float(c.correct))
            if p.candidates:
                tokens.append(mean(c.tokens or 0 for c in p.candidates) + (p.prompt_tokens or 0))
        prompts = {bool(p.prompt_tokens) for p in pool.problems if p.candidates}
        if len(prompts) != 1:
            raise DataError(f"pool of {pool.header.model}: prompt_tokens are known of some problems only, not of all")
        return cls(
            name=pool.header.model, parameters=parameters, correct=correct, tokens=mean(tokens), prompts=prompts.pop()
        )

    @classmethod
    def of_arm(cls, arm: Arm, name: str, parameters: float) -> Larger:
        """Read a larger model's answers from a benchmark of its own, such as one greedy answer.

        Raises:
            DataError: tokens of some answers are not known.
        """
        arm.check_known()
        return cls(name=name, parameters=parameters, correct=arm.rights, tokens=arm.tokens.value, prompts=arm.prompts)

    @property
    def flops(self) -> float:
        """FLOPs of one answer."""
        return flops.inference(self.parameters, self.tokens)


@dataclass(frozen=True, kw_only=True)
class Match:
    """The best arm within a larger model's FLOPs.

    Attributes:
        share: R = D_inference / D_pretraining; None if only inference counts.
        allowed: FLOPs that the small model may spend on one problem.
        arm: the most accurate arm within them; None if even the cheapest costs more.
        accuracy, larger: the accuracy of the arm and of the larger model on the problems that both have.
        difference: between the two, paired.
    """

    share: float | None
    allowed: float
    arm: str | None = None
    flops: float | None = None
    accuracy: Estimate | None = None
    larger: Estimate | None = None
    difference: Estimate | None = None


def matches(summary: Summary, costs: Costs, larger: Larger) -> list[Match]:
    """Return, for each ratio of inference to pretraining, the best arm at the larger model's total FLOPs.

    With pretraining counted, the small model may multiply the larger one's tokens by M + 3 / R (M - 1); with inference
    alone, by M. The arm is chosen and measured on the same problems, which favours it a little if there are many arms.

    Raises:
        ConfigurationError: the larger model is the smaller one.
        DataError: they have no problem in common, or the prompts of one only were counted.
    """
    times = larger.parameters / costs.parameters
    if times < 1:
        raise ConfigurationError(
            f"larger-params={larger.parameters:g} is below params={costs.parameters:g}; swap the two models"
        )
    for arm in summary.arms:
        if larger.prompts is not None and arm.prompts != larger.prompts:
            one, other = (larger.name, arm.name) if larger.prompts else (arm.name, larger.name)
            raise DataError(
                f"{one}: its tokens include those of prompts, and those of {other} do not, since its pool has null for "
                "prompt_tokens, which means unknown and not 0; record it again, or leave prompt_tokens out of both"
            )
    return [_match(summary, costs, larger, share, times) for share in SHARES]


def _match(summary: Summary, costs: Costs, larger: Larger, share: float | None, times: float) -> Match:
    factor = times if share is None else flops.exchange(times, share)
    allowed = flops.inference(costs.parameters, factor * larger.tokens)
    spent = [(arm, arm.flops(costs).value) for arm in summary.arms if arm.accuracy is not None]
    fitting = [(arm, used) for arm, used in spent if used <= allowed]
    if not fitting:
        return Match(share=share, allowed=allowed)
    arm, used = max(fitting, key=lambda pair: (0.0 if pair[0].accuracy is None else pair[0].accuracy.value, -pair[1]))
    shared = [p for p in arm.rights if p in larger.correct]
    if not shared:
        raise DataError(f"{larger.name} and this benchmark have no problem in common: their ids differ")
    mine = [arm.rights[p] for p in shared]
    theirs = [larger.correct[p] for p in shared]
    return Match(
        share=share, allowed=allowed, arm=arm.name, flops=used, accuracy=clustered_bootstrap(mine),
        larger=clustered_bootstrap(theirs), difference=paired_bootstrap(mine, theirs),
    )  # fmt: skip
