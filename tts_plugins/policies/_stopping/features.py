"""The state of a run as a learned rule sees it, and the functions of it that are weighted.

Pure. Every function takes one state, or arrays that hold many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import Ballots, Select, first_two, grouped, tally
from tts_plugins.types import Scored

TIE = 1e-9  # leads are differences of rounded sums, so compare with a tolerance
VERSION = 2  # of the functions below; weights fitted to another version are refused


class State(NamedTuple):
    """The state of a run; each field is a number, or an array with one entry for each of many runs.

    Attributes:
        count: candidates so far.
        first, second: the leader's and the runner-up's votes, summed scores, or scores, by the way to choose.
        votes, others: votes of the chosen answer, and the most votes of another answer.
        distinct, unread: the number of different answers, and of candidates without one.
        length: mean tokens of a candidate divided by the mean in the fit; 1 if tokens are unknown.
        best, mean, leading: the highest score, the mean score, and that of the chosen answer; 0 without scores.
    """

    count: Any
    first: Any
    second: Any
    votes: Any
    others: Any
    distinct: Any
    unread: Any
    length: Any
    best: Any
    mean: Any
    leading: Any


class Standing(NamedTuple):
    """What rules without weights see of a run: the same fields of its `State`, which candidates are counted into."""

    count: Any  # of a tuple it would be a method
    first: float
    second: float


class Scalars:
    """The functions that `basis` needs, for plain numbers; numpy has them under the same names for arrays."""

    log = staticmethod(math.log)
    sqrt = staticmethod(math.sqrt)
    minimum = staticmethod(min)
    maximum = staticmethod(max)


def standing(seen: Sequence[Scored], select: Select) -> Standing:
    """Return how far the choice is ahead; what is counted already (`Ballots`) is not counted anew.

    Raises:
        ConfigurationError: a candidate has no score, though the choice goes by scores.
    """
    ballots = Ballots.of(seen)
    if select != "majority" and not ballots.all_scored:
        raise ConfigurationError(
            f"LearnedStopping: it was fitted to select={select!r}, and a candidate has no score; pass verifier=…"
        )
    if select == "best":
        return Standing(len(ballots), ballots.highest, 0.0)  # nothing is asked of the second score
    return Standing(len(ballots), *(first_two(ballots, weighted=select == "weighted") or (0.0, 0.0)))


def observe(seen: Sequence[Scored], select: Select, reference: float | None) -> State:
    """Return the state of a run with at least one candidate, all scored where the choice goes by scores.

    Args:
        reference: mean tokens of a candidate in the fit.
    """
    scores = [0.0 if select == "majority" or c.score is None else c.score for c in seen]
    votes = tally(seen)
    masses = votes if select == "majority" else tally(seen, weighted=True) if select == "weighted" else {}
    if select == "best":
        order = sorted(scores, reverse=True)
        chosen = seen[scores.index(order[0])].vote
        first, second = order[0], order[1] if len(order) > 1 else 0.0
    else:
        chosen = max(masses, key=lambda answer: masses[answer]) if masses else None
        first = masses[chosen] if chosen is not None else 0.0
        second = max((mass for answer, mass in masses.items() if answer != chosen), default=0.0)
    lengths = [c.tokens for c in seen if c.tokens is not None]
    groups = grouped(seen)
    of_chosen = [
        s for s, c in zip(scores, seen, strict=True)
        if chosen is not None and c.vote is not None and groups[c.vote] == groups[chosen]
    ]  # fmt: skip
    return State(
        count=len(seen),
        first=first,
        second=second,
        votes=votes.get(chosen, 0.0) if chosen is not None else 0.0,
        others=max((v for answer, v in votes.items() if answer != chosen), default=0.0),
        distinct=len(votes),
        unread=len(seen) - sum(votes.values()),
        length=sum(lengths) / len(lengths) / reference if lengths and reference and sum(lengths) else 1.0,
        best=max(scores),
        mean=sum(scores) / len(scores),
        leading=sum(of_chosen) / len(of_chosen) if of_chosen else 0.0,
    )


def ahead(s: State | Standing, select: Select) -> Any:
    """Return the choice's lead: its votes or summed scores above the next answer's; for `best`, the highest score."""
    return s.first if select == "best" else s.first - s.second


def decided(s: State | Standing, n: Any, select: Select) -> Any:
    """Return whether the `n - count` candidates to come cannot change the choice."""
    if select == "best":
        return s.first >= 1.0  # a later candidate with an equal score does not win
    return s.first - s.second - (TIE if select == "weighted" else 0.0) > n - s.count


def least_decided(s: State | Standing | None, n: int, select: Select) -> int:
    """Return the fewest further candidates after which the choice could be decided."""
    if select == "best":
        return 1
    count, lead = (0, 0.0) if s is None else (s.count, s.first - s.second)
    return max(1, math.floor((n - count - lead) / 2) + 1)


def basis(s: State, n: int, select: Select, ops: Any = Scalars) -> list[Any]:
    """Return the functions of the state whose weighted sum says what going on is worth; always as many for a `select`.

    A dozen of the lead, the share and the count, two of different answers, two of the length and four of scores: more
    did no better on recorded pools, and without the length it was worse.
    """
    t = s.count / n
    late = ops.log(s.count)
    length = ops.log(ops.minimum(ops.maximum(s.length, 0.05), 20.0))
    distinct = s.distinct / s.count
    if select == "best":
        gap = s.first - s.second
        return [
            t, late, late * late, 1.0 / s.count, s.best, s.best * s.best, s.best * t, s.mean, s.mean * late, gap,
            gap * late, s.votes / s.count, distinct, s.leading, length, length * late,
        ]  # fmt: skip
    weighted = select == "weighted"
    first, second = (s.first, s.second) if weighted else (s.votes, s.others)
    z, share = (first - second) / ops.sqrt(first + second + 1.0), first / s.count
    out = [
        z, z * z, z * t, z * late, ops.minimum(z, 1.0), share, share * t, t, late, 1.0 / s.count,
        distinct, distinct * t, length, length * late, s.unread / s.count,
    ]  # fmt: skip
    if weighted:
        return [*out, s.votes / s.count, s.leading, s.leading * z, s.mean, s.best]
    return [*out, share * share, z * share, ops.minimum(z, 0.6)]
