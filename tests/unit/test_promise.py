"""What is promised of accuracy, and how often that is kept."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, SelfConsistency
from tts_plugins.bench import replay_sync
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import LearnedStopping, calibrate
from tts_plugins.policies._calibration.replayed_trials import learned_stops
from tts_plugins.policies._stopping.fitting import Fitter
from tts_plugins.policies._stopping.risk_bounds import LEAST_LEARNED, least_problems, lost_at_most
from tts_plugins.policies._stopping.threshold_rules import ladders
from tts_plugins.policies._stopping.walks import Samples, walk
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.stopping import FadingLead, Threshold, VoteDecided
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Problem, Scored


@pytest.mark.parametrize("problems", [20, 62, 300])
def test_without_any_loss_the_bound_is_nearly_the_binomial_one(problems: int) -> None:
    exact = 1 - 0.1 ** (1 / problems)
    assert lost_at_most([0.0] * problems, rare=True) == pytest.approx(exact, rel=0.12)
    # By votes a stop that has lost nothing may lose a little, the less the more problems have been seen.
    assert 1 / problems**2 < lost_at_most([0.0] * problems, rare=False) < exact


def test_a_bound_is_above_the_mean_and_falls_with_problems_and_confidence() -> None:
    lost = [0.1, -0.1, 0.2, -0.1, 0.0, 0.0, 0.05, -0.02] * 5
    bounds = [lost_at_most(lost * k, rare=False) for k in (1, 4, 16)]
    assert bounds == sorted(bounds, reverse=True) and bounds[-1] > float(np.mean(lost))
    assert (
        lost_at_most(lost, 0.5, rare=False) < lost_at_most(lost, 0.9, rare=False) < lost_at_most(lost, 0.99, rare=False)
    )
    assert lost_at_most([], rare=False) == lost_at_most([1.0, 1.0], rare=True) == 1.0


def test_a_promise_takes_a_least_number_of_problems() -> None:
    assert [least_problems(target) for target in (0.5, 0.05, 0.02, 0.01, 0.005)] == [20, 20, 25, 50, 100]
    assert least_problems(0.0) > 10**9
    few, enough = (LearnedStopping.fit(synthetic_pool(k, 8, seed=5), n=8, target=0.01) for k in (49, 400))
    assert (few.enough, few.at_most, few.weights, few.lost_at_most) == (None, None, (), 0.0)
    assert enough.enough is not None and 0 < (enough.lost_at_most or 0) <= 0.01


@pytest.mark.parametrize("select", ["majority", "weighted", "best"])
@pytest.mark.parametrize("goal", [{"target": 0.0}, {"price": 0.0}, {"price": 0}], ids=str)
def test_a_target_or_a_price_of_nothing_loses_nothing(goal: dict[str, float], select: Select) -> None:
    rule = LearnedStopping.fit(synthetic_pool(60, 8, seed=5), n=8, select=select, orders=10, **goal)
    assert rule.lost_at_most == 0.0 and rule.expected_accuracy == rule.full_accuracy
    assert not rule.weights and rule.enough is None and rule.at_most is None


@pytest.mark.parametrize("goal", [{"target": 0.0}, {"price": 0.0}], ids=str)
def test_a_policy_for_which_tokens_cost_nothing_loses_nothing_and_says_nothing_of_problems(goal: Any) -> None:
    """A learned rule, or fewer samples, may look better on the problems of the fit, by luck."""
    for seed in range(3):
        plan = calibrate(synthetic_pool(90, 8, seed=seed), budgets=(8,), orders=5, **goal).plans[0]
        assert isinstance(plan.fixed, BestOfN | SelfConsistency) and plan.fixed.n == 8 and not plan.stages
        assert plan.over_full is not None and plan.over_full.accuracy == (0.0, 0.0, 0.0)
        assert not any("too few to promise" in note for note in plan.notes)


@pytest.mark.parametrize("select", ["majority", "weighted", "best"])
def test_ladders_run_from_cautious_to_bold(select: Select) -> None:
    for ladder in ladders(select, 16):
        assert len(ladder) >= 7
        for safe, bold in itertools.pairwise(ladder):
            assert (safe.enough or 9) >= (bold.enough or 9) and (safe.at_most or 99) >= (bold.at_most or 99)
            assert safe.fade <= bold.fade or safe.enough != bold.enough


def test_a_climb_ends_at_the_first_rule_that_fails() -> None:
    # A lead of 2 that by luck looks better than one of 3 must not be reached past the 3 that failed.
    pool = synthetic_pool(60, 16, seed=11)
    fitter = Fitter(pool.problems, 16, "majority", how="last", orders=20, seed=0, extra=0.0)
    found = fitter.within(0.02, 0.9, [1e-6])
    for ladder in ladders("majority", 16):
        bounds = [fitter._fitted(1e-6, fitter._thresholds.ends_of(rule), 0.95, simple=rule) for rule in ladder]
        passed = next((i for i, f in enumerate(bounds) if f.lost_at_most > 0.02 + 1e-9), len(bounds))
        if found.simple in ladder:
            assert ladder.index(found.simple) < passed
    assert found.lost_at_most <= 0.02 + 1e-9


def test_a_promise_is_kept_as_often_as_it_says() -> None:
    ground = synthetic_pool(400, 12, seed=1)
    broken = [_loss(ground, LearnedStopping.fit(synthetic_pool(60, 12, seed=100 + i), n=12, target=0.05, orders=20))
              > 0.05 for i in range(20)]  # fmt: skip
    assert sum(broken) <= 4  # 2 are expected at most


def _loss(ground: Pool, rule: LearnedStopping) -> float:
    fixed, early = (replay_sync(ground, SelfConsistency(n=12, stop=stop), orders=2) for stop in (None, rule))
    return fixed.accuracy.value - early.accuracy.value


def test_a_fit_does_not_flip_with_its_seed() -> None:
    pool = synthetic_pool(150, 16, seed=3)
    rules = [LearnedStopping.fit(pool, n=16, target=0.02, seed=seed) for seed in range(4)]
    tokens = [rule.expected_tokens or 0.0 for rule in rules]
    assert max(tokens) < 1.15 * min(tokens)


def test_on_few_exact_checks_nothing_is_promised_but_the_first_that_passes() -> None:
    pool = synthetic_pool(40, 8, seed=6, exact=True)
    rule = LearnedStopping.fit(pool, n=8, select="best", target=0.02, orders=4)
    assert (rule.weights, rule.enough, rule.at_most, rule.lost_at_most) == ((), None, None, 0.0)
    (plan,) = calibrate(pool, budgets=(8,), target=0.02, orders=3).plans
    assert plan.expected is not None and plan.expected_full is not None
    assert plan.expected.accuracy[0] == plan.expected_full.accuracy[0]
    assert plan.expected.tokens[0] < 0.6 * plan.expected_full.tokens[0]


def test_more_confidence_saves_less() -> None:
    pool = synthetic_pool(60, 16, seed=7)
    tokens = [LearnedStopping.fit(pool, n=16, target=0.05, confidence=c).expected_tokens or 0 for c in (0.5, 0.9999)]
    assert tokens[0] < tokens[1]
    for wrong in (0.4, 1.0, True, float("nan")):
        with pytest.raises(ConfigurationError, match="confidence="):
            LearnedStopping.fit(pool, n=8, target=0.05, confidence=wrong)
        with pytest.raises(ConfigurationError, match="confidence="):
            calibrate(pool, confidence=wrong)


PLAIN = dict(n=8, price=0.0, reference=100.0)


@pytest.mark.parametrize("select", ["majority", "weighted", "best"])
@pytest.mark.parametrize(("enough", "at_most", "fade"), [(1.0, None, 0), (None, 3, 0), (0.75, 5, 0), (2.5, None, 2)])
def test_threshold_rules_are_the_simple_rules(
    select: Select, enough: float | None, at_most: int | None, fade: float
) -> None:
    if select == "best" and fade:
        pytest.skip("a score has no lead that could fade")
    rule = LearnedStopping(select=select, enough=enough, at_most=at_most, fade=fade, **PLAIN)  # type: ignore[arg-type]
    pool = synthetic_pool(12, 8, seed=9)
    samples = Samples.of(pool.problems, 8, select, "last")
    paths = walk(samples, 8, select, orders=2, seed=0, reference=1.0)
    stops, problem = learned_stops(rule, paths), Problem("?")
    simple = Threshold(1.0) if select == "best" else VoteDecided(weighted=select == "weighted")
    for row in range(len(paths.problem)):
        records = [pool.problems[paths.problem[row]].candidates[i] for i in paths.taken[row]]
        run = [Scored(problem, text="x", answer=c.answer, tokens=c.tokens, score=c.scored("last"), index=i,
                      finished=True) for i, c in enumerate(records)]  # fmt: skip
        for t in range(1, 8):
            seen, left = run[:t], 8 - t
            said = rule(seen, left)
            assert said == bool(stops[row, t - 1])
            if enough is not None and at_most is None:
                lead = Threshold(min(enough, 1)) if select == "best" else FadingLead(enough, fade, select == "weighted")
                assert said == (simple(seen, left) or lead(seen, left))
            for before in range(t):
                if said and not any(rule(run[:k], 8 - k) for k in range(before + 1, t)):
                    assert before + rule.least(run[:before], 8 - before) <= t


def test_their_fields_are_checked() -> None:
    good = LearnedStopping(select="best", **PLAIN)  # type: ignore[arg-type]
    assert "enough" not in repr(good)
    for wrong in ({"enough": float("nan")}, {"at_most": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            LearnedStopping(select="best", **PLAIN, **wrong)  # type: ignore[arg-type]
    assert "enough=1, at_most=3" in repr(LearnedStopping(select="best", enough=1, at_most=3, **PLAIN))  # type: ignore[arg-type]


def test_learned_weights_are_tested_only_where_there_are_problems_enough() -> None:
    prices, tried = [1e-5, 1e-4], list[bool]()
    for problems in (LEAST_LEARNED - 1, LEAST_LEARNED):
        pool = synthetic_pool(problems, 8, seed=5)
        fitter = Fitter(pool.problems, 8, "weighted", how="last", orders=2, seed=0, extra=0.0)
        fitter.within(0.05, 0.9, prices)
        tried.append("_features" in vars(fitter))  # made for a regression only
    assert tried == [False, True]
