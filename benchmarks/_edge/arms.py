"""The ways in which each problem is solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tts_plugins import BestOfN, Ladder, Revision, Scored, SelfConsistency
from tts_plugins.policies import Rung
from tts_plugins.stopping import Rule, Threshold

Size = Literal["small", "large"]


@dataclass(frozen=True, kw_only=True)
class PassOrGiveUp(Rule):
    """Stop at the first sample that passes, and give up once the best score has not risen for `patience` samples."""

    patience: int = 4
    needs_scores = True

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        """Whether to stop."""
        scores = [c.score or 0.0 for c in seen]
        return max(scores) >= 1.0 or len(scores) - scores.index(max(scores)) > self.patience

    def least(self, seen: Sequence[Scored], left: int) -> int:
        """One more sample may pass."""
        return min(1, left)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to solve.

    Attributes:
        checked: whether the program that checks is the verifier; else answers vote, or the only one stands.
        make: the strategy, from the larger model (greedy) and the small one (sampled).
    """

    name: str
    size: Size
    make: Callable[[Any, Any], Any]
    greedy: bool = False
    checked: bool = False

    def strategy(self, large: Any, sampled: Any, checkable: bool) -> Any:
        """The strategy; where a problem has nothing to check by, samples vote instead."""
        if checkable or not self.checked:
            return self.make(large, sampled)
        return Ladder([Rung(strategy=SelfConsistency(n=4), model=sampled if self.greedy else None)])


def _one(*_: Any) -> Any:
    return SelfConsistency(n=1)


def _first(n: int) -> Callable[[Any, Any], Any]:
    return lambda *_: BestOfN(n=n, stop=Threshold(1.0))


def _greedy_first(_: Any, sampled: Any) -> Any:
    return _until_passed(BestOfN(n=1), Rung(strategy=BestOfN(n=15, stop=Threshold(1.0)), model=sampled))


def _all_of_it(_: Any, sampled: Any) -> Any:
    """Greedy, revised once on what the check says, then samples until one passes or no sample gets better."""
    first = Revision(chains=1, rounds=2, select="best", stop=Threshold(1.0))
    return _until_passed(first, Rung(strategy=BestOfN(n=14, stop=PassOrGiveUp(patience=6)), model=sampled))


def _handed_on(large: Any, _: Any) -> Any:
    return _until_passed(BestOfN(n=4, stop=Threshold(1.0)), Rung(strategy=BestOfN(n=1), model=large))


def _until_passed(*rungs: Any) -> Ladder:
    return Ladder(rungs, signal="confidence", enough=1.0)


ARMS: tuple[Arm, ...] = (
    Arm(name="large, greedy", size="large", make=_one, greedy=True),
    Arm(name="large, one sample", size="large", make=_one),
    Arm(name="small, greedy", size="small", make=_one, greedy=True),
    Arm(name="small, one sample", size="small", make=_one),
    Arm(name="small, vote of 4", size="small", make=lambda *_: SelfConsistency(n=4)),
    Arm(name="small, first of 4 that passes", size="small", make=_first(4), checked=True),
    Arm(name="small, first of 16", size="small", make=_first(16), checked=True),
    Arm(name="small, first of 16, gives up", size="small", checked=True,
        make=lambda *_: BestOfN(n=16, stop=PassOrGiveUp(patience=4))),
    Arm(name="small, revises up to 4 times", size="small", checked=True,
        make=lambda *_: Revision(chains=1, rounds=4, select="best", stop=Threshold(1.0))),
    Arm(name="small, greedy, then first of 15", size="small", make=_greedy_first, greedy=True, checked=True),
    Arm(name="small, greedy, revised, then first of 14, gives up", size="small", make=_all_of_it, greedy=True,
        checked=True),
    Arm(name="small, first of 4, then large", size="small", make=_handed_on, checked=True),
)  # fmt: skip
