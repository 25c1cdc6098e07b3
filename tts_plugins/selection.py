"""Which candidate wins. Pure functions over scored candidates.

Ties take the first, and prefer a whole candidate to one that was cut. Votes that are compared by meaning
(`RelatedKey`) take the smallest key instead, so that the order of arrival changes nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Literal

from tts_plugins._internal.values import field, fields_of
from tts_plugins._votes import (
    Ballots,
    RelatedKey,
    Relation,
    first_two,
    group_of,
    grouped,
    groups_of,
    score_of,
    semantic_entropy,
    tally,
)
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Candidate, Scored

__all__ = [
    "AGGREGATES", "Aggregate", "Ballots", "RelatedKey", "Relation", "Select", "aggregate", "best", "check_aggregate",
    "choose", "fallback", "first_two", "group_of", "grouped", "groups_of", "has_content", "leaders", "majority_vote",
    "prefer_content", "semantic_entropy", "spread", "tally", "top", "weighted_vote", "with_content",
]  # fmt: skip

Aggregate = Literal["last", "min", "prod", "mean"]
AGGREGATES: tuple[Aggregate, ...] = ("last", "min", "prod", "mean")
Select = Literal["best", "weighted", "majority"]

_AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "prod": math.prod,
    "mean": lambda scores: math.fsum(scores) / len(scores),
}


def aggregate(step_scores: Sequence[float], how: Aggregate = "last") -> float:
    """Step scores to one score.

    The last step's score is the seed paper's choice for its soft-label verifier (2408.03314, appendix E); the
    product and the minimum suit verifiers trained on hard labels, so it is a setting of each verifier.

    Raises:
        ConfigurationError: an unknown `how`, or no score at all.
    """
    if how not in _AGGREGATES:
        raise ConfigurationError(f"aggregate: how={how!r} is not known; use one of {', '.join(_AGGREGATES)}")
    if not step_scores:
        raise ConfigurationError("aggregate: there are no step scores; the verifier has to give one for each step")
    return float(_AGGREGATES[how](step_scores))


def check_aggregate(owner: str, how: object) -> None:
    """Raise unless `how` names a way to make one score of step scores.

    Raises:
        ConfigurationError: it does not; begins with the `owner` that was given it.
    """
    if how not in AGGREGATES:
        raise ConfigurationError(f"{owner}: aggregate={how!r} is not known; use one of {', '.join(AGGREGATES)}")


def best(candidates: Sequence[Scored]) -> Scored:
    """The candidate of the highest score; of equals the first that is whole, before those that were cut.

    Raises:
        ValueError: there are no candidates, or one has no score.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    return min(candidates, key=lambda c: (-score_of(c), _cut(c)))


def top(candidates: Sequence[Scored], k: int) -> list[Scored]:
    """The `k` best, best first; fewer where there are fewer, none of none. The order of equals is kept.

    Raises:
        ValueError: a candidate has no score, or `k` is negative.
    """
    if k < 0:
        raise ValueError(f"top: k={k} must be at least 0")
    return sorted(candidates, key=lambda c: -score_of(c))[:k]


def spread(candidates: Sequence[Scored], k: int) -> list[Scored]:
    """The `k` best, best first; among equals, a child of the parent that has fewest among the chosen comes first.

    A verifier that is a program says 0 or 1, so that whole levels of a search tie. By order alone, the children of
    the first parent would take all places, and the search would follow one line of descent: where that gets stuck,
    nothing is left. Where nothing ties it is `top`; the order of equals is kept otherwise.

    Raises:
        ValueError: a candidate has no score, or `k` is negative.
    """
    if k < 0:
        raise ValueError(f"spread: k={k} must be at least 0")
    chosen, taken = list[Scored](), Counter[str | None]()
    for _, group in groupby(top(candidates, len(candidates)), key=score_of):
        equals = list(group)
        while equals and len(chosen) < k:
            nearest = min(equals, key=lambda c: taken[c.parent])  # min keeps the first of equals
            equals.remove(nearest)
            chosen.append(nearest)
            taken[nearest.parent] += 1
    return chosen


def ranked(best: Scored, candidates: Sequence[Scored]) -> list[Scored]:
    """Return the chosen candidate, then those with another text, and then repetitions.

    They are ordered by score; without scores, by how many gave the same answer.
    """
    votes = [c.vote for c in candidates if c.vote is not None]

    def worth(candidate: Scored) -> tuple[float, int, int]:
        score = -1.0 if candidate.score is None else candidate.score
        return (-score, -votes.count(candidate.vote) if candidate.vote is not None else 0, candidate.index)

    first, again, said = [best], list[Scored](), {str(best.text)}
    for candidate in sorted((c for c in candidates if c.id != best.id), key=worth):
        (again if candidate.text in said else first).append(candidate)
        said.add(str(candidate.text))
    return first + again


def leaders(candidates: Sequence[Scored], votes: Mapping[str, float]) -> list[str]:
    """The groups in first place of a tally of these candidates, the winner first; more than one is a tie.

    A group of candidates that were all cut ties with none that has a whole candidate.
    """
    most = max(votes.values(), default=None)
    tied = [group for group, share in votes.items() if share == most]
    if len(tied) < 2:
        return tied
    whole = {name for c, name in zip(candidates, groups_of(candidates), strict=True) if not _cut(c)}
    tied = [group for group in tied if group in whole] or tied
    related = any(isinstance(c.vote, RelatedKey) for c in candidates)
    return sorted(tied) if related else tied  # a dict keeps the order of arrival


def majority_vote(candidates: Sequence[Scored]) -> Scored:
    """The first candidate of the most frequent answer (self-consistency, 2203.11171).

    Where no answer could be read at all, it is the best-scored candidate, or else the first.

    Raises:
        ValueError: there are no candidates.
    """
    return _vote(candidates, tally(candidates), by_score=False)


def weighted_vote(candidates: Sequence[Scored]) -> Scored:
    """The best candidate of the answer whose scores sum highest (best-of-N weighted, 2408.03314 section 5.1).

    Raises:
        ValueError: there are no candidates, or one has no score.
    """
    return _vote(candidates, tally(candidates, weighted=True), by_score=True)


def choose(candidates: Sequence[Scored], how: Select) -> Scored:
    """`best`, `weighted_vote` or `majority_vote`, by name."""
    chooser = {"best": best, "weighted": weighted_vote, "majority": majority_vote}.get(how)
    if chooser is None:
        raise ConfigurationError(f"select={how!r} is not known; use 'best', 'weighted' or 'majority'")
    return chooser(candidates)


def fallback(candidates: Sequence[Scored]) -> Scored:
    """The best answer seen when a search was cut short: finished before partial, then by score, then by votes.

    Raises:
        ValueError: there are no candidates.
    """
    finished = [c for c in candidates if c.finished and not c.truncated] or [c for c in candidates if c.finished]
    pool = finished or list(candidates)
    scored = [c for c in pool if c.score is not None]
    return best(scored) if scored else majority_vote(pool)


# Parts of a message that its text has already, or that are not an answer.
_TEXTS = re.compile(r"text|refusal|message|reason|think|thought")


def has_content(candidate: Candidate) -> bool:
    """Whether a candidate says anything: a text, an answer, a tool call, or a part that is not text, such as an image.

    A server that sends null or "" for a message makes a candidate that does not. Its thoughts are not an answer.
    """
    text = candidate.text
    if (blank := getattr(text, "blank", None)) is not None:
        return not blank  # an adapter knows its framework's objects
    if text and not text.isspace():
        return True
    return bool(candidate.answer and candidate.answer.strip()) or _has_more(candidate.output)


def _has_more(output: object) -> bool:
    """Whether a native output has more than its text; an object that is not a message is content in itself."""
    if output is None or isinstance(output, str):
        return False
    message = fields_of(output)
    parts = next((message[name] for name in ("content", "output") if name in message), output)
    if parts is output:
        return True
    extra = message.get("additional_kwargs")
    if any(field(at, name) for at in (message, extra) for name in ("tool_calls", "function_call", "audio", "refusal")):
        return True
    if not isinstance(parts, list):
        return False
    return any(not (isinstance(part, str) or _TEXTS.search(str(field(part, "type")))) for part in parts)


def with_content(candidates: Iterable[Scored]) -> list[Scored]:
    """Return the candidates that say something."""
    return [c for c in candidates if has_content(c)]


def prefer_content(chosen: Scored, candidates: Sequence[Scored]) -> Scored:
    """Return the chosen candidate; if it says nothing, the best of those that say something, where there are any."""
    others = () if has_content(chosen) else with_content(candidates)
    return fallback(others) if others else chosen


def _vote(candidates: Sequence[Scored], votes: Mapping[str, float], *, by_score: bool) -> Scored:
    if not candidates:
        raise ValueError("no candidates to choose from")
    if not votes:
        return min(candidates, key=_cut) if any(c.score is None for c in candidates) else best(candidates)
    leader = leaders(candidates, votes)[0]
    voters = [c for c, name in zip(candidates, groups_of(candidates), strict=True) if name == leader]
    return best(voters) if by_score else min(voters, key=lambda c: (_cut(c), c.vote != leader))


def _cut(candidate: Scored) -> int:
    """0 for a whole solution; else whether it has come to its answer, at least, when it was cut."""
    if candidate.finished and not candidate.truncated:
        return 0
    return 1 if candidate.answer is not None else 2
