"""Statistics over problems, with their uncertainty. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a share (95 % by default); it stays within [0, 1] and has a width at 0 and 1.

    Raises:
        ValueError: no trials, or successes outside of 0 … trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson: {successes} successes of {trials} trials make no share")
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the p-value of the exact two-sided McNemar test that two paired series of outcomes are equally good.

    Only problems on which the two differ count: under equality each is a fair coin.

    Raises:
        ValueError: the series differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"mcnemar: {len(first)} and {len(second)} outcomes are not pairs")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return float(min(1.0, 2 * tail))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the unbiased pass@k from `correct` of `n` samples (Chen et al. 2021, 2107.03374).

    Raises:
        ValueError: k is not in 1 … n, or correct not in 0 … n.
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass_at_k: n={n}, correct={correct}, k={k} do not go together")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 3 if abs(self.value) < 10 else 1 if abs(self.value) < 1000 else 0
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def clustered_bootstrap(
    clusters: Sequence[Sequence[float]], *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return the mean over clusters of their means, with a percentile interval from resampling whole clusters.

    Runs on one problem are not independent observations, so the problem is the cluster that is resampled.

    Raises:
        ValueError: there are no clusters, or one is empty.
    """
    means = _cluster_means(clusters, "clustered_bootstrap")
    return _interval(sum(means) / len(means), _resampled([means], resamples, seed)[0], level)


def paired_bootstrap(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, ratio: bool = False,
    resamples: int = 2000, seed: int = 0, level: float = 0.95,
) -> Estimate:  # fmt: skip
    """Return the difference `first - second` of two means on the same problems, or their quotient with `ratio`.

    Both sides are resampled by the same problems, so that the difficulty of a problem cancels out.

    Raises:
        ValueError: they differ in the number of problems, there is none, or a ratio has a zero below.
    """
    if len(first) != len(second):
        raise ValueError(f"paired_bootstrap: {len(first)} and {len(second)} problems are not pairs")
    a, b = _cluster_means(first, "paired_bootstrap"), _cluster_means(second, "paired_bootstrap")
    drawn_a, drawn_b = _resampled([a, b], resamples, seed)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    if not ratio:
        return _interval(mean_a - mean_b, [x - y for x, y in zip(drawn_a, drawn_b, strict=True)], level)
    if mean_b == 0:
        raise ValueError("paired_bootstrap: the second mean is 0, so that there is no ratio")
    quotients = [x / y if y else math.inf for x, y in zip(drawn_a, drawn_b, strict=True)]
    return _interval(mean_a / mean_b, quotients, level)


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return the probability that a right candidate scores above a wrong one, with ties counted half.

    Raises:
        ValueError: there is not one of each, or not one score for each.
    """
    _same(scores, right)
    wins, pairs = _pairs(scores, right)
    if not pairs:
        raise ValueError(f"auc: of {len(right)} candidates {sum(map(bool, right))} are right; it needs both kinds")
    return wins / pairs


def clustered_auc(
    clusters: Sequence[Sequence[tuple[float, bool]]], *, within: bool = False, resamples: int = 1000, seed: int = 0,
    level: float = 0.95,
) -> Estimate:  # fmt: skip
    """Return the AUC over the (score, right) of many problems, with an interval from resampling whole problems.

    Args:
        clusters: for each problem its candidates' (score, right).
        within: compare candidates of the same problem only, which is what choosing needs. Over all candidates, a
            verifier also gains by knowing which problems are easy.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        level: of the interval, between 0 and 1.

    Raises:
        ValueError: there is no pair to compare.
    """
    import numpy as np

    if within:
        counted = np.array([_pairs(*_unzipped(c)) for c in clusters], dtype=float).reshape(-1, 2)

        def figure(drawn: Any) -> float:
            wins, pairs = counted[drawn].sum(0)
            return float(wins / pairs) if pairs else math.nan
    else:

        def figure(drawn: Any) -> float:
            wins, pairs = _pairs(*_unzipped([pair for i in drawn for pair in clusters[i]]))
            return wins / pairs if pairs else math.nan

    value = figure(range(len(clusters)))
    if math.isnan(value):
        raise ValueError("clustered_auc: no pair of a right and a wrong candidate; it needs both kinds")
    rng = np.random.default_rng(seed)
    drawn = [figure(rng.integers(len(clusters), size=len(clusters))) for _ in range(resamples)]
    return _interval(value, [d for d in drawn if not math.isnan(d)], level)  # a draw without both kinds has no pair


def _unzipped(pairs: Sequence[tuple[float, bool]]) -> tuple[list[float], list[bool]]:
    return [score for score, _ in pairs], [right for _, right in pairs]


def _pairs(scores: Sequence[float], right: Sequence[bool]) -> tuple[float, int]:
    """Count the pairs of a right and a wrong candidate in which the right one scores higher, and all such pairs."""
    import numpy as np

    values, good = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positives = int(good.sum())
    wins = float(ranks[good].sum()) - positives * (positives + 1) / 2
    return wins, positives * (len(good) - positives)


def expected_best(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Return the probability that the best-scored candidate is right, with ties broken at random.

    Raises:
        ValueError: there are no candidates, or not one score for each.
    """
    _same(scores, correct)
    top = max(scores)
    return _share([c for s, c in zip(scores, correct, strict=True) if s == top])


def expected_majority(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Return the probability that the most frequent answer is right, with ties broken at random; None does not vote.

    Raises:
        ValueError: there are no candidates, or not one answer for each.
    """
    return expected_weighted(answers, [1.0] * len(answers), correct)


def expected_weighted(answers: Sequence[str | None], scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Return the probability that the best candidate of the answer with the largest sum of scores is right.

    Ties between answers and between candidates are broken at random. If no answer could be read, the best-scored
    candidate is taken.

    Raises:
        ValueError: there are no candidates, or not one answer and one score for each.
    """
    _same(scores, correct)
    _same(answers, correct)
    groups: dict[str, list[tuple[float, bool]]] = {}
    for answer, score, right in zip(answers, scores, correct, strict=True):
        if answer is not None:
            groups.setdefault(answer, []).append((score, right))
    if not groups:
        return expected_best(scores, correct)
    sums = [math.fsum(score for score, _ in group) for group in groups.values()]
    leading = [
        g for g, total in zip(groups.values(), sums, strict=True) if math.isclose(total, max(sums), abs_tol=1e-12)
    ]
    return math.fsum(expected_best([s for s, _ in g], [c for _, c in g]) for g in leading) / len(leading)


def _same(values: Sequence[object], correct: Sequence[bool]) -> None:
    if not correct or len(values) != len(correct):
        raise ValueError(f"{len(values)} values for {len(correct)} candidates; give one for each of at least one")


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)


def _cluster_means(clusters: Sequence[Sequence[float]], who: str) -> list[float]:
    if not clusters or not all(len(c) for c in clusters):
        raise ValueError(f"{who}: every problem needs at least one value, and there has to be a problem")
    return [math.fsum(c) / len(c) for c in clusters]


def _resampled(series: Sequence[Sequence[float]], resamples: int, seed: int) -> list[list[float]]:
    """Return the means of each series over the same draws of indices, with replacement."""
    import numpy as np

    size = len(series[0])
    rng, values = np.random.default_rng(seed), np.array(series, dtype=float)
    drawn = np.stack([values[:, rng.integers(size, size=size)].mean(1) for _ in range(resamples)], axis=1)
    return [list(map(float, row)) for row in drawn]


def _interval(value: float, drawn: list[float], level: float) -> Estimate:
    ordered = sorted(drawn)
    tail = (1 - level) / 2
    low, high = (ordered[min(len(ordered) - 1, math.floor(q * len(ordered)))] for q in (tail, 1 - tail))
    return Estimate(value, low, high)


def hold_out(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split the indices of `count` problems at random; the second part has this share of them, and at least one.

    Raises:
        ValueError: there are fewer than two problems.
    """
    import numpy as np

    if count < 2:
        raise ValueError(f"hold_out: count={count} must be at least 2, since neither part may be empty")
    order = np.random.default_rng(seed).permutation(count)
    held = min(count - 1, max(1, round(share * count)))
    return sorted(map(int, order[held:])), sorted(map(int, order[:held]))
