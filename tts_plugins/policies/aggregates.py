"""Finds how a verifier's step scores are best combined into one score, from graded samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tts_plugins.errors import DataError
from tts_plugins.selection import AGGREGATES, Aggregate
from tts_plugins.selection import aggregate as combine

if TYPE_CHECKING:  # who imports the package mostly fits nothing
    from tts_plugins.metrics import Estimate
    from tts_plugins.pools import Pool, PoolProblem


def aggregates(pool: Pool, *, seed: int = 0) -> Mapping[Aggregate, Estimate]:
    """Rank the ways to combine step scores by how well they tell right from wrong, the best first.

    The figure is the AUC among the candidates of one problem, which is what choosing needs, with a 95 % interval from
    resampling problems. Equals keep the order last, min, prod, mean; "last" is the seed paper's (2408.03314), for a
    verifier trained on soft labels. It reads `correct`; needs numpy.

    Raises:
        DataError: no problem has a right and a wrong candidate with step scores.
    """
    if not any(map(_tells, pool.problems)):
        raise DataError(
            f"the pool of {pool.header.model} has no problem with step scores for a right and for a wrong candidate; "
            "record one with a process verifier, and grade it"
        )
    from tts_plugins.metrics import clustered_auc

    scored = [[c for c in p.candidates if c.step_scores and c.correct is not None] for p in pool.problems]
    found: dict[Aggregate, Estimate] = {}
    for how in AGGREGATES:
        rows = [[(combine(c.step_scores or (), how), bool(c.correct)) for c in each] for each in scored]
        found[how] = clustered_auc(rows, within=True, seed=seed)
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def best_aggregate(pool: Pool) -> Aggregate:
    """Return the first of `aggregates`, or "last" if no step scores of the pool can tell right from wrong."""
    return next(iter(aggregates(pool))) if any(map(_tells, pool.problems)) else "last"


def _tells(problem: PoolProblem) -> bool:
    """Whether a problem has a right and a wrong candidate with step scores."""
    return len({c.correct for c in problem.candidates if c.step_scores and c.correct is not None}) == 2
