"""What other numbers for the shipped rules would have done on the same pools: the best in hindsight, and left out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks._pools.ground import geometric
from tts_plugins.policies._stopping.features import ahead
from tts_plugins.policies._stopping.threshold_rules import ThresholdRule, ThresholdRules
from tts_plugins.policies._stopping.walks import Samples, walk
from tts_plugins.pools import Pool
from tts_plugins.selection import Select

MOST_LOST = 0.0125
Found = Mapping[ThresholdRule, tuple[float, float]]  # what a rule loses, and how many times fewer samples it takes


def measured(pool: Pool, n: int, select: Select, orders: int = 20) -> Found:
    """Every pair of a lead and its fade, in steps of a quarter (votes: a half), on one pool."""
    samples = Samples.of(pool.problems, n, select, "last")
    paths = walk(samples, n, select, orders=orders, seed=3, reference=1.0)
    right = paths.labels(samples.correct)
    rules = ThresholdRules(
        ahead(paths.state, select), np.arange(1, n + 1) - paths.blanks, paths.decided(n, select), right,
        paths.tokens.cumsum(1), orders, select,
    )  # fmt: skip
    full, step = float(right[:, -1].mean()), 0.5 if select == "majority" else 0.25
    found = {}
    for k, fade in itertools.product(np.arange(0.5, 8.1, step), np.arange(0, 8, 0.5)):
        if k > fade:
            rule = ThresholdRule(float(k), None, float(fade))
            of = rules.totals_of(rule)
            found[rule] = full - float(of.right.mean()), n / float(of.samples.mean())
    return found


def tell(found: Mapping[str, Found], what: str) -> None:
    """Print the best pair for all pools in hindsight, and for each pool what the best of the others does there."""
    if not found:
        return
    rule, saved = _best(list(found.values()))
    each = ", ".join(f"{name} {of[rule][1]:.2f} {of[rule][0]:+.4f}" for name, of in found.items())
    print(f"{what}, in hindsight k={rule.enough:g}, fade={rule.fade:g} saves {saved:.2f} times and loses at most "
          f"{MOST_LOST} ({each})")  # fmt: skip
    for name, of in found.items() if len(found) > 1 else ():
        rule, _ = _best([other for key, other in found.items() if key != name])
        lost, saved = of[rule]
        print(f"    chosen without {name}: k={rule.enough:g}, fade={rule.fade:g} saves {saved:.2f} there, {lost:+.4f}")


def _best(found: Sequence[Found]) -> tuple[ThresholdRule, float]:
    within = {
        rule: geometric([of[rule][1] for of in found])
        for rule in found[0] if all(of[rule][0] <= MOST_LOST for of in found)
    }  # fmt: skip
    best = max(within, key=lambda rule: within[rule])
    return best, within[best]
