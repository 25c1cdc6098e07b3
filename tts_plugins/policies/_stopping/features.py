"""What a learned rule sees of a run, and the functions of it that it weighs. Pure; for one state or arrays of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import Select, tally
from tts_plugins.types import Scored

TIE = 1e-9  # a lead that is the difference of two rounded sums may stand a little beside the true one
VERSION = 1  # of the functions below: weights that were fitted to others mean nothing here


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
    """The functions of the state whose weighted sum says what going on is worth; the same number for a `select`."""
    t = s.count / n
    late = ops.log(s.count)
    length = ops.log(ops.minimum(ops.maximum(s.length, 0.05), 20.0))
    distinct, unread = s.distinct / s.count, s.unread / s.count
    z, share = (s.votes - s.others) / ops.sqrt(s.votes + s.others + 1.0), s.votes / s.count
    if select == "best":
        gap = s.first - s.second
        return [
            t, late, length, s.best, s.best * s.best, s.mean, gap, s.best * t, s.best * late, s.mean * late,
            gap * late, length * late, z, share, z * t, distinct, distinct * late, s.leading, s.best * length,
            late * late, unread, 1.0 / s.count,
        ]  # fmt: skip
    vote_z, vote_share = z, share
    if select == "weighted":
        z, share = (s.first - s.second) / ops.sqrt(s.first + s.second + 1.0), s.first / s.count
    out = [
        z, z * z, share, share * share, t, late, distinct, distinct * distinct, length, z * t, share * t, z * late,
        z * share, z * distinct, share * distinct, distinct * t, s.others / s.count, unread,
        ops.minimum(z, 0.6), ops.minimum(z, 1.0), ops.minimum(z, 1.5), ops.minimum(s.votes, 1.0), 1.0 / s.count,
    ]  # fmt: skip
    if select == "weighted":
        lead = s.first - s.second
        out += [
            s.leading, s.mean, s.best, s.leading * z, s.leading * t, s.best * t, vote_z, vote_share,
            ops.minimum(lead, 0.5), ops.minimum(lead, 1.5),
        ]  # fmt: skip
    return out
