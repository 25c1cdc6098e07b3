"""Self-consistency: independent samples, and the most frequent answer (Wang et al. 2022, 2203.11171)."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from tts_plugins._internal.config import check_count
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.stopping import Rule, ShippedRule, rule_for
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._choice import chosen
from tts_plugins.types import Problem, Scored


@dataclass(frozen=True, kw_only=True)
class SelfConsistency(BaseStrategy):
    """`n` samples; the first one of the most frequent answer. No verifier is needed.

    Args:
        n: samples at most.
        stop: a rule from `tts_plugins.stopping`, such as `VoteDecided()`, that may end it early; "careful",
            "balanced" or "bold" takes the one that is shipped for `n`.
        wave: samples sent at once while a rule is watching; by default as many as the rule needs, then
            doubling; under a `FadingLead`, such as "balanced", always as many as it needs.

    Raises:
        ConfigurationError: a field is out of range.
    """

    n: int = 16
    stop: Rule | None = None
    wave: int | None = None

    if TYPE_CHECKING:  # a shipped rule is given by its name, and kept as the rule that it is

        def __init__(self, *, n: int = 16, stop: Rule | ShippedRule | None = None, wave: int | None = None) -> None: ...

    def __post_init__(self) -> None:
        check_count("SelfConsistency", "n", self.n)
        if self.wave is not None:
            check_count("SelfConsistency", "wave", self.wave)
        if self.stop is not None:
            object.__setattr__(self, "stop", rule_for("SelfConsistency", self.stop, self.n, "majority"))

    @property
    def needs_scores(self) -> bool:
        """Whether its stop rule goes by scores; votes do not."""
        return isinstance(self.stop, Rule) and self.stop.needs_scores

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it requests, if none fails."""
        return (self.n if self.stop is None else min(self.n, self.stop.least((), self.n)), self.n)

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if run.verifier is None and isinstance(self.stop, Rule) and self.stop.needs_scores:
            raise ConfigurationError(
                f"SelfConsistency: stop={self.stop!r} goes by scores, and there is no verifier to give them; "
                "pass verifier=…, or a rule by votes such as VoteLead(3)"
            )
        candidates = list[Scored]()
        async for candidate in run.sample(problem, self.n, stop=self.stop, wave=self.wave):
            candidates.append(candidate)
        return chosen(run, sorted(candidates, key=attrgetter("index")), "majority", self.stop)
