"""What a learned rule sees of a run, and the functions of it that it weighs. Pure; for one state or arrays of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import Select, tally
from tts_plugins.types import Scored

TIE = 1e-9  # a lead that is the difference of two rounded sums may stand a little beside the true one
VERSION = 2  # of the functions below: weights that were fitted to others mean nothing here


class State(NamedTuple):
    """A run so far; each field is a number, or an array with one for each of many runs.

    Attributes:
        count: candidates so far.
        first, second: what the choice goes by, of the leader and of the next: votes, summed scores, or two scores.
        votes, others: votes of the chosen answer, and the most that another one has.
        distinct, unread: different answers, and candidates without one.
        length: mean tokens of a candidate, in units of those of the fit; 1 where they are not counted.
        best, mean, leading: the highest score, the mean one, and the mean one of the chosen answer; 0 without scores.
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


class Scalars:
    """The four functions that `basis` needs, for plain numbers; numpy has them under the same names for arrays."""

    log = staticmethod(math.log)
    sqrt = staticmethod(math.sqrt)
    minimum = staticmethod(min)
    maximum = staticmethod(max)


def observe(seen: Sequence[Scored], select: Select, reference: float | None) -> State:
    """The state of one run, of at least one candidate; `reference` is the length of a candidate in the fit.

    Raises:
        ConfigurationError: a candidate has no score, though the choice goes by scores.
    """
    if select != "majority" and any(c.score is None for c in seen):
        raise ConfigurationError(
            f"LearnedStopping: it was fitted to select={select!r}, and a candidate has no score; pass verifier=…"
        )
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
    told = [c.tokens for c in seen if c.tokens is not None]
    of_chosen = [s for s, c in zip(scores, seen, strict=True) if chosen is not None and c.vote == chosen]
    return State(
        count=len(seen),
        first=first,
        second=second,
        votes=votes.get(chosen, 0.0) if chosen is not None else 0.0,
        others=max((v for answer, v in votes.items() if answer != chosen), default=0.0),
        distinct=len(votes),
        unread=len(seen) - sum(votes.values()),
        length=sum(told) / len(told) / reference if told and reference and sum(told) else 1.0,
        best=max(scores),
        mean=sum(scores) / len(scores),
        leading=sum(of_chosen) / len(of_chosen) if of_chosen else 0.0,
    )


def ahead(s: State, select: Select) -> Any:
    """How far the choice is ahead: the highest score, or the lead over the next answer in votes or summed scores."""
    return s.first if select == "best" else s.first - s.second


def decided(s: State, n: int, select: Select) -> Any:
    """Whether none of the `n - count` candidates to come can change the choice."""
    if select == "best":
        return s.first >= 1.0  # an equal one that comes later does not win
    return s.first - s.second - (TIE if select == "weighted" else 0.0) > n - s.count


def least_decided(s: State | None, n: int, select: Select) -> int:
    """How many more candidates it takes at least until the choice is decided."""
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
