"""Stop rules of one to three numbers: stop once the choice is far enough ahead, or after so many candidates.

They compete with the fitted weights, and two ladders of them carry the promises of `risk_bounds`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from tts_plugins.policies._stopping.features import TIE
from tts_plugins.policies._stopping.walks import Bools, Floats, Ints
from tts_plugins.selection import Select

_LEVELS: dict[Select, tuple[float, ...]] = {
    "majority": (1, 2, 3, 4, 5, 6, 8),
    "weighted": (0.5, 0.75, 1, 1.5, 2, 3, 4, 6),
    "best": (0.8, 0.9, 0.95),
}
_ENDS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)

# Ladders run from cautious to bold. Each step is a rule that is fixed before any record is read.
_LEADS: dict[Select, tuple[float, ...]] = {
    "majority": (8, 6, 5, 4, 3, 2, 1),
    "weighted": (6, 4, 3, 2.5, 2, 1.5, 1, 0.75, 0.5),
    "best": (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5),
}
# Of votes: a lead, and by how much less of it is asked for after all n. A fade above the lead gives up where no answer
# gets ahead. Of scores: a lead, and a cap on the candidates as a share of n, which saves more there.
_FADING_LEADS = (
    (8, 6), (6, 5), (5, 4.5), (4.5, 4.5), (4, 4), (3.5, 4), (3, 4), (3, 5), (2.5, 5), (2.5, 6.5), (2, 6), (2, 8),
    (2, 12), (1.5, 12), (1.5, 15), (1, 15),
)  # fmt: skip
_CAPPED_LEADS: dict[Select, tuple[tuple[float | None, float], ...]] = {
    "weighted": (
        (6, 1), (4, 0.8), (3, 0.6), (2.5, 0.5), (2.5, 0.4), (2, 0.4), (2, 0.3), (1.5, 0.25), (1, 0.25), (1, 0.2),
        (0.75, 0.15), (0.5, 0.1),
    ),
    "best": ((None, 0.8), (None, 0.6), (None, 0.5), (None, 0.4), (None, 0.3), (None, 0.25), (None, 0.2), (None, 0.15)),
}  # fmt: skip


class ThresholdRule(NamedTuple):
    """Stop once the lead is `enough - fade * count / n` (for `best`: once a score is so high), and after `at_most`.

    None for never.
    """

    enough: float | None
    at_most: int | None
    fade: float = 0.0


NEVER = ThresholdRule(None, None)


def ladders(select: Select, n: int) -> tuple[tuple[ThresholdRule, ...], ...]:
    """Return two sequences of rules from cautious to bold: leads, and leads that fade or have a cap."""
    leads = tuple(ThresholdRule(lead, None) for lead in _LEADS[select])
    if select == "majority":  # whole votes have no lead between two of these
        return leads, _in_small_steps(ThresholdRule(lead, None, fade) for lead, fade in _FADING_LEADS)
    capped = tuple(ThresholdRule(lead, max(1, round(cap * n))) for lead, cap in _CAPPED_LEADS[select])
    # Small steps gained nothing by best score.
    return (leads, capped) if select == "best" else (_in_small_steps(leads), _in_small_steps(capped))


def _in_small_steps(given: Iterable[ThresholdRule]) -> tuple[ThresholdRule, ...]:
    """Put three rungs between each two: a climb ends at the first that fails, so that small steps get it farther."""
    rungs = tuple(given)
    made = [
        ThresholdRule(
            _between(rung.enough, after.enough, part), _between(rung.at_most, after.at_most, part, whole=True),
            rung.fade + part / _STEPS * (after.fade - rung.fade),
        )
        for rung, after in itertools.pairwise(rungs) for part in range(_STEPS)
    ]  # fmt: skip
    return tuple(dict.fromkeys([*made, rungs[-1]]))


def _between(value: Any, after: Any, part: int, *, whole: bool = False) -> Any:
    """Return a number on the way between two; None where one has none."""
    if value is None or after is None:
        return None
    found = value + part / _STEPS * (after - value)
    return round(found) if whole else found


_STEPS = 4


class Totals(NamedTuple):
    """Means over the walks of each problem: right answers, cost and samples; (..., problems)."""

    right: Floats
    cost: Floats
    samples: Floats


def share_of(count: Ints) -> Floats:
    """Return the share of the candidates that have come, of those that say something or may still; (walks, n).

    Args:
        count: (walks, n), candidates so far that say something.
    """
    left = np.arange(count.shape[1])[::-1]
    found: Floats = count / np.maximum(count + left, 1)
    return found


class ThresholdRules:
    """The outcomes of threshold rules on the same walks; `totals` of the grid are (rules, problems).

    Args:
        ahead: (walks, n), how far the choice is ahead after each candidate.
        count: (walks, n), candidates so far that say something; 0 where no rule is asked yet.
        over: (walks, n), whether nothing to come can change the choice.
        right, cost: (walks, n), whether the choice is right then, and the tokens so far.
        orders: walks of each problem, which stand together.
    """

    def __init__(
        self, ahead: Floats, count: Ints, over: Bools, right: Floats, cost: Floats, orders: int, select: Select
    ) -> None:
        self._ahead, self._count, self._over = np.where(count > 0, ahead, -np.inf), count, over
        self._right, self._cost, self._orders = right, cost, orders
        self._share = share_of(count)
        ends = [k for k in _ENDS if k < ahead.shape[1]] + [None]
        self.rules = [ThresholdRule(level, end) for level in (*_LEVELS[select], None) for end in ends]
        self._grid: Totals | None = None

    @property
    def totals(self) -> Totals:
        """The outcome of every rule of the grid; the last rule has no lead and no cap."""
        if self._grid is None:
            found = [self.totals_of(rule) for rule in self.rules]
            self._grid = Totals(*(np.stack(each) for each in zip(*found, strict=True)))
        return self._grid

    def ends_of(self, rule: ThresholdRule) -> Ints:
        """Return the number of samples after which a rule stops, (walks,)."""
        stops = self._over.copy()
        if rule.enough is not None:
            stops |= self._ahead >= rule.enough - rule.fade * self._share - TIE
        if rule.at_most is not None:
            stops |= self._count >= rule.at_most
        stops[:, -1] = True
        ends: Ints = stops.argmax(1) + 1
        return ends

    def totals_of(self, rule: ThresholdRule) -> Totals:
        """Return the outcome of one rule, (problems,)."""
        return self.totals_at(self.ends_of(rule))

    def totals_at(self, ends: Ints) -> Totals:
        """Return the outcome of stopping after so many samples of each walk, (problems,)."""
        rows = np.arange(len(ends))
        found = (self._right[rows, ends - 1], self._cost[rows, ends - 1], ends.astype(float))
        return Totals(*(values.reshape(-1, self._orders).mean(1) for values in found))

    def best(self, price: float, train: Ints) -> int:
        """Return the rule of the grid that is worth most on the problems of `train`, at a price."""
        t = self.totals
        return int((t.right[:, train] - price * t.cost[:, train]).mean(1).argmax())

    def validated(self, price: float, fold: Ints) -> Ints:
        """Return where the best rule of the grid stops each walk, chosen on all folds but that of its problem."""
        ends = np.empty(len(self._right), dtype=np.int64)
        for part in range(int(fold.max()) + 1):
            rest = np.flatnonzero(fold != part)
            rule = self.rules[self.best(price, rest if len(rest) else np.flatnonzero(fold == part))]
            rows = np.repeat(fold == part, self._orders)
            ends[rows] = self.ends_of(rule)[rows]
        return ends
