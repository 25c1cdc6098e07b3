"""Best-of-N: independent samples, and the verifier's choice among them (2408.03314, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from tts_plugins._internal.config import check_count
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.stopping import Rule, ShippedRule, rule_for
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._choice import chosen
from tts_plugins.types import Problem, Scored


@dataclass(frozen=True, kw_only=True)
class BestOfN(BaseStrategy):
    """`n` samples; the best by score, or by the summed scores of equal answers.

    Args:
        n: samples at most.
        select: "best" takes the highest score; "weighted" sums scores over equal answers, takes the answer with
            the largest sum and its best candidate.
        stop: a rule from `tts_plugins.stopping` that may end it early; "careful", "balanced" or "bold" takes the one
            that is shipped for `n` and this way to choose.
        wave: samples sent at once while a rule is watching; by default as many as the rule needs, then
            doubling; under a `FadingLead`, such as "balanced", always as many as it needs.

    Raises:
        ConfigurationError: a field is out of range; at the call, there is no verifier though `n` is above 1.
    """

    n: int = 8
    select: Literal["best", "weighted"] = "best"
    stop: Rule | None = None
    wave: int | None = None

    if TYPE_CHECKING:  # a shipped rule is given by its name, and kept as the rule that it is

        def __init__(
            self,
            *,
            n: int = 8,
            select: Literal["best", "weighted"] = "best",
            stop: Rule | ShippedRule | None = None,
            wave: int | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        check_count("BestOfN", "n", self.n)
        if self.wave is not None:
            check_count("BestOfN", "wave", self.wave)
        if self.select not in ("best", "weighted"):
            raise ConfigurationError(f"BestOfN: select={self.select!r} is not known; use 'best' or 'weighted'")
        if self.stop is not None:
            object.__setattr__(self, "stop", rule_for("BestOfN", self.stop, self.n, self.select))

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it requests, if none fails."""
        return (self.n if self.stop is None else min(self.n, self.stop.least((), self.n)), self.n)

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if run.verifier is None and self.n > 1:
            raise ConfigurationError(
                f"BestOfN: n={self.n} needs a verifier to choose by; pass verifier=…, or use SelfConsistency"
            )
        candidates = list[Scored]()
        async for candidate in run.sample(problem, self.n, stop=self.stop, wave=self.wave):
            candidates.append(candidate)
        if run.verifier is None:
            return chosen(run, candidates, "majority")
        return chosen(run, sorted(candidates, key=attrgetter("index")), self.select, self.stop)
