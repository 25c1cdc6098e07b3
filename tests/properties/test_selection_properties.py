from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins.selection import aggregate, best, fallback, majority_vote, spread, tally, top, weighted_vote
from tts_plugins.types import Problem, Scored

PROBLEM = Problem("x")
rows = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.floats(0, 1)), min_size=1, max_size=12)
orders = st.randoms(use_true_random=False)


def pool(given_rows: Sequence[tuple[str | None, float]]) -> list[Scored]:
    return [Scored(PROBLEM, answer=a, score=s, finished=True) for a, s in given_rows]


def shuffled(candidates: Sequence[Scored], dice: object) -> list[Scored]:
    mixed = list(candidates)
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    return mixed


@given(rows, orders)
def test_best_is_the_maximum_in_any_order(given_rows: list[tuple[str | None, float]], dice: object) -> None:
    candidates = pool(given_rows)
    mixed = shuffled(candidates, dice)
    highest = max(c.score or 0.0 for c in candidates)
    assert best(mixed).score == highest
    assert best(mixed) is next(c for c in mixed if c.score == highest)
    if sum(c.score == highest for c in candidates) == 1:
        assert best(mixed) is best(candidates)


@given(rows, st.integers(0, 14), orders)
def test_top_is_sorted_and_stable(given_rows: list[tuple[str | None, float]], k: int, dice: object) -> None:
    mixed = shuffled(pool(given_rows), dice)
    chosen = top(mixed, k)
    assert len(chosen) == min(k, len(mixed)) and len({c.id for c in chosen}) == len(chosen)
    for a, b in itertools.pairwise(chosen):
        assert a.score > b.score or (a.score == b.score and mixed.index(a) < mixed.index(b))
    rest = [c for c in mixed if c not in chosen]
    assert not chosen or all(c.score <= chosen[-1].score for c in rest)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0])), max_size=12), st.integers(0, 14))
def test_spread_has_the_scores_of_top_and_shares_ties_evenly(given_rows: list[tuple[str, float]], k: int) -> None:
    candidates = [Scored(PROBLEM, parent=p, score=s) for p, s in given_rows]
    chosen = spread(candidates, k)
    assert [c.score for c in chosen] == [c.score for c in top(candidates, k)]
    for i, c in enumerate(chosen):  # each came from a family that had no more than those of its equals
        before = [x.parent for x in chosen[:i]]
        waiting = [x for x in candidates if x not in chosen[:i] and x.score == c.score]
        assert all(before.count(c.parent) <= before.count(x.parent) for x in waiting)
    ranked = [c for c in candidates if c in chosen]
    for parent in "abc":  # within a parent and a score, the order is kept
        for score in (0.0, 0.5, 1.0):
            mine = [c for c in chosen if (c.parent, c.score) == (parent, score)]
            assert mine == [c for c in ranked if (c.parent, c.score) == (parent, score)]


@settings(max_examples=300)
@given(rows, orders)
def test_votes_do_not_depend_on_the_order(given_rows: list[tuple[str | None, float]], dice: object) -> None:
    candidates = pool(given_rows)
    mixed = shuffled(candidates, dice)
    for weighted, vote in ((False, majority_vote), (True, weighted_vote)):
        votes = tally(candidates, weighted=weighted)
        assert tally(mixed, weighted=weighted) == votes
        leaders = [a for a, v in votes.items() if v == max(votes.values())]
        if leaders:
            first = next(c.answer for c in mixed if c.answer in leaders)
            assert vote(mixed).answer == first  # of equals, the first
        if len(leaders) == 1:
            assert vote(mixed).answer == vote(candidates).answer
            if weighted:
                assert vote(mixed).score == max(c.score for c in candidates if c.answer == leaders[0])


@given(rows)
def test_weights(given_rows: list[tuple[str | None, float]]) -> None:
    candidates = pool(given_rows)
    for answer, votes in tally(candidates, weighted=True).items():
        assert votes == math.fsum(s for a, s in given_rows if a == answer)
    assert sum(tally(candidates).values()) == sum(a is not None for a, _ in given_rows)
    same = [c.replace(score=1.0) for c in candidates]
    assert tally(same, weighted=True) == tally(same)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_aggregates_stay_within_the_scores(scores: list[float]) -> None:
    assert aggregate(scores, "last") == scores[-1]
    assert aggregate(scores, "prod") <= aggregate(scores, "min") <= aggregate(scores, "mean") + 1e-12
    assert aggregate(scores, "mean") <= max(scores) + 1e-12


@given(rows, orders)
def test_the_best_answer_seen_returns(given_rows: list[tuple[str | None, float]], dice: object) -> None:
    candidates = [c.replace(finished=i % 2 == 0) for i, c in enumerate(pool(given_rows))]
    chosen = fallback(shuffled(candidates, dice))
    assert chosen.finished and chosen.score == max(c.score for c in candidates if c.finished)
