"""From a pool to a policy: what it chooses, what it promises, and what it refuses; replayed as it was simulated."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, Budget, ComputeOptimal, Revision, SelfConsistency, solve_sync
from tts_plugins.bench import replay_sync
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.policies import Measured, aggregates, calibrate
from tts_plugins.policies._calibration.calibration import Calibration
from tts_plugins.policies._calibration.inputs import orders_of
from tts_plugins.policies._calibration.replayed_trials import Trials
from tts_plugins.policies._calibration.selection import choose
from tts_plugins.policies._calibration.table import Checkpoint, Choice, Gate, Goal, Table, follow
from tts_plugins.policies.difficulty import Difficulty
from tts_plugins.policies.plan import Plan, Stage
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.stopping import Threshold, VoteLead
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.verifiers.recorded import RecordedVerifier

N = 6
FIT, REST = synthetic_pool(80, N, seed=4).split(2, seed=1)
PROMPTED = replace(FIT, problems=tuple(replace(p, prompt_tokens=5000) for p in FIT.problems))
SIMPLE = (SelfConsistency(n=1), SelfConsistency(n=N), SelfConsistency(n=N, stop=VoteLead(2), wave=1),
          BestOfN(n=N, select="weighted"), BestOfN(n=N, stop=Threshold(0.9), wave=1))  # fmt: skip


@pytest.fixture(scope="module")
def policy() -> ComputeOptimal:
    return calibrate(FIT, budgets=(4, N), price=6e-5, orders=4)


def split_pool(problems: int = 80, n: int = 16) -> Pool:
    """Half of the problems are easy, one sample is enough; the others need votes, and their first samples scatter."""
    rng = random.Random(5)

    def made(hard: bool) -> PoolCandidate:
        right = rng.random() < (0.4 if hard else 0.97)
        answer = "right" if right else f"wrong{rng.randrange(12)}" if hard else "wrong"
        return PoolCandidate(text=answer, answer=answer, tokens=100, correct=right)

    made_problems = tuple(PoolProblem(id=f"p{i}", prompt=f"{i}?", candidates=tuple(made(i % 2 == 1) for _ in range(n)))
                          for i in range(problems))  # fmt: skip
    return Pool(header=PoolHeader(model="split", dataset="d"), problems=made_problems)


def test_it_saves_tokens_on_problems_it_has_not_seen(policy: ComputeOptimal) -> None:
    assert [plan.budget for plan in policy.plans] == [4, N] and policy.model == "synthetic"
    fixed = replay_sync(REST, BestOfN(n=N, select="weighted"), RecordedVerifier(), orders=5)
    ours = replay_sync(REST, replace(policy, any_verifier=True), RecordedVerifier(), orders=5)
    assert ours.tokens_saved(fixed).low > 1.15 and ours.accuracy_over(fixed).value > -0.06


def test_what_it_promises_is_what_comes(policy: ComputeOptimal) -> None:
    for plan in policy.plans:
        assert plan.expected is not None and plan.expected_full is not None
        found = replay_sync(REST, replace(policy, any_verifier=True, budget=plan.budget), RecordedVerifier(), orders=5)
        reported = plan.expected.accuracy
        assert (
            reported[1] <= reported[0] <= reported[2]
            and reported[1] <= found.accuracy.high
            and found.accuracy.low <= reported[2]
        )
        assert abs(plan.expected.samples[0] - found.samples.value) < 0.2 * plan.budget
        assert found.samples.value <= plan.budget and plan.expected_full.samples == (plan.budget,) * 3


def test_bins_that_differ_get_strategies_of_their_own() -> None:
    pool = split_pool(320)  # with a quarter of it, whether a bin passes its test depends on the seed
    options = (SelfConsistency(n=2), SelfConsistency(n=4), SelfConsistency(n=16))
    found = calibrate(pool, budgets=(16,), price=1e-5, options=options, bins=2, hold_out=0)
    (plan,) = found.plans
    assert plan.fixed == SelfConsistency(n=16) and plan.stages
    assert plan.stages[0].choices[0] in options[:2] and plan.stages[0].choices[-1] is None
    assert plan.over_fixed is not None and plan.over_fixed.tokens is not None
    assert plan.over_fixed.tokens[1] > 1.1 and plan.over_fixed.accuracy[0] > -0.03
    alike = replace(found, plans=(replace(plan, stages=()),))
    fixed, ours = (replay_sync(pool, p, orders=3) for p in (alike, found))
    assert ours.tokens_saved(fixed).low > 1.2


def test_bins_that_say_nothing_gain_nothing() -> None:
    pool, rng = split_pool(), random.Random(1)
    noisy = (replace(p, candidates=tuple(replace(c, score=rng.random()) for c in p.candidates)) for p in pool.problems)
    noise = replace(pool, problems=tuple(noisy))
    options = (SelfConsistency(n=4), SelfConsistency(n=16))
    (plan,) = calibrate(noise, budgets=(16,), price=1e-6, options=options, signal="score").plans
    assert plan.stages == () and plan.expected == plan.expected_fixed


def test_the_same_pool_and_seed_give_the_same_policy(policy: ComputeOptimal) -> None:
    again = calibrate(FIT, budgets=(4,), price=6e-5, orders=4)
    assert again.plans == policy.plans[:1]


def test_it_survives_a_file(policy: ComputeOptimal, tmp_path: Path) -> None:
    policy.save(tmp_path / "policy.json")
    assert ComputeOptimal.from_file(tmp_path / "policy.json", model="synthetic", verifier="synthetic") == policy
    assert json.loads((tmp_path / "policy.json").read_text())["format"] == "tts-policy"


def test_a_target_keeps_the_accuracy_and_saves_tokens() -> None:
    loose, tight = (calibrate(FIT, budgets=(N,), target=t, options=SIMPLE).plans[0] for t in (0.3, 0.0))
    for plan, target in ((loose, 0.3), (tight, 0.0)):
        assert plan.expected is not None and plan.expected_full is not None
        assert plan.expected.accuracy[0] >= plan.expected_full.accuracy[0] - target - 0.05
    assert loose.expected is not None and tight.expected is not None
    assert loose.expected.tokens[0] < tight.expected.tokens[0]


def test_it_reads_no_grade_when_it_runs(policy: ComputeOptimal) -> None:
    problems = (replace(p, candidates=tuple(replace(c, correct=None) for c in p.candidates)) for p in REST.problems)
    hidden = replace(REST, problems=tuple(problems))
    mine = replace(policy, any_verifier=True)
    blind = replay_sync(hidden, mine, RecordedVerifier(), orders=2, grade=lambda r: True)
    assert blind.samples == replay_sync(REST, mine, RecordedVerifier(), orders=2).samples


def test_the_grades_of_the_other_fold_choose_nothing() -> None:
    """Choosing on half of the problems, the other half's grades may be anything."""
    work = Calibration(FIT, signal="score", bins=2, options=SIMPLE, measured=(), aggregate="last", orders=4, extra=0.0,
                       wave=1, seed=0)  # fmt: skip
    train = np.arange(40) < 20
    spoiled = replace(FIT, problems=tuple(
        p if train[i] else replace(p, candidates=tuple(replace(c, correct=not c.correct) for c in p.candidates))
        for i, p in enumerate(FIT.problems)))  # fmt: skip
    other = Calibration(spoiled, signal="score", bins=2, options=SIMPLE, measured=(), aggregate="last", orders=4,
                        extra=0.0, wave=1, seed=0)  # fmt: skip
    for goal in (Goal(price=1e-5), Goal(target=0.02)):
        assert choose(work.table(N), train, goal) == choose(other.table(N), train, goal)


@pytest.mark.parametrize("signal", ["score", "agreement"])
@pytest.mark.parametrize("wave", [1, 2, None])
def test_the_engine_does_what_was_simulated(signal: str, wave: int | None) -> None:
    """Walk by walk: the same samples, requests and answer, through the real engine; looks cut waves short."""
    options = tuple(s if s.stop is None else replace(s, wave=wave) for s in SIMPLE)
    work = Calibration(PROMPTED, signal=signal, bins=3, options=options, measured=(), aggregate="last",  # type: ignore[arg-type]
                       orders=3, extra=0.0, wave=1, seed=0)  # fmt: skip
    table = work.table(N)
    eases = [float(e) for e in table.eases(2)]
    points = tuple(
        Checkpoint(count=count, difficulty=Difficulty.fit(eases, signal=signal, bins=3),  # type: ignore[arg-type]
                   gates=tuple(Gate(option=o, problems=9) for o in chosen))
        for count, chosen in ((2, (4, 2, None)), (4, (None, 3, 1)))
    )  # fmt: skip
    points = tuple(replace(p, gates=p.gates[: p.difficulty.bins]) for p in points)
    choice = Choice(fixed=1, price=0.0, checkpoints=points)
    said = follow(table, choice)
    stages = tuple(
        Stage(count=p.count, difficulty=p.difficulty,
              choices=tuple(None if g.option is None else options[g.option] for g in p.gates))
        for p in points
    )  # fmt: skip
    strategy = ComputeOptimal(plans=(Plan(budget=N, fixed=options[1], stages=stages),))
    for row in range(len(said.right)):
        found = _walked(table, row, strategy)
        assert (found.usage.calls, float(found.output.correct)) == (said.samples[row], said.right[row])
        assert found.usage.tokens == said.tokens[row]


def _walked(table: Table, row: int, strategy: ComputeOptimal):  # type: ignore[no-untyped-def]
    trials: Trials = table.trials
    p = PROMPTED.problems[trials.problem[row]]
    order = [p.candidates[c.index] for c in trials.seen(row, N)]
    one = replace(FIT, problems=(replace(p, candidates=tuple(order)),))
    return solve_sync(one.problems[0].problem(), model=ReplayModel(one, seed=None), strategy=strategy, seed=0,
                      verifier=RecordedVerifier(), answer=recorded_answer)  # fmt: skip


def test_outcomes_from_elsewhere_can_be_chosen() -> None:
    revision = Revision(chains=2, rounds=2)
    every: Any = dict.fromkeys((p.id for p in FIT.problems), np.bool_(True))  # figures of numpy's are figures, too
    cheap = Measured(
        strategy=revision, right=every, samples=dict.fromkeys(every, np.int64(4)), tokens=dict.fromkeys(every, 9.0)
    )
    assert calibrate(FIT, budgets=(N,), price=1e-5, options=SIMPLE, measured=[cheap]).plans[0].fixed == revision
    dear = replace(cheap, tokens=dict.fromkeys(every, 1e9))
    assert calibrate(FIT, budgets=(N,), price=1e-5, options=SIMPLE, measured=[dear]).plans[0].fixed != revision
    with pytest.raises(DataError, match=r"problem 'p\d+' of the pool is missing"):
        calibrate(FIT, budgets=(N,), price=1e-5, options=SIMPLE, measured=[replace(cheap, right={})])
    with pytest.raises(ConfigurationError, match="cannot be tried on recorded samples"):
        calibrate(FIT, budgets=(N,), price=1e-5, options=[revision])


def test_the_cost_of_prompts_counts() -> None:
    options = (SelfConsistency(n=1), BestOfN(n=N, select="weighted"))
    plain, shared, single = (
        calibrate(pool, budgets=(N,), price=2e-5, options=options, batch=batch).plans[0]
        for pool, batch in ((FIT, None), (PROMPTED, None), (PROMPTED, 1))
    )
    assert plain.expected and shared.expected and single.expected
    assert shared.expected.samples == plain.expected.samples  # one request has them all, so its prompt changes nothing
    assert shared.expected.tokens[0] == pytest.approx(plain.expected.tokens[0] + 5000)
    assert single.expected.samples[0] < plain.expected.samples[0]  # here each sample costs a prompt
    assert single.expected.tokens[0] > 5000 * single.expected.samples[0]


def test_samples_that_share_a_prompt_are_not_asked_for_one_by_one() -> None:
    (plan,) = calibrate(PROMPTED, budgets=(N,), target=0.0, orders=2).plans
    assert plan.expected and plan.expected_full and not plan.stages
    assert plan.expected.tokens[0] <= plan.expected_full.tokens[0]
    found = replay_sync(PROMPTED, plan.fixed, RecordedVerifier(), orders=8)  # type: ignore[arg-type]
    full = replay_sync(PROMPTED, BestOfN(n=N), RecordedVerifier(), orders=8)
    assert found.tokens.value == pytest.approx(plan.expected.tokens[0], rel=0.03)
    assert full.tokens.value == pytest.approx(plan.expected_full.tokens[0], rel=0.03)


def test_one_by_one_is_offered_beside_waves() -> None:
    given: dict[str, Any] = {"budgets": (N,), "price": 1e-9, "orders": 2}
    dear = {wave: calibrate(PROMPTED, wave=wave, **given).plans[0].expected for wave in ("auto", None, 1)}  # type: ignore[arg-type]
    assert dear["auto"] and dear[None] and dear[1]
    assert dear["auto"].tokens[0] <= dear[None].tokens[0] + 1e-9 < dear[1].tokens[0]


def test_the_signal_logprob_reads_what_record_writes() -> None:
    def kept(**extra: Any) -> Pool:
        reported = (tuple(replace(c, extra=extra) for c in p.candidates) for p in FIT.problems)
        return replace(
            FIT, problems=tuple(replace(p, candidates=c) for p, c in zip(FIT.problems, reported, strict=True))
        )

    def eases(pool: Pool) -> list[float]:
        work = Calibration(pool, signal="logprob", bins=2, options=SIMPLE, measured=(), aggregate="last", orders=1,
                           extra=0.0, seed=0)  # fmt: skip
        return list(map(float, work.table(N).eases(2)))

    assert eases(kept(logprobs=[-0.5, -1.5])) == eases(kept(logprob=-1.0))
    with pytest.raises(ConfigurationError, match="log-probabilities"):
        eases(FIT)


def test_pools_that_do_not_serve_are_refused() -> None:
    cut = replace(FIT, problems=tuple(
        replace(p, candidates=tuple(replace(c, truncated=True, answer=None) for c in p.candidates))
        for p in FIT.problems))  # fmt: skip
    with pytest.raises(DataError, match=r"all candidates of the pool are truncated.*larger max_tokens"):
        calibrate(cut, price=1e-5)
    for problems, said in (((), "the pool has no problems"), (FIT.problems[:1], "the pool has 1 problem;"),
                           (FIT.problems[:3], "3 problems; .* record at least 4")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=said):
            calibrate(replace(FIT, problems=problems), price=1e-5)
    bare = replace(FIT, problems=tuple(
        replace(p, candidates=(PoolCandidate(tokens=1, correct=True),) * 4) for p in FIT.problems))  # fmt: skip
    with pytest.raises(DataError, match="neither answers nor scores"):
        calibrate(bare, price=1e-5)
    with pytest.raises(ConfigurationError, match="is not a Pool"):
        calibrate(FIT.problems, price=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"price": 1e-5, "target": 0.1}, {"price": -1.0}, {"target": float("nan")}, {"budgets": ()}, {"budgets": (N + 1,)},
     {"budgets": (0,)}, {"signal": "x"}, {"bins": 0}, {"orders": 0}, {"extra_tokens": -1.0}],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        calibrate(FIT, **wrong)  # type: ignore[arg-type]


def test_a_hard_budget_holds_whatever_the_policy_wants(policy: ComputeOptimal) -> None:
    for calls in range(1, N + 1):
        one = REST.problems[calls]
        mine = replace(policy, any_verifier=True)
        result = solve_sync(one.problem(), model=ReplayModel(REST), strategy=mine,
                            verifier=RecordedVerifier(), budget=Budget(calls=calls))  # fmt: skip
        assert 1 <= result.usage.calls <= calls


def stepwise_pool(problems: int = 24) -> Pool:
    """Right solutions have no bad step; wrong ones have one, early: their last steps look as good."""
    rng = random.Random(3)

    def made(right: bool) -> PoolCandidate:
        steps = [rng.uniform(0.7, 0.9) for _ in range(4)]
        if not right:
            steps[rng.randrange(3)] = rng.uniform(0.1, 0.3)
        return PoolCandidate(answer=str(int(right)), tokens=10, correct=right, step_scores=tuple(steps))

    return Pool(
        header=PoolHeader(model="m", dataset="d", verifier="RecordedVerifier(min)"),
        problems=tuple(
            PoolProblem(id=str(i), prompt_tokens=1, candidates=tuple(made(k % 2 == 0) for k in range(N)))
            for i in range(problems)
        ),
    )


def test_the_way_to_one_score_is_chosen_by_what_tells_right_from_wrong_and_is_kept() -> None:
    pool = stepwise_pool()
    found = aggregates(pool)
    assert next(iter(found)) == "min" and found["min"].value == 1.0 and found["last"].low < 0.6 < 1.0
    policy = calibrate(pool, budgets=(N,), orders=2)
    assert policy.aggregate == "min"
    assert ComputeOptimal.from_dict(policy.to_dict()).aggregate == "min"
    problem, model = pool.problems[0].problem(), ReplayModel(pool)
    answer = {"model": model, "answer": recorded_answer, "strategy": replace(policy, verifier=None, any_model=True)}
    assert solve_sync(problem, verifier=RecordedVerifier(aggregate="min"), **answer).answer == "1"
    with pytest.raises(ConfigurationError, match=r"fitted to the 'min' of step scores.*'last'.*aggregate='min'"):
        solve_sync(problem, verifier=RecordedVerifier(aggregate="last"), **answer)
    with pytest.raises(ConfigurationError, match="aggregate='max' is not known"):
        calibrate(pool, budgets=(N,), aggregate="max")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no problem with step scores"):
        aggregates(Pool(header=pool.header, problems=(PoolProblem(id="p", candidates=(PoolCandidate(correct=True),)),)))


def test_the_walks_that_nobody_asked_for_are_as_many_as_take_seconds() -> None:
    scored, bare = synthetic_pool(problems=60, candidates=4), synthetic_pool(problems=400, candidates=2)
    unscored = [
        replace(p, candidates=tuple(replace(c, score=None, step_scores=()) for c in p.candidates))
        for p in bare.problems
    ]
    votes = replace(bare, problems=tuple(unscored))
    assert [orders_of(pool, "last", priced=False) for pool in (scored, bare, votes)] == [50, 10, 37]
    assert orders_of(votes, "last", priced=True) == 10  # learned rules are tried on bare votes, too
    assert calibrate(scored, budgets=(4,), hold_out=0) == calibrate(scored, budgets=(4,), hold_out=0, orders=50)
