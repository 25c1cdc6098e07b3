"""What the fit sees of a recorded walk is what the rule sees of the run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins import BestOfN, Budget, ComputeOptimal, Ledger, SelfConsistency, solve_sync
from tts_plugins.errors import BudgetExhausted
from tts_plugins.policies import Difficulty, Ladder, Plan, Rung, Stage
from tts_plugins.policies._stopping.features import basis, decided, least_decided, observe
from tts_plugins.policies._stopping.walks import Samples, walk
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.selection import Select, choose
from tts_plugins.stopping import Threshold, VoteLead
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Problem, Scored

SELECTS: tuple[Select, ...] = ("majority", "weighted", "best")
recorded = st.builds(
    PoolCandidate,
    answer=st.sampled_from(["a", "b", "c", None]),
    tokens=st.integers(1, 500),
    # Eighths, whose sums are exact: the array's running sums and the run's fsum may part in the last bit otherwise,
    # and where two answers tie but for that bit, either may lead.
    score=st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.75, 1.0]),
    correct=st.booleans(),
)


def run_of(p: PoolProblem, order: list[int]) -> list[Scored]:
    problem = Problem("?")
    return [Scored(problem, text=str(i), answer=c.answer, tokens=c.tokens, score=c.score, index=at, finished=True)
            for at, i in enumerate(order) for c in (p.candidates[i],)]  # fmt: skip


@settings(max_examples=40)
@given(st.lists(recorded, min_size=2, max_size=9), st.sampled_from(SELECTS), st.integers(0, 99))
def test_arrays_and_runs_agree(candidates: list[PoolCandidate], select: Select, seed: int) -> None:
    n = len(candidates)
    p = PoolProblem(id="p", candidates=tuple(candidates))
    samples = Samples.of([p], n, select, "last")
    paths = walk(samples, n, select, orders=3, seed=seed, reference=100.0)
    rng = np.random.default_rng(seed)
    functions = basis(paths.state, n, select, np)
    over = np.asarray(decided(paths.state, n, select))
    for row in range(3):
        order = [int(i) for i in rng.permutation(n)[:n]]
        run = run_of(p, order)
        for t in range(1, n + 1):
            seen = run[:t]
            state = observe(seen, select, 100.0)
            there = [float(field[row, t - 1]) for field in paths.state]
            assert np.allclose(there, [float(x) for x in state])
            assert np.allclose([f[row, t - 1] for f in functions], basis(state, n, select))
            assert bool(over[row, t - 1]) == bool(decided(state, n, select))
            if select != "majority" or state.votes:  # without any answer SelfConsistency goes by scores, if it has them
                assert int(choose(seen, select).text) == int(paths.chosen[row, t - 1])


wholes = st.builds(SelfConsistency, n=st.integers(1, 9), stop=st.sampled_from([None, VoteLead(1), VoteLead(3)])) | (
    st.builds(BestOfN, n=st.integers(1, 9), stop=st.sampled_from([None, Threshold(0.5)]))
)
stages = st.builds(
    Stage, count=st.integers(1, 8), difficulty=st.just(Difficulty(signal="agreement", edges=(0.3, 0.8))),
    choices=st.tuples(*[wholes | st.none()] * 3),
)  # fmt: skip
plans = st.builds(
    lambda fixed, looks: Plan(budget=9, fixed=fixed, stages=tuple({s.count: s for s in looks}[c] for c in
                                                                 sorted({s.count for s in looks}))),
    wholes, st.lists(stages, max_size=3),
)  # fmt: skip


@settings(max_examples=60)
@given(plans, st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 12), st.booleans())
def test_a_policy_never_overspends_and_pays_for_each_sample_once(
    plan: Plan, answers: list[int], calls: int, tokens: bool
) -> None:
    model = ScriptedModel([f"#### {a}" for a in answers], price=1e-6)
    ledger = Ledger(Budget(tokens=15 * calls) if tokens else Budget(calls=calls))
    scores = TableVerifier({str(i): i / 5 for i in range(5)})
    result = solve_sync(
        "?", model=model, strategy=ComputeOptimal(plans=(plan,)), verifier=scores, budget=ledger, seed=1
    )
    asked = sum(map(len, model.requests))
    assert asked == ledger.spent.calls == result.usage.calls <= min(calls, 9)
    assert ledger.open_holds == 0 and ledger.spent.tokens <= 15 * calls
    # A rule that is met in the middle of a wave cancels what is in flight: asked and paid for, and no candidate.
    ids = {c.id for c in result.candidates}
    assert result.best.id in ids and len(ids) == len(result.candidates) <= len(scores.scored) <= asked


cascades = st.builds(
    lambda n, then, enough, beside: Ladder(
        [SelfConsistency(n=n), Rung(strategy=then, model="large", price=10, beside=beside)], enough=enough
    ),
    st.integers(2, 4), wholes, st.sampled_from([0.6, 1.0]), st.booleans(),
) | st.builds(lambda then: Ladder([Rung(strategy=then, model="large", price=10)]), wholes)  # fmt: skip


@settings(max_examples=60)
@given(cascades, st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 40), st.sampled_from("ctu"))
def test_two_models_never_overspend_the_one_budget(ladder: Ladder, answers: list[int], units: int, limit: str) -> None:
    small, large = (ScriptedModel([f"#### {a}" for a in answers], name=name, price=price)
                    for name, price in (("small", 1e-6), ("large", 1e-5)))  # fmt: skip
    budgets = {"c": Budget(calls=units), "t": Budget(tokens=15 * units), "u": Budget(usd=15e-6 * units)}
    ledger, scores = Ledger(budgets[limit]), TableVerifier({str(i): i / 5 for i in range(5)})
    policy = ComputeOptimal(plans=(Plan(budget=9, fixed=ladder),), larger="large").with_larger(large)
    try:
        result = solve_sync("?", model=small, strategy=policy, verifier=scores, budget=ledger, seed=1)
    except BudgetExhausted:
        assert len(ladder.rungs) == 1 and limit == "u" and not large.requests and not small.requests
        return
    asked = [sum(map(len, m.requests)) for m in (small, large)]
    assert sum(asked) == ledger.spent.calls == result.usage.calls and ledger.open_holds == 0
    assert result.usage.usd == pytest.approx(15e-6 * asked[0] + 15e-5 * asked[1])
    within = {"c": sum(asked), "t": sum(asked), "u": asked[0] + 10 * asked[1]}[limit]
    assert within <= units


@settings(max_examples=40)
@given(st.lists(recorded, min_size=2, max_size=9), st.sampled_from(SELECTS))
def test_what_is_decided_stays(candidates: list[PoolCandidate], select: Select) -> None:
    n = len(candidates)
    run = run_of(PoolProblem(id="p", candidates=tuple(candidates)), list(range(n)))
    states = [None, *(observe(run[:t], select, None) for t in range(1, n + 1))]
    for t, state in enumerate(states[1:], 1):
        assert state is not None
        if decided(state, n, select):
            after = choose(run, select)
            now = choose(run[:t], select)
            assert after is now if select == "best" else after.answer == now.answer
            for before in range(t):
                assert before + least_decided(states[before], n, select) <= t
