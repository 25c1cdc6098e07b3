from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tts_plugins import solve_sync
from tts_plugins.bench import replay_sync
from tts_plugins.errors import ConfigurationError
from tts_plugins.stopping import (
    AllOf,
    AnyOf,
    BetaConfident,
    FadingLead,
    Rule,
    ShippedRule,
    Threshold,
    Unanimous,
    VoteDecided,
    VoteLead,
    shipped_rule,
    wave_growth,
)
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Problem, Scored

PROBLEM = Problem("x")


def votes(answers: Sequence[str | None], scores: Sequence[float | None] | None = None) -> list[Scored]:
    given = scores or [None] * len(answers)
    return [Scored(PROBLEM, answer=a if a != "-" else None, score=s) for a, s in zip(answers, given, strict=True)]


def test_threshold() -> None:
    rule = Threshold(0.9)
    assert not rule([], 8) and not rule(votes("a", [None]), 8) and not rule(votes("a", [0.89]), 8)
    assert rule(votes("ab", [0.9, 0.1]), 8) and rule.least([], 8) == 1
    assert Threshold(0)(votes("a", [0.0]), 1)


def test_vote_decided_stops_when_the_lead_cannot_be_made_up() -> None:
    rule = VoteDecided()
    assert not rule(votes("aaaa"), 4) and rule(votes("aaaaa"), 3)
    assert not rule(votes("aaab"), 2) and rule(votes("aaab"), 1)
    assert rule([], 0) and not rule([], 1)
    assert rule.least([], 8) == 5 and rule.least([], 16) == 9 and rule.least(votes("aaa"), 5) == 2


def test_votes_that_cannot_be_read_decide_nothing() -> None:
    assert not VoteDecided()(votes("-----"), 3) and not Unanimous(2)(votes("--"), 3) and not VoteLead(1)(votes("-"), 3)
    assert not BetaConfident(0.6)(votes("----"), 3)


def test_vote_decided_by_weight() -> None:
    rule = VoteDecided(weighted=True)
    assert rule(votes("aab", [1.0, 1.0, 0.5]), 1) and not rule(votes("aab", [1.0, 0.5, 0.5]), 1)
    assert rule(votes("aab", [1.0, 1.0, None]), 1)
    # 0.1 * 3 - 0.3 in rounded sums is not a lead, and neither is what rounding adds to a lead of exactly 1.
    assert not rule(votes("aaaab", [1.0, 0.1, 0.1, 0.1, 0.3]), 1)


def test_vote_lead() -> None:
    assert VoteLead(2)(votes("abaa"), 9) and not VoteLead(3)(votes("abaa"), 9)
    assert VoteLead(3).least([], 9) == 3 and VoteLead(3).least(votes("aa"), 9) == 1
    assert VoteLead(3).least(votes("ab"), 9) == 3 and VoteLead(2, weighted=True).least(votes("a", [0.5]), 9) == 2


def test_beta_confident_is_adaptive_consistency() -> None:
    rule = BetaConfident(0.95)
    assert [rule(votes("a" * n), 40) for n in range(1, 6)] == [False, False, False, True, True]  # 1 - 2**-5 >= 0.95
    assert rule.least([], 40) == 4 and rule.least(votes("aa"), 40) == 2 and rule.least(votes("ab"), 1) == 1
    assert not rule(votes("aaab"), 40)


def test_unanimous_looks_at_the_last_ones() -> None:
    rule = Unanimous(3)
    assert rule(votes("abbb"), 9) and not rule(votes("bbab"), 9) and not rule(votes("bb"), 9)
    assert rule.least([], 9) == 3 and rule.least(votes("abb"), 9) == 1 and rule.least(votes("a-"), 9) == 3


def test_rules_combine() -> None:
    either, both = Threshold(0.9) | VoteLead(3), Threshold(0.9) & VoteLead(3)
    seen = votes("aaa", [0.1, 0.2, 0.3])
    assert either(seen, 5) and not both(seen, 5)
    assert either.least([], 8) == 1 and both.least([], 8) == 3
    assert either == AnyOf(rules=(Threshold(0.9), VoteLead(3))) and hash(both) == hash(AllOf(rules=both.rules))
    assert isinstance(either & both, AllOf) and isinstance(either | both, AnyOf)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Threshold(1.1), lambda: Threshold(float("nan")), lambda: Threshold(True), lambda: Threshold("1"),
        lambda: VoteLead(0), lambda: VoteLead(1.5), lambda: VoteLead(True), lambda: Unanimous(1),
        lambda: BetaConfident(0.5), lambda: BetaConfident(1.0), lambda: BetaConfident("0.9"),
        lambda: VoteDecided(weighted="false"), lambda: VoteLead(2, weighted=1),
        lambda: AnyOf(rules=()), lambda: AllOf(rules=[]), lambda: AnyOf(rules=(0.9,)), lambda: Threshold(0.9) | 3,
        lambda: AllOf(rules=(Threshold,)), lambda: AnyOf(rules=Threshold(1.0)),
        lambda: BestOfN(stop=0.9), lambda: BestOfN(stop=Threshold), lambda: SelfConsistency(stop="vote_decided"),
        lambda: SelfConsistency(stop=SelfConsistency()), lambda: BestOfN(n=0), lambda: BestOfN(wave=0),
        lambda: BestOfN(select="first"),
    ],
)  # fmt: skip
def test_wrong_settings_fail_at_construction(make: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^\w+: \w+="):
        make()


def test_a_list_of_rules_is_the_same_as_a_tuple() -> None:
    """Regression: what from_dict gave was not equal to what to_dict had been asked of."""
    rule = AnyOf(rules=[Threshold(0.9), VoteLead(2)])  # type: ignore[arg-type]
    assert rule == AnyOf(rules=(Threshold(0.9), VoteLead(2))) == Rule.from_dict(rule.to_dict())


def test_a_rule_of_somebody_else_needs_no_base_class() -> None:
    class Never:
        def __call__(self, seen: Sequence[Scored], left: int) -> bool:
            return False

        def least(self, seen: Sequence[Scored], left: int) -> int:
            return 3

    both = AllOf(rules=(Threshold(0.0), Never()))  # type: ignore[arg-type]
    assert both.least([], 9) == 3 and not both(votes("a", [1.0]), 1)
    assert BestOfN(stop=Never()).n == 8  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has no form in JSON"):
        both.to_dict()


@pytest.mark.parametrize("stop", [Threshold(0.9), VoteDecided() | Threshold(0.9), VoteLead(2) & Threshold(0.5)])
def test_a_rule_by_scores_is_refused_where_nobody_scores(stop: Rule) -> None:
    model = ScriptedModel(["4"])
    with pytest.raises(ConfigurationError, match="goes by scores, and there is no verifier"):
        solve_sync("2 + 2", model=model, strategy=SelfConsistency(n=4, stop=stop))
    assert model.requests == []
    assert not VoteDecided().needs_scores and not (VoteLead(2) | VoteDecided()).needs_scores


@pytest.mark.parametrize("name", ["careful", "balanced", "bold"])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 12, 16, 40, 100])
def test_shipped_rules_are_known_by_name(name: Any, n: int) -> None:
    votes, weighted, best = (
        SelfConsistency(n=n, stop=name), BestOfN(n=n, select="weighted", stop=name), BestOfN(n=n, stop=name)
    )  # fmt: skip
    assert isinstance(votes.stop, FadingLead) and not votes.stop.weighted
    assert isinstance(weighted.stop, FadingLead) and weighted.stop.weighted
    assert best.stop == Threshold(1.0)  # exact checks: the first that passes
    assert BaseStrategy.from_dict(json.loads(json.dumps(votes.to_dict()))) == votes
    assert BaseStrategy.from_dict({"type": "self_consistency", "n": n, "stop": name}) == votes


def test_the_shipped_rules_go_from_careful_to_bold() -> None:
    pool = synthetic_pool(60, 40, seed=2)
    for n in (8, 16, 40):
        names: tuple[ShippedRule, ...] = ("careful", "balanced", "bold")
        made = [replay_sync(pool, SelfConsistency(n=n, stop=name, wave=1), orders=2) for name in names]
        samples = [found.samples.value for found in made]
        assert n > samples[0] > samples[1] > samples[2] > 1


@pytest.mark.parametrize("name", ["careful", "balanced", "bold"])
def test_a_shipped_rule_pays_for_no_sample_that_it_can_do_without(name: Any) -> None:
    pool = synthetic_pool(40, 16, seed=2)
    alone, own = (replay_sync(pool, SelfConsistency(n=16, stop=name, wave=wave), orders=2) for wave in (1, None))
    assert own.samples.value == alone.samples.value and own.accuracy.value == alone.accuracy.value
    votes = SelfConsistency(n=16, stop=name).stop
    assert wave_growth(votes) == 0 and wave_growth(votes | Threshold(0.9)) == wave_growth(lambda: None) == 2  # type: ignore[operator]


def test_a_fading_lead_asks_for_less_later() -> None:
    rule = FadingLead(3, 1.5)
    assert not rule(votes("aa"), 14) and rule(votes("aaa"), 13)
    late = votes("ababababaa")  # a lead of 2 after 10
    assert not rule(late, 6) and rule(late, 4)  # of 16, 2.06 is asked for; of 14, 1.93
    assert rule.least([], 16) == 3 and rule.least(votes("aa"), 14) == 1
    assert not FadingLead(2)(votes("--"), 6)  # nobody leads


def test_no_shipped_rule_stops_before_it_said_it_could() -> None:
    rng = random.Random(4)
    for name in ("careful", "balanced", "bold"):
        for n in (8, 16, 40):
            rule = shipped_rule(name, n, "majority")
            seen: list[Scored] = []
            for count in range(n):
                least = rule.least(seen, n - count)
                tail = [rng.choice("abc") for _ in range(min(least - 1, n - count))]
                for k in range(1, len(tail) + 1):
                    assert not rule([*seen, *votes(tail[:k])], n - count - k)
                seen += votes(rng.choice("abc"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SelfConsistency(n=8, stop="brave"), "'careful', 'balanced', 'bold'"),  # type: ignore[arg-type]
        (lambda: FadingLead(-1), "k=-1"),
        (lambda: FadingLead(2, 2), "fade=2 must be below k=2"),
        (lambda: FadingLead(True), "k=True"),
        (lambda: FadingLead(float("nan")), "k=nan"),
        (lambda: FadingLead(3, 1, weighted=1), "weighted=1"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_wrong_shipped_rules_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        make()
