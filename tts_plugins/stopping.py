"""When more candidates are not worth it. Rules combine: `Threshold(0.9) | VoteLead(3)`, `a & b`.

A rule sees the candidates so far and how many may still come. It also says how many further candidates it needs
at least before it could stop: sampling starts with a wave of that size, and doubles, or goes on by what it needs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tts_plugins._internal.config import Configured, check_count, check_flag, check_share
from tts_plugins._internal.values import is_number, is_ours
from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import Ballots, Select, first_two, groups_of, with_content
from tts_plugins.types import Scored

ShippedRule = Literal["careful", "balanced", "bold"]


class Rule(Configured, ABC):
    """Base of the stop rules of this package; your own need not derive from it, see `protocols.StopRule`."""

    family: ClassVar[str] = "stopping"

    @abstractmethod
    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        """Whether to stop, with `seen` in order of arrival and at most `left` more to come."""

    def least(self, seen: Sequence[Scored], left: int) -> int:
        """The least number of further candidates after which this rule could stop."""
        return 1

    def suits(self, n: int, select: Select) -> None:
        """Raise unless the rule is made for a strategy of `n` candidates chosen by `select`; most suit all.

        Raises:
            ConfigurationError: it does not suit.
        """

    def doubts(self, model: str, verifier: object) -> Iterator[str]:
        """Say what the rule was fitted to and does not run with, for `Result.warnings`; most rules are not fitted."""
        yield from ()

    @property
    def needs_scores(self) -> bool:
        """Whether it goes by a verifier's scores, and so never stops without a verifier."""
        return False

    @property
    def wave_growth(self) -> int:
        """How many times larger a wave is than the one before, at least; 0 if `least` alone says how large it is."""
        return 2

    def __or__(self, other: Rule) -> Rule:
        """Stop as soon as one of the two says so."""
        return AnyOf(rules=(self, other))

    def __and__(self, other: Rule) -> Rule:
        """Stop when both say so at the same moment."""
        return AllOf(rules=(self, other))


_ROUNDING = 1e-9  # a lead that is the difference of two rounded sums may stand a little beside the true one


def check_rule(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a stop rule."""
    if isinstance(value, type) or not callable(value) or not callable(getattr(value, "least", None)):
        raise ConfigurationError(
            f"{owner}: {name}={value!r} is not a stop rule; use one such as Threshold(0.9), or 'careful', 'balanced' "
            "or 'bold'"
        )


def should_stop(rule: Callable[[Sequence[Scored], int], bool] | None, seen: Sequence[Scored], left: int) -> bool:
    """Return whether a rule ends a search that has seen these candidates; those that say nothing do not count."""
    return rule is not None and bool(said := with_content(seen)) and rule(said, left)


def stops(rule: Callable[[Sequence[Scored], int], bool], said: Sequence[Scored], left: int) -> bool:
    """Return the same for candidates that all say something.

    Rules of this package take `Ballots`, which are counted as they come, so that no rule counts them anew. Any other
    rule gets a list of its own instead, which it may change.
    """
    return rule(said if is_ours(rule) or not isinstance(said, Ballots) else list(said), left)


def wave_growth(rule: object) -> int:
    """Return the growth of the waves under a rule, which need not be one of this package."""
    return int(getattr(rule, "wave_growth", 2))


def rule_for(owner: str, stop: object, n: int, select: Select) -> Any:
    """Return the rule that a strategy's `stop` means: a shipped one by its name, else itself.

    Raises:
        ConfigurationError: it is not a rule, or does not suit `n` candidates chosen by `select`.
    """
    if isinstance(stop, str):
        stop = shipped_rule(stop, n, select, owner)
    check_rule(owner, "stop", stop)
    if isinstance(stop, Rule):
        stop.suits(n, select)
    return stop


@dataclass(frozen=True, kw_only=True)
class _Combined(Rule):
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        rules: object = self.rules
        if not isinstance(rules, tuple | list) or not rules:
            raise ConfigurationError(f"{type(self).__name__}: rules={rules!r} must be a sequence of at least one rule")
        object.__setattr__(self, "rules", tuple(rules))  # a list would not compare equal to a tuple
        for rule in self.rules:
            check_rule(type(self).__name__, "rules", rule)

    def suits(self, n: int, select: Select) -> None:
        for rule in self.rules:
            rule.suits(n, select)

    def doubts(self, model: str, verifier: object) -> Iterator[str]:
        for rule in self.rules:
            yield from rule.doubts(model, verifier) if isinstance(rule, Rule) else ()

    @property
    def needs_scores(self) -> bool:
        return any(isinstance(rule, Rule) and rule.needs_scores for rule in self.rules)

    @property
    def wave_growth(self) -> int:
        return max(map(wave_growth, self.rules))


@dataclass(frozen=True, kw_only=True)
class AnyOf(_Combined):
    """Stops as soon as one of its rules does."""

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        return any(stops(rule, seen, left) for rule in self.rules)

    def least(self, seen: Sequence[Scored], left: int) -> int:
        return min(rule.least(seen, left) for rule in self.rules)


@dataclass(frozen=True, kw_only=True)
class AllOf(_Combined):
    """Stops when all of its rules would."""

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        return all(stops(rule, seen, left) for rule in self.rules)

    def least(self, seen: Sequence[Scored], left: int) -> int:
        return max(rule.least(seen, left) for rule in self.rules)


@dataclass(frozen=True)
class Threshold(Rule):
    """Stops at the first candidate whose score is at least `score`."""

    score: float

    def __post_init__(self) -> None:
        check_share("Threshold", "score", self.score)

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        if isinstance(seen, Ballots):
            return seen.highest >= self.score
        return any(c.score is not None and c.score >= self.score for c in seen)

    @property
    def needs_scores(self) -> bool:
        return True


@dataclass(frozen=True)
class VoteDecided(Rule):
    """Stops when the leading answer cannot be overtaken any more: the same answer for fewer samples.

    With `weighted`, votes are scores, of which each candidate to come adds at most 1.
    """

    weighted: bool = False

    def __post_init__(self) -> None:
        check_flag("VoteDecided", "weighted", self.weighted)

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        lead, _ = _lead(seen, self.weighted)
        return lead - (_ROUNDING if self.weighted else 0) > left or left == 0

    def least(self, seen: Sequence[Scored], left: int) -> int:
        # After k more for the leader the lead is lead + k, and left - k may follow: lead + k > left - k.
        lead, _ = _lead(seen, self.weighted)
        return max(1, math.floor((left - lead) / 2) + 1)


@dataclass(frozen=True)
class VoteLead(Rule):
    """Stops when the leading answer is `k` votes ahead of the next; `weighted` votes are scores."""

    k: int
    weighted: bool = False

    def __post_init__(self) -> None:
        check_count("VoteLead", "k", self.k)
        check_flag("VoteLead", "weighted", self.weighted)

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        return _lead(seen, self.weighted)[0] >= self.k

    def least(self, seen: Sequence[Scored], left: int) -> int:
        return max(1, math.ceil(self.k - _lead(seen, self.weighted)[0]))


@dataclass(frozen=True)
class FadingLead(Rule):
    """Stops when the leading answer is ahead of the next by `k - fade * (seen / n)`; `weighted` votes are scores.

    A lead of `k` is asked for at first and less later, when fewer candidates can overturn it. Waves are as large as it
    needs and do not double, so that no candidate is paid for that sampling one by one would have spared.
    """

    k: float
    fade: float = 0.0
    weighted: bool = False

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("fade", self.fade)):
            if not is_number(value) or value < 0:
                raise ConfigurationError(f"FadingLead: {name}={value!r} must be a number from 0, such as 3")
        if not self.k > self.fade:
            raise ConfigurationError(f"FadingLead: fade={self.fade!r} must be below k={self.k!r}; lower fade")
        check_flag("FadingLead", "weighted", self.weighted)

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        lead, voted = _lead(seen, self.weighted)
        return voted and lead >= faded(self.k, self.fade, len(seen), left) - _ROUNDING

    def least(self, seen: Sequence[Scored], left: int) -> int:
        # Each candidate adds at most 1 to the lead, while the lead that it takes fades.
        short = faded(self.k, self.fade, len(seen), left) - _lead(seen, self.weighted)[0] - _ROUNDING
        return max(1, min(left, math.ceil(short / (1 + self.fade / max(1, len(seen) + left)))))

    @property
    def wave_growth(self) -> int:
        return 0


def faded(k: float, fade: float, count: int, left: int) -> float:
    """Return the lead that it takes after `count` candidates, with `left` more to come."""
    return k - fade * count / max(1, count + left)


# k and fade by n, from votes and from summed scores. They were chosen on recorded pools; `python -m
# benchmarks.promises --shipped` says what they did on each pool that had no part in the choice.
_SHIPPED: dict[str, dict[int, tuple[tuple[float, float], float]]] = {
    "careful": {8: ((3, 0), 1.5), 16: ((4, 0), 2), 40: ((5, 2), 4)},
    "balanced": {8: ((2.5, 1.5), 1.25), 16: ((3, 1.5), 1.5), 40: ((4, 2), 3)},
    "bold": {8: ((2, 0), 1), 16: ((2.5, 1.5), 1.25), 40: ((2.5, 1.5), 1.75)},
}


def shipped_rule(name: str, n: int, select: Select, owner: str = "shipped_rule") -> Rule:
    """Return the rule "careful", "balanced" or "bold" for `n` candidates chosen by `select`.

    For who has no graded records to fit a rule to. Votes and summed scores stop at a lead that depends on `n`; the
    best of exact checks is the first that passes, so a score of 1 ends it.

    Raises:
        ConfigurationError: there is no rule of this name.
    """
    if name not in _SHIPPED:
        names = ", ".join(map(repr, _SHIPPED))
        raise ConfigurationError(f"{owner}: stop={name!r} is not known; use {names}, or a rule such as VoteLead(3)")
    if select == "best":
        return Threshold(1.0)
    near = min(_SHIPPED[name], key=lambda size: abs(math.log(size / n)))
    votes, mass = _SHIPPED[name][near]
    return FadingLead(mass, weighted=True) if select == "weighted" else FadingLead(*votes)


@dataclass(frozen=True)
class BetaConfident(Rule):
    """Stops when the leading answer is the majority with probability `p` (Adaptive-Consistency, 2305.11860).

    With v1 and v2 votes for the first two answers, the probability is that of Beta(v1 + 1, v2 + 1) above 1/2.
    """

    p: float = 0.95

    def __post_init__(self) -> None:
        if not is_number(self.p) or not 0.5 < self.p < 1:
            raise ConfigurationError(f"BetaConfident: p={self.p!r} must be above 0.5 and below 1, such as 0.95")

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        first, second = _first_two(seen)
        return first > 0 and _beta_above_half(first, second) >= self.p

    def least(self, seen: Sequence[Scored], left: int) -> int:
        first, second = _first_two(seen)
        more = 1
        while more < left and _beta_above_half(first + more, second) < self.p:
            more += 1
        return more


@dataclass(frozen=True)
class Unanimous(Rule):
    """Stops when the last `window` candidates all gave the same answer (ESC, 2401.10480)."""

    window: int = 4

    def __post_init__(self) -> None:
        check_count("Unanimous", "window", self.window, least=2)

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        last = groups_of(seen)[-self.window :]
        return len(last) == self.window and last[0] is not None and len(set(last)) == 1

    def least(self, seen: Sequence[Scored], left: int) -> int:
        run, groups = 0, groups_of(seen)
        for group in reversed(groups):
            if group is None or group != groups[-1]:
                break
            run += 1
        return max(1, self.window - run)


def _first_two(seen: Sequence[Scored]) -> tuple[int, int]:
    first, second = first_two(seen) or (0.0, 0.0)
    return int(first), int(second)


def _lead(seen: Sequence[Scored], weighted: bool) -> tuple[float, bool]:
    """The leading answer's votes above those of the next, and whether there is an answer at all."""
    found = first_two(seen, weighted=weighted)
    return (0.0, False) if found is None else (found[0] - found[1], True)


def _beta_above_half(first: int, second: int) -> float:
    # P(Beta(a, b) > 1/2) for whole a, b is a binomial tail: at most a - 1 of a + b - 1 fair coins show heads.
    n = first + second + 1
    return float(sum(math.comb(n, k) for k in range(first + 1)) / 2**n)
