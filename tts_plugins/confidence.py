"""How sure a choice is, from the candidates that it was made among. Pure.

Confidence says how well the chosen answer is supported; it is only as good as the votes or the verifier behind it.
What share of answers above a threshold is right has to be measured: `policies.Abstention` does that with a promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tts_plugins._internal.config import check_share, in_unit
from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import Select, group_of, tally
from tts_plugins.types import Scored


@dataclass(frozen=True)
class Support:
    """How sure a choice is: both figures from 0 to 1, or None where nothing can be said."""

    confidence: float | None = None
    agreement: float | None = None


def support(candidates: Sequence[Scored], best: Scored, how: Select) -> Support:
    """Return how sure a choice among candidates is, by the way it was made.

    By majority, the confidence is the share of the candidates that gave the chosen answer. By weighted vote, it is the
    sum of the scores of these candidates, divided by the number of all. By best score, it is that score.
    """
    shared = agreement(candidates, best)
    if how == "majority" and tally(candidates):
        return Support(shared, shared)
    group = group_of(candidates, best.vote)
    if how == "weighted" and group is not None and all([c.score is not None for c in candidates]):
        return Support(_share(tally(candidates, weighted=True)[group] / len(candidates)), shared)
    return Support(_share(best.score), shared)


def agreement(candidates: Sequence[Scored], best: Scored) -> float | None:
    """Return the share of the candidates that gave the chosen answer.

    A candidate without a readable answer counts as one that disagrees. None if the chosen one has no answer, and if
    there are no others to agree with it.
    """
    group = group_of(candidates, best.vote)
    return None if group is None or len(candidates) < 2 else tally(candidates)[group] / len(candidates)


def support_when_unknown(candidates: Sequence[Scored], best: Scored) -> Support:
    """Return the support of a choice whose strategy did not say how it chose, or was cut short.

    It is the score where there is one, else the share of the whole candidates that gave the answer. A partial or empty
    solution has none.
    """
    if not best.finished or best.id not in {c.id for c in candidates}:
        return Support()
    whole = [c for c in candidates if c.finished and not c.truncated] or [c for c in candidates if c.finished]
    shared = agreement(whole, best)
    return Support(_share(best.score) if best.score is not None else shared, shared)


def check_threshold(owner: str, value: object) -> None:
    """Raise unless `value` is None or a number from 0 to 1."""
    if value is None:
        return
    try:
        check_share(owner, "abstain_below", value)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}: questions are answered if their confidence is at least that; policies.Abstention finds a "
            "threshold on graded samples"
        ) from None


def _share(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else in_unit(value)
