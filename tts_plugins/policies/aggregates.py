"""Finds how a verifier's step scores are best combined into one score, from graded samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tts_plugins.errors import DataError
from tts_plugins.selection import AGGREGATES, Aggregate
from tts_plugins.selection import aggregate as combine

if TYPE_CHECKING:  # who imports the package mostly fits nothing
    from tts_plugins.metrics import Estimate
    from tts_plugins.pools import Pool


def aggregates(pool: Pool, *, seed: int = 0) -> Mapping[Aggregate, Estimate]:
    """Rank the ways to combine step scores by how well they tell right from wrong, the best first.

    The figure is the AUC among the candidates of one problem, which is what choosing needs, with a 95 % interval from
    resampling problems. Equals keep the order last, min, prod, mean; "last" is the seed paper's (2408.03314), for a
    verifier trained on soft labels. It reads `correct`; needs numpy.

    Raises:
        DataError: no problem has a right and a wrong candidate with step scores.
    """
    scored = [[c for c in p.candidates if c.step_scores and c.correct is not None] for p in pool.problems]
    if not any(len({c.correct for c in each}) == 2 for each in scored):
        raise DataError(
            f"the pool of {pool.header.model} has no problem with step scores for a right and for a wrong candidate; "
            "record one with a process verifier, and grade it"
        )
    from tts_plugins.metrics import clustered_auc

    found: dict[Aggregate, Estimate] = {}
    for how in AGGREGATES:
        rows = [[(combine(c.step_scores or (), how), bool(c.correct)) for c in each] for each in scored]
        found[how] = clustered_auc(rows, within=True, seed=seed)
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def best_aggregate(pool: Pool) -> Aggregate:
    """Return the first of `aggregates`, or "last" if the pool has no step scores."""
    if not any(c.step_scores for p in pool.problems for c in p.candidates):
        return "last"
    return next(iter(aggregates(pool)))
