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
from typing import Literal, Self

from tts_plugins._internal.values import field, fields_of
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Candidate, Scored


class Relation:
    """Which keys mean the same, as far as they were compared: what votes are merged by. One belongs to a run."""

    def __init__(self) -> None:
        self._same: set[frozenset[str]] = set()

    def add(self, a: str, b: str) -> None:
        """Note that two keys mean the same."""
        self._same.add(frozenset((str(a), str(b))))

    def same(self, a: str, b: str) -> bool:
        """Whether two keys were found to mean the same."""
        return a == b or frozenset((str(a), str(b))) in self._same


class RelatedKey(str):
    """An answer's key that is compared by meaning with the others of its run."""

    relation: Relation

    def __new__(cls, key: str, relation: Relation) -> Self:
        made = super().__new__(cls, key)
        made.relation = relation
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


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
    return min(candidates, key=lambda c: (-_score(c), _cut(c)))


def top(candidates: Sequence[Scored], k: int) -> list[Scored]:
    """The `k` best, best first; fewer where there are fewer, none of none. The order of equals is kept.

    Raises:
        ValueError: a candidate has no score, or `k` is negative.
    """
    if k < 0:
        raise ValueError(f"top: k={k} must be at least 0")
    return sorted(candidates, key=lambda c: -_score(c))[:k]


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
    for _, group in groupby(top(candidates, len(candidates)), key=_score):
        equals = list(group)
        while equals and len(chosen) < k:
            nearest = min(equals, key=lambda c: taken[c.parent])  # min keeps the first of equals
            equals.remove(nearest)
            chosen.append(nearest)
            taken[nearest.parent] += 1
    return chosen


class Ballots(list[Scored]):
    """Candidates whose votes are read and counted once, for all that ask; nothing but `append` may change it.

    The functions of this module take it wherever they take candidates.
    """

    __slots__ = ("_counts", "_groups", "_highest", "_related")

    def __init__(self, candidates: Iterable[Scored] = ()) -> None:
        super().__init__(candidates)
        self._groups: list[str | None] | None = None  # of each candidate's vote, once they are asked for
        self._related = False
        self._counts: dict[bool, _Count] = {}  # by whether they are weighted
        self._highest: float | None = None

    def append(self, candidate: Scored) -> None:
        """Add a candidate, and count it where the others were counted."""
        super().append(candidate)
        vote, score = candidate.vote, candidate.score
        if self._highest is not None and score is not None:
            self._highest = max(self._highest, score)
        if self._groups is None:
            return
        if self._related or type(vote) not in _PLAIN:  # it may change the groups of all others
            self._groups = None
            self._counts.clear()
            return
        self._groups.append(vote)
        if score is None:
            self._counts.pop(True, None)
        if vote is not None:
            for count in self._counts.values():
                count.add(vote, score or 0.0)

    @property
    def highest(self) -> float:
        """The highest score; below 0 where there is none."""
        if self._highest is None:
            self._highest = max([c.score for c in self if c.score is not None], default=-1.0)
        return self._highest

    @property
    def all_scored(self) -> bool:
        """Whether each of them has a score."""
        return True in self._counts or all([c.score is not None for c in self])

    @property
    def groups(self) -> list[str | None]:
        """The group of each candidate's vote; None where it has none."""
        if self._groups is None:
            votes = [c.vote for c in self]
            groups = _groups(votes)
            self._related = groups is not None
            self._groups = votes if groups is None else [None if vote is None else groups[vote] for vote in votes]
        return self._groups

    def counted(self, weighted: bool) -> _Count:
        """The votes, or the sums of scores."""
        if (found := self._counts.get(weighted)) is None:
            found = self._counts[weighted] = _Count(self, self.groups, weighted)
        return found


class _Count:
    """A tally that goes on.

    Attributes:
        votes: by group, in order of first appearance.
        leader: a group of the most; None where nobody votes.
        second: the most of the others.
    """

    __slots__ = ("_shares", "leader", "second", "votes")

    def __init__(self, candidates: Sequence[Scored], groups: Sequence[str | None], weighted: bool) -> None:
        self.votes: dict[str, float] = {}
        self._shares: dict[str, list[float]] | None = None
        if weighted:
            self._shares = {}
            for c, group in zip(candidates, groups, strict=True):
                if group is not None:
                    self._shares.setdefault(group, []).append(_score(c))
            # fsum: 0.1 + 0.2 + 0.3 must equal 0.6 in any order, else the order of arrival decides close votes.
            self.votes = {group: math.fsum(shares) for group, shares in self._shares.items()}
        else:
            for group in groups:
                if group is not None:
                    self.votes[group] = self.votes.get(group, 0.0) + 1.0
        self.leader = max(self.votes, key=self.votes.__getitem__, default=None)
        self.second = max([votes for group, votes in self.votes.items() if group != self.leader], default=0.0)

    def add(self, group: str, score: float) -> None:
        """Count one more."""
        if self._shares is None:
            votes = self.votes.get(group, 0.0) + 1.0
        else:
            shares = self._shares.setdefault(group, [])
            shares.append(score)
            votes = math.fsum(shares)
        self.votes[group] = votes
        if self.leader is None:
            self.leader = group
        elif group != self.leader:
            if votes > (most := self.votes[self.leader]):
                self.leader, self.second = group, most
            else:
                self.second = max(self.second, votes)


def tally(candidates: Sequence[Scored], *, weighted: bool = False) -> dict[str, float]:
    """Votes by answer, in order of first appearance; scores instead of ones where `weighted`.

    Candidates whose answer could not be read do not vote.
    """
    ballots = candidates if isinstance(candidates, Ballots) else Ballots(candidates)
    return ballots.counted(weighted).votes


def first_two(candidates: Sequence[Scored], *, weighted: bool = False) -> tuple[float, float] | None:
    """The largest two figures of a tally, 0 where there is no second; None where nobody votes.

    Where `weighted`, candidates without a score do not vote.
    """
    ballots = candidates if isinstance(candidates, Ballots) else Ballots(candidates)
    if weighted and not ballots.all_scored:
        ballots = Ballots([c for c in candidates if c.score is not None])
    count = ballots.counted(weighted)
    return None if count.leader is None else (count.votes[count.leader], count.second)


def grouped(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The group of each vote, named by the vote in it that most candidates gave.

    Votes form a group where each means the same as each other one in it (a clique): "means the same" is not transitive.
    The order of the candidates changes nothing.
    """
    votes = [c.vote for c in candidates]
    groups = _groups(votes)
    return {vote: vote for vote in votes if vote is not None} if groups is None else groups


def groups_of(candidates: Sequence[Scored]) -> list[str | None]:
    """The group of each candidate's vote; None where it has none."""
    return candidates.groups if isinstance(candidates, Ballots) else Ballots(candidates).groups


def group_of(candidates: Sequence[Scored], vote: str | None) -> str | None:
    """The group of a vote; None where no candidate gave it."""
    if vote is None:
        return None
    return next((name for c, name in zip(candidates, groups_of(candidates), strict=True) if c.vote == vote), None)


_PLAIN = frozenset({str, type(None)})


def _groups(votes: Sequence[str | None]) -> dict[str, str] | None:
    """The group of each vote; None where each is a group of its own, since nothing relates them."""
    if set(map(type, votes)) <= _PLAIN:  # as nearly all are
        return None
    relation = next((vote.relation for vote in votes if isinstance(vote, RelatedKey)), None)
    if relation is None:
        return None
    counts = Counter([vote for vote in votes if vote is not None])
    cliques: list[list[str]] = []
    for vote in sorted(counts, key=lambda vote: (-counts[vote], vote)):
        home = next((clique for clique in cliques if all(relation.same(vote, other) for other in clique)), None)
        if home is None:
            cliques.append([vote])
        else:
            home.append(vote)
    return {vote: clique[0] for clique in cliques for vote in clique}


def semantic_entropy(candidates: Sequence[Scored]) -> float:
    """How much the answers disagree, in nats: the entropy of the shares of the groups (Farquhar et al. 2024).

    It is 0 where all are of one group. A candidate without a readable answer is a group of its own.
    """
    if not candidates:
        return 0.0
    unread = sum(c.vote is None for c in candidates)
    shares = [*tally(candidates).values(), *[1.0] * unread]
    return abs(math.fsum(-share / len(candidates) * math.log(share / len(candidates)) for share in shares)) + 0.0


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


def _score(candidate: Scored) -> float:
    if candidate.score is None:
        raise ValueError(f"candidate {candidate.id} has no score; pass a verifier, or select by majority")
    return candidate.score
