"""Votes of scored candidates: how they are read, grouped and counted. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

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


class Ballots(list[Scored]):
    """Candidates whose votes are read and counted once, for all that ask; nothing but `append` may change it.

    The functions of `tts_plugins.selection` take it wherever they take candidates.
    """

    __slots__ = ("_counts", "_groups", "_highest", "_related", "_scored")

    def __init__(self, candidates: Iterable[Scored] = ()) -> None:
        super().__init__(candidates)
        self._groups: list[str | None] | None = None  # of each candidate's vote, once they are asked for
        self._related = False
        self._counts: dict[bool, _Count] = {}  # by whether they are weighted
        self._highest: float | None = None
        self._scored: bool | None = None  # whether all of them are, once it is asked for

    @classmethod
    def of(cls, candidates: Sequence[Scored]) -> Ballots:
        """Return the candidates themselves where they are counted already."""
        return candidates if isinstance(candidates, Ballots) else cls(candidates)

    def append(self, candidate: Scored) -> None:
        """Add a candidate, and count it where the others were counted."""
        super().append(candidate)
        vote, score = candidate.vote, candidate.score
        if self._highest is not None and score is not None:
            self._highest = max(self._highest, score)
        if score is None and self._scored:
            self._scored = False
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
        if self._scored is None:
            self._scored = all([c.score is not None for c in self])
        return self._scored

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
                    self._shares.setdefault(group, []).append(score_of(c))
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
    return Ballots.of(candidates).counted(weighted).votes


def first_two(candidates: Sequence[Scored], *, weighted: bool = False) -> tuple[float, float] | None:
    """The largest two figures of a tally, 0 where there is no second; None where nobody votes.

    Where `weighted`, candidates without a score do not vote.
    """
    ballots = Ballots.of(candidates)
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
    return Ballots.of(candidates).groups


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


def score_of(candidate: Scored) -> float:
    if candidate.score is None:
        raise ValueError(f"candidate {candidate.id} has no score; pass a verifier, or select by majority")
    return candidate.score
