"""Votes that are counted as they come are those that are counted anew each time, and cost no more for being many."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_plugins import Problem
from tts_plugins.selection import Ballots, RelatedKey, Relation, first_two, groups_of, tally
from tts_plugins.stopping import BetaConfident, FadingLead, Rule, Threshold, Unanimous, VoteDecided, VoteLead, stops
from tts_plugins.types import Candidate, Scored

PROBLEM = Problem("q")
RULES: list[Rule] = [
    Threshold(0.9), VoteDecided(), VoteDecided(weighted=True), VoteLead(2), VoteLead(1, weighted=True),
    FadingLead(2.5, 1.5), FadingLead(1.5, weighted=True), BetaConfident(0.8), Unanimous(3),
    Threshold(0.95) | VoteLead(3), Unanimous(2) & VoteLead(2),
]  # fmt: skip
votes = st.none() | st.sampled_from("abc")
candidates = st.lists(
    st.builds(lambda v, s: Scored(PROBLEM, text="x", answer=v, score=s), votes, st.none() | st.floats(0, 1)),
    min_size=1, max_size=12,
)  # fmt: skip


@given(seen=candidates)
def test_what_is_counted_as_it_comes_is_what_is_counted_anew(seen: Sequence[Scored]) -> None:
    growing = Ballots()
    for i, candidate in enumerate(seen, 1):
        growing.append(candidate)
        sofar, scored = list(seen[:i]), [c for c in seen[:i] if c.score is not None]
        assert groups_of(growing) == groups_of(sofar) and tally(growing) == tally(sofar)
        for weighted, among in ((False, sofar), (True, scored)):
            counts = [*sorted(tally(among, weighted=weighted).values(), reverse=True), 0.0, 0.0]
            voted = any(c.vote is not None for c in among)
            assert first_two(growing, weighted=weighted) == ((counts[0], counts[1]) if voted else None)
        for rule in RULES:
            assert rule(growing, 12 - i) == rule(sofar, 12 - i), rule


def test_votes_by_meaning_are_grouped_anew_with_each_that_comes() -> None:
    relation = Relation()
    growing = Ballots([Scored(PROBLEM, answer=RelatedKey("two", relation))])
    assert tally(growing) == {"two": 1.0}
    relation.add("two", "2")
    growing.append(Scored(PROBLEM, answer=RelatedKey("2", relation)))
    assert list(tally(growing).values()) == [2.0] and first_two(growing) == (2.0, 0.0)


def test_a_plain_vote_may_be_followed_by_one_by_meaning() -> None:
    relation = Relation()
    relation.add("two", "2")
    growing = Ballots([Scored(PROBLEM, answer="two")])
    assert tally(growing) == {"two": 1.0}
    growing.append(Scored(PROBLEM, answer=RelatedKey("2", relation)))
    assert list(tally(growing).values()) == [2.0]


class Sorting:
    """A rule of somebody else, who sorts what it is given."""

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        assert isinstance(seen, list)
        seen.sort(key=lambda c: c.score)
        seen.clear()
        return False

    def least(self, seen: Sequence[Scored], left: int) -> int:
        return 1


def test_the_rule_of_somebody_else_changes_nothing_for_others() -> None:
    growing = Ballots([Scored(PROBLEM, answer="a", score=0.9), Scored(PROBLEM, answer="b", score=0.1)])
    before = list(growing)
    either = Threshold(0.95) | Sorting()  # type: ignore[operator]
    assert not stops(Sorting(), growing, 1) and not stops(either, growing, 1) and growing == before


@pytest.mark.parametrize("rule", [VoteDecided(), VoteLead(10**6), FadingLead(10**6, weighted=True), Threshold(1.0)])
def test_a_rule_does_not_look_at_all_candidates_for_each(rule: Rule) -> None:
    """Regression: a rule read all votes at each arrival, so that n candidates took n times n readings."""
    read = 0

    class Counted(Scored):
        @property
        def vote(self) -> str | None:
            nonlocal read
            read += 1
            return Candidate.vote.fget(self)  # type: ignore[attr-defined,no-any-return]

    dice, growing = random.Random(1), Ballots()
    for i in range(200):
        growing.append(Counted(PROBLEM, answer=str(dice.randrange(50)), score=0.5))
        stops(rule, growing, 10**9 + 200 - i)
    assert read <= 3 * 200
