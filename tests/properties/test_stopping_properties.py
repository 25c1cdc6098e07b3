from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins.selection import majority_vote, weighted_vote
from tts_plugins.stopping import (
    BetaConfident,
    Rule,
    Threshold,
    Unanimous,
    VoteDecided,
    VoteLead,
    _beta_above_half,
)
from tts_plugins.types import Problem, Scored

PROBLEM = Problem("x")
answers = st.sampled_from(["a", "b", "c", None])
scores = st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0])
rows = st.lists(st.tuples(answers, scores), max_size=8)


def pool(given_rows: Sequence[tuple[str | None, float]]) -> list[Scored]:
    return [Scored(PROBLEM, answer=a, score=s, index=i) for i, (a, s) in enumerate(given_rows)]


def test_vote_decided_never_changes_the_majority_over_all_completions() -> None:
    rule, decided = VoteDecided(), 0
    for n in range(1, 7):
        for k in range(n):
            for head in itertools.product("ab-", repeat=k):
                seen = pool([(None if a == "-" else a, 0.0) for a in head])
                if not rule(seen, n - k):
                    continue
                decided += 1
                now = majority_vote(seen).answer
                for tail in itertools.product("abz-", repeat=n - k):
                    rest = pool([(None if a == "-" else a, 0.0) for a in tail])
                    # In whichever order they stand in the end: candidates arrive out of order.
                    assert majority_vote(seen + rest).answer == majority_vote(rest + seen).answer == now
    assert decided > 100


@settings(max_examples=300)
@given(rows, rows, st.integers(0, 3), st.randoms(use_true_random=False))
def test_vote_decided_never_changes_the_weighted_vote(
    head: list[tuple[str | None, float]], tail: list[tuple[str | None, float]], lost: int, dice: object
) -> None:
    seen = pool(head)
    if VoteDecided(weighted=True)(seen, len(tail) + lost) and len(tail) + lost:
        whole = seen + pool(tail)
        dice.shuffle(whole)  # type: ignore[attr-defined]
        assert weighted_vote(whole).answer == weighted_vote(seen).answer


simple = st.one_of(
    st.builds(Threshold, st.sampled_from([0.0, 0.5, 1.0])),
    st.builds(VoteDecided, st.booleans()),
    st.builds(VoteLead, st.integers(1, 4), st.booleans()),
    st.builds(BetaConfident, st.floats(0.51, 0.99)),
    st.builds(Unanimous, st.integers(2, 5)),
)
rules = st.recursive(
    simple, lambda inner: st.builds(lambda a, b, both: a & b if both else a | b, inner, inner, st.booleans()),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=200)
@given(rules, rows, rows)
def test_no_rule_fires_earlier_than_it_says(
    rule: Rule, head: list[tuple[str | None, float]], tail: list[tuple[str | None, float]]
) -> None:
    seen, left = pool(head), len(tail)
    least = rule.least(seen, left)
    assert isinstance(least, int) and least >= 1
    if rule(seen, left):
        return  # it has fired already, and nobody asks
    for k in range(1, min(least, left + 1)):
        assert not rule(seen + pool(tail[:k]), left - k), f"least={least}, and it fired after {k}"


@given(rules, rows, st.integers(0, 40))
def test_the_least_can_be_reached_or_is_beyond_what_is_left(
    rule: Rule, head: list[tuple[str | None, float]], left: int
) -> None:
    assert rule.least(pool(head), left) <= max(left, 6)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 1), (5, 5), (2, 7), (30, 22)])
def test_the_confidence_is_the_beta_integral(first: int, second: int) -> None:
    x = np.linspace(0.5, 1, 200_001)
    log_beta = math.lgamma(first + 1) + math.lgamma(second + 1) - math.lgamma(first + second + 2)
    density = x**first * (1 - x) ** second / math.exp(log_beta)
    area = float(np.sum((density[1:] + density[:-1]) / 2 * np.diff(x)))
    assert _beta_above_half(first, second) == pytest.approx(area, abs=1e-8)


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_confidence_is_monotone_and_symmetric(first: int, second: int) -> None:
    assert _beta_above_half(first, second) + _beta_above_half(second, first) == pytest.approx(1.0)
    assert _beta_above_half(first + 1, second) >= _beta_above_half(first, second) >= _beta_above_half(first, second + 1)


@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=30), st.floats(0.55, 0.99))
def test_beta_confident_fires_exactly_at_its_confidence(given_answers: list[str], p: float) -> None:
    seen = pool([(a, 0.0) for a in given_answers])
    counts = sorted((given_answers.count("a"), given_answers.count("b")), reverse=True)
    assert BetaConfident(p)(seen, 5) == (_beta_above_half(*counts) >= p)
