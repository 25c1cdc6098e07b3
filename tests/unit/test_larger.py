"""Two models under one policy: who is asked when, what is paid, what is chosen from two pools, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, Budget, ComputeOptimal, Result, Revision, SelfConsistency, solve_sync
from tts_plugins.bench import replay_sync
from tts_plugins.errors import BudgetExhausted, ConfigurationError, DataError, RequestRefused
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.policies import Ladder, Plan, Rung, calibrate
from tts_plugins.policies._calibration.calibration import Calibration, ladder_of
from tts_plugins.policies._calibration.larger_model import LargerPool
from tts_plugins.policies._calibration.selection import cascades, full_of
from tts_plugins.policies._calibration.table import Choice, Goal, Option, Table, follow
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.verifiers.recorded import RecordedVerifier

LARGER = Rung(strategy=SelfConsistency(n=3), model="large", price=10)
LADDER = Ladder([SelfConsistency(n=2), LARGER], enough=0.9)
POLICY = ComputeOptimal(plans=(Plan(budget=5, fixed=LADDER),), larger="large")


def model(answers: Sequence[Any], name: str, price: float = 1e-6) -> ScriptedModel:
    return ScriptedModel([f"#### {a}" if isinstance(a, int) else a for a in answers], name=name, price=price)


def solved(small: Sequence[Any], large: Sequence[Any], policy: ComputeOptimal = POLICY,
           **settings: Any) -> tuple[Result, int, int]:  # fmt: skip
    first, second = model(small, "small"), model(large, "large", 1e-5)
    result = solve_sync("?", model=first, strategy=policy.with_larger(second), seed=3, **settings)
    return result, sum(map(len, first.requests)), sum(map(len, second.requests))


def test_an_easy_problem_stays_with_the_smaller_model() -> None:
    result, small, large = solved([7], [8])
    assert (result.answer, small, large) == ("7", 2, 0)


def test_a_hard_one_goes_to_the_larger_whose_samples_alone_are_chosen_among() -> None:
    result, small, large = solved([1, 2], [9, 1, 9])
    assert (result.answer, small, large) == ("9", 2, 3) and result.usage.calls == 5 == len(result.candidates)
    assert {c.id for c in result.candidates} >= {result.best.id}
    asked = [event["model"] for event in result.trace if event["kind"] == "request"]
    assert set(asked) == {"small", "large"} and asked[0] == "small"
    # Each at its own price: the larger's tokens are ten times dearer.
    spent = {m: sum(e["usage"]["usd"] for e in result.trace if e["kind"] == "request" and e["model"] == m)
             for m in ("small", "large")}  # fmt: skip
    assert spent["large"] == pytest.approx(15 * spent["small"]) and result.usage.usd == pytest.approx(
        sum(spent.values())
    )


@pytest.mark.parametrize("budget", [Budget(calls=2), Budget(usd=7e-5), Budget(tokens=31)])
def test_where_the_larger_cannot_be_paid_the_smaller_s_answer_stands(budget: Budget) -> None:
    result, small, large = solved([1, 2], [9], budget=budget)
    assert (result.answer, small, large) == ("1", 2, 0) and result.stopped == "budget"
    assert any(event["kind"] == "escalation_failed" for event in result.trace)


def test_a_larger_model_that_fails_costs_what_it_asked_and_no_answer() -> None:
    result, small, large = solved([1, 2], [RequestRefused("400")])
    assert (result.answer, small) == ("1", 2) and large >= 3 and result.usage.calls == 2 + 3


def test_a_partly_paid_larger_model_answers_with_what_came() -> None:
    result, small, large = solved([1, 2], [9], budget=Budget(calls=3))
    assert (result.answer, small, large) == ("9", 2, 1)


def test_the_larger_model_at_once() -> None:
    policy = ComputeOptimal(plans=(Plan(budget=5, fixed=Ladder([LARGER])),), larger="large")
    assert [*solved([1], [9], policy)[1:]] == [0, 3]
    with pytest.raises(BudgetExhausted):
        solved([1], [9], policy, budget=Budget(usd=1e-6))


def test_models_are_refused_unless_told() -> None:
    with pytest.raises(ConfigurationError, match=r"larger 'large', and runs with 'other'.*any_model=True"):
        POLICY.with_larger(model([1], "other"))
    assert replace(POLICY, any_model=True).with_larger(model([1], "other"))
    with pytest.raises(ConfigurationError, match=r"'large', which small cannot become.*policy.with_larger\(model\)"):
        solve_sync("?", model=model([1], "small"), strategy=POLICY)
    with pytest.raises(ConfigurationError, match="larger='large' is not a model"):
        POLICY.with_larger("large")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="gives whole answers only"):
        Rung(strategy=Revision(chains=1, rounds=2), model="large")


def test_a_file_holds_both_names(tmp_path: Path) -> None:
    path, large = tmp_path / "policy.json", model([9], "large")
    replace(POLICY, model="small").with_larger(large).save(path)
    again = ComputeOptimal.from_file(path, model="small", larger=large)
    assert again == replace(POLICY, model="small")
    assert solve_sync("?", model=model([1, 2], "small"), strategy=again, seed=3).answer == "9"
    with pytest.raises(ConfigurationError, match="larger 'large'"):
        ComputeOptimal.from_file(path, larger=model([9], "other"))


N = 4
SMALL, LARGE = synthetic_pool(120, N, seed=8), synthetic_pool(120, N, seed=8, strength=12)
OPTIONS = [SelfConsistency(n=1), SelfConsistency(n=2), SelfConsistency(n=N), BestOfN(n=2), BestOfN(n=N)]


def of_two_kinds(name: str, hard: float, problems: int = 120) -> Pool:
    """Every other problem is easy for everybody; on the others wrong answers scatter, and it is right so often."""
    rng = random.Random(name)

    def made(p: float) -> PoolCandidate:
        right = rng.random() < p
        return PoolCandidate(answer="right" if right else f"wrong{rng.randrange(12)}", tokens=100, correct=right)

    return Pool(
        header=PoolHeader(model=name, dataset="d"),
        problems=tuple(
            PoolProblem(id=f"p{i}", prompt=f"{i}?", candidates=tuple(made(hard if i % 2 else 1.0) for _ in range(N)))
            for i in range(problems)
        ),
    )


def test_what_a_cascade_is_compared_with_is_measured_on_the_problems_held_out_too() -> None:
    """Regression: the one strategy for all problems was followed on the walks of the fit, which raised."""
    small, large = synthetic_pool(60, 8, exact=True), synthetic_pool(60, 8, exact=True, strength=50)
    given: dict[str, Any] = {"price": 1e-5, "orders": 5, "seed": 1, "budgets": (8,)}
    (plan,), (alone,) = (
        calibrate(small, **given, **more).plans for more in ({"larger": large, "larger_price": 10}, {})
    )
    assert isinstance(plan.fixed, Ladder) and plan.expected_fixed == alone.expected


def test_a_cascade_is_chosen_where_it_pays_and_pays_on_other_problems() -> None:
    small, large = of_two_kinds("small", 0.2), of_two_kinds("large", 0.9)
    given: dict[str, Any] = {"budgets": (2 * N,), "options": OPTIONS[:3], "larger": large, "orders": 4}
    policy = calibrate(small, larger_price=10, price=2e-4, **given)
    (plan,) = policy.plans
    assert isinstance(plan.fixed, Ladder) and len(plan.fixed.rungs) == 2 and plan.models == ("large",)
    assert plan.over_fixed is not None and plan.expected is not None and plan.expected_fixed is not None
    # Against the larger model alone, which is best of what does not look.
    assert plan.over_fixed.tokens is not None and plan.over_fixed.tokens[1] > 1.05
    assert plan.over_fixed.accuracy[0] > -0.05
    assert plan.expected_fixed.accuracy[0] > 0.9 and plan.expected_fixed.tokens[0] >= 1000
    found = replay_sync(small, policy.with_larger(ReplayModel(large)), orders=3)
    low, high = plan.expected.accuracy[1:]
    assert low - 0.03 <= found.accuracy.value <= high + 0.03
    free, dear = (calibrate(small, price=1e-4, larger_price=p, **given) for p in (0.5, 100))
    first = free.plans[0].fixed
    assert isinstance(first, Ladder) and len(first.rungs) == 1  # nothing is gained by asking the smaller one first
    assert not dear.plans[0].models and dear.larger == "large"


def test_the_engine_does_what_was_simulated() -> None:
    """Walk by walk, with both pools replayed: the same bin, and on the larger model the mean of its walks."""
    larger = LargerPool.beside(SMALL, LARGE, price=3.0, extra=0.0)
    work = Calibration(SMALL, signal="agreement", bins=2, options=OPTIONS, measured=(), aggregate="last", orders=2,
                       extra=0.0, wave=1, seed=0, larger=larger)  # fmt: skip
    table = work.table(2 * N)
    looks = cascades(table, np.ones(len(SMALL.problems), dtype=bool))
    look = next(c for c in looks if c.fixed == 1 and _then(table, c).beside is None and _then(table, c).larger == 1)
    said, option = follow(table, look), _then(table, look)
    policy = ladder_of(table, look).with_models({"synthetic-12": ReplayModel(LARGE)})
    went = 0
    for row in range(0, len(said.right), 5):
        p = SMALL.problems[table.trials.problem[row]]
        order = tuple(p.candidates[c.index] for c in table.trials.seen(row, N))
        one = replace(SMALL, problems=(replace(p, candidates=order),))
        result = solve_sync(one.problems[0].problem(), model=ReplayModel(one, seed=None), strategy=policy, seed=0,
                            verifier=RecordedVerifier(), answer=recorded_answer)  # fmt: skip
        assert result.usage.calls == said.samples[row]
        if result.usage.calls == 2:
            assert float(result.output.correct) == said.right[row]
            assert result.usage.completion_tokens == said.tokens[row]
        else:
            went += 1
            assert option.recorded is not None and said.right[row] == option.recorded.right[table.trials.problem[row]]
    assert 0 < went < len(said.right) / 5


def _then(table: Table, look: Choice) -> Option:
    return table.options[look.checkpoints[0].gates[1].option or 0]


def test_beside_the_smaller_model_s_samples_is_what_was_simulated() -> None:
    larger = LargerPool.beside(SMALL, LARGE, price=3.0, extra=0.0)
    work = Calibration(SMALL, signal="score", bins=2, options=OPTIONS, measured=(), aggregate="last", orders=2,
                       extra=0.0, wave=1, seed=0, larger=larger)  # fmt: skip
    table = work.table(2 * N)
    for select in ("majority", "weighted", "best"):
        looks = cascades(table, np.ones(len(SMALL.problems), dtype=bool))
        look = next(
            c for c in looks if c.fixed == 1 and (b := _then(table, c).beside) and (b.select, b.n) == (select, 2)
        )
        said, option = follow(table, look), _then(table, look)
        assert option.beside is not None
        plain = ladder_of(table, look)
        for row in range(0, len(said.right), 17):
            one, two = (
                replace(
                    pool, problems=(replace(p, candidates=tuple(p.candidates[c.index] for c in trials.seen(row, N))),)
                )
                for pool, trials in ((SMALL, table.trials), (LARGE, option.beside.trials))
                for p in (pool.problems[trials.problem[row]],)
            )
            result = solve_sync(
                one.problems[0].problem(), model=ReplayModel(one, seed=None), verifier=RecordedVerifier(), seed=0,
                strategy=plain.with_models({"synthetic-12": ReplayModel(two, seed=None)}), answer=recorded_answer,
            )  # fmt: skip
            assert (result.usage.calls, float(result.output.correct)) == (said.samples[row], said.right[row])


@pytest.mark.parametrize(("calls", "answer"), [(2, "1"), (3, "1"), (5, "9")])
def test_beside_both_models_vote_as_far_as_they_were_paid(calls: int, answer: str) -> None:
    ladder = Ladder([SelfConsistency(n=2), replace(LARGER, beside=True)])
    policy = replace(POLICY, plans=(replace(POLICY.plans[0], fixed=ladder),))
    assert solved([1, 2], [9], policy, budget=Budget(calls=calls))[0].answer == answer


def test_a_target_is_held_against_the_better_of_both() -> None:
    work = Calibration(SMALL, signal=None, bins=2, options=OPTIONS, measured=(), aggregate="last", orders=2, extra=0.0,
                       wave=1, seed=0, larger=LargerPool.beside(SMALL, LARGE, price=8.0, extra=0.0))  # fmt: skip
    table = work.table(2 * N)
    choice = work.decide(table, Goal(target=0.03))
    full = table.outcome(full_of(table, np.ones(len(SMALL.problems), dtype=bool)), 0)
    assert full.samples.mean() == N and full.tokens.mean() > 8 * table.outcome(2, 0).tokens.mean() * 0.5
    ours = follow(table, choice)
    assert ours.right.mean() >= full.right.mean() - 0.03 and ours.tokens.mean() <= full.tokens.mean()
    assert choice.alike.checkpoints == ()


def _without(pool: Pool, **change: Any) -> Pool:
    return replace(pool, problems=(*pool.problems[:-1], replace(pool.problems[-1], **change)))


@pytest.mark.parametrize(
    ("large", "settings", "said"),
    [
        (LARGE, {}, r"larger_price=None must be a number above 0"),
        (LARGE, {"larger_price": 0.0}, "larger_price=0.0"),
        (None, {"larger_price": 2.0}, "is for a larger= pool"),
        (None, {"larger_effort": "high"}, "is for a larger= pool"),
        (LARGE.problems, {"larger_price": 2.0}, "is not a Pool"),
        (_without(LARGE, id="other"), {"larger_price": 2.0}, "problem 'p119' of the smaller model's pool is missing"),
        (_without(LARGE, prompt="?"), {"larger_price": 2.0}, "problem 'p119', prompt: is not that of"),
        (replace(LARGE, header=replace(LARGE.header, verifier="b")), {"larger_price": 2.0}, "with one verifier"),
        (LARGE, {"larger_price": 2.0, "budgets": (9,)}, "9 is more than the 8 samples"),
    ],
)
def test_what_does_not_fit_together_is_refused(large: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigurationError, DataError), match=said):
        calibrate(SMALL, **{"price": 1e-5, "larger": large, **settings})


def test_the_same_model_at_a_higher_effort_is_fitted_too() -> None:
    small, large = of_two_kinds("small", 0.2), of_two_kinds("small", 0.9)
    (plan,) = calibrate(small, budgets=(2 * N,), price=2e-4, options=OPTIONS[:3], larger=large, larger_price=10,
                        larger_effort="high", orders=4).plans  # fmt: skip
    assert isinstance(plan.fixed, Ladder) and plan.models == ()
    assert (plan.fixed.rungs[-1].model, plan.fixed.rungs[-1].effort) == (None, "high")
