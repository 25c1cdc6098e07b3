"""What a fit and a report must not claim: from unknown tokens, other models, foreign labels, blanks, raw scores."""

from __future__ import annotations

import gzip
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, Budget, Ladder, SelfConsistency, solve_sync
from tts_plugins.bench import replay_sync
from tts_plugins.cli import main
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.policies import Abstention, ComputeOptimal, LearnedStopping, calibrate, held_out
from tts_plugins.policies._calibration.larger_model import LargerPool, classes
from tts_plugins.policies._calibration.options import sampling
from tts_plugins.policies._calibration.replayed_trials import Trials
from tts_plugins.policies.plan import Measured
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.stopping import VoteLead
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.verifiers.recorded import RecordedVerifier

POOL = synthetic_pool(60, 6, seed=3)
FOUND = Abstention.fit([0.9] * 60, [True] * 60)


def changed(pool: Pool, number: int, **change: Any) -> Pool:
    """The pool with one candidate of a problem changed."""
    p = pool.problems[number]
    odd = replace(p, candidates=(*p.candidates[:-1], replace(p.candidates[-1], **change)))
    return replace(pool, problems=(*pool.problems[:number], odd, *pool.problems[number + 1 :]))


# Unknown tokens


def test_tokens_that_were_not_counted_are_unknown_and_not_zero() -> None:
    known = replay_sync(POOL, SelfConsistency(n=2))
    unknown = replay_sync(changed(POOL, 5, tokens=None), SelfConsistency(n=2))
    assert unknown.tokens.value != unknown.tokens.value and not unknown.exact  # NaN
    for first, second in ((known, unknown), (unknown, known)):
        with pytest.raises(DataError, match="unknown and not 0"):
            first.tokens_saved(second)
    assert unknown.accuracy == known.accuracy
    for fit in (calibrate, lambda pool: LearnedStopping.fit(pool, n=4, target=0.1)):
        for tokens, found in ((None, "is null"), (0, "is 0, though it says something")):
            with pytest.raises(DataError, match=rf"problem '.*', candidates\[5\], tokens: {found}"):
                fit(changed(POOL, 5, tokens=tokens))
    none = replay_sync(changed(POOL, 5, tokens=0), SelfConsistency(n=2))
    assert none.tokens.value != none.tokens.value and not none.exact


@pytest.mark.parametrize(
    ("lacking", "said"), [(60, "has no prompt_tokens, so prompts cost nothing"), (1, "1 of .* the mean of the others")]
)
def test_prompts_that_were_not_counted_are_told(lacking: int, said: str) -> None:
    problems = [replace(p, prompt_tokens=None if i < lacking else 40) for i, p in enumerate(POOL.problems)]
    policy = calibrate(replace(POOL, problems=tuple(problems)), budgets=(4,), orders=2, hold_out=0)
    assert re.search(said, "; ".join(policy.plans[0].notes))
    counted = replace(POOL, problems=tuple(replace(p, prompt_tokens=40) for p in POOL.problems))
    assert not any("prompt_tokens" in note for note in calibrate(counted, budgets=(4,), orders=2).plans[0].notes)


@pytest.mark.parametrize("grade", [True, False])
def test_step_scores_that_tell_nothing_apart_block_no_fit(grade: bool) -> None:
    alike = [replace(p, candidates=tuple(replace(c, correct=grade) for c in p.candidates)) for p in POOL.problems]
    policy = calibrate(replace(POOL, problems=tuple(alike)), budgets=(4,), orders=2)
    assert policy.aggregate == "last" and policy.plans[0].expected is not None
    assert policy.plans[0].expected.accuracy[0] == float(grade)
    bare = [replace(p, candidates=tuple(replace(c, correct=None) for c in p.candidates)) for p in POOL.problems]
    with pytest.raises(DataError, match=r"candidates\[0\], correct: is null"):
        calibrate(replace(POOL, problems=tuple(bare)), budgets=(4,))


def test_flops_are_not_claimed_from_unknown_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = [replace(p, candidates=tuple(replace(c, tokens=None) for c in p.candidates)) for p in POOL.problems[:6]]
    bare = replace(POOL, problems=tuple(none))
    path = tmp_path / "pool.jsonl.gz"
    bare.write(path)
    command = ["bench", "--pool", str(path), "--strategy", "self-consistency:n=2", "--out", str(tmp_path / "run.bench")]
    assert main(command) == 0 and "unknown" in capsys.readouterr().out
    assert main([*command, "--params", "8e9"]) == 0 and capsys.readouterr().out.count("unknown") >= 2
    large = tmp_path / "large.jsonl.gz"
    POOL.write(large)
    assert main([*command, "--params", "8e9", "--larger", str(large), "--larger-params", "7e10"]) != 0
    assert "unknown and not 0" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("rows", ["all", "every other"])
def test_a_pool_whose_tokens_nobody_counted_says_what_can_be_done(rows: str, tmp_path: Path, capsys: Any) -> None:
    none = [
        replace(
            p, candidates=tuple(replace(c, tokens=None if rows == "all" or i % 2 else c.tokens) for c in p.candidates)
        )
        for i, p in enumerate(POOL.problems)
    ]
    pool = replace(POOL, problems=tuple(none))
    with pytest.raises(DataError, match="record with a server that counts them, or use stop='balanced'"):
        calibrate(pool)
    pool.write(tmp_path / "pool.jsonl.gz")
    assert main(["calibrate", str(tmp_path / "pool.jsonl.gz"), "--out", str(tmp_path / "policy.json")]) != 0
    assert "stop='balanced'" in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "policy.json").exists()


# Another model, verifier, n or selection


def test_a_rule_that_runs_with_another_model_says_so() -> None:
    rule = LearnedStopping.fit(POOL, n=4, target=0.3)
    assert rule.model == "synthetic"
    other = solve_sync("?", model=ScriptedModel(["#### 1"], name="other"), strategy=SelfConsistency(n=4, stop=rule))
    assert any("fitted to model 'synthetic', and ran with 'other'" in said for said in other.warnings)
    both = SelfConsistency(n=4, stop=rule | VoteLead(4))
    assert solve_sync("?", model=ScriptedModel(["#### 1"], name="other"), strategy=both).warnings
    same = solve_sync(POOL.problems[0].problem(), model=ReplayModel(POOL), strategy=SelfConsistency(n=4, stop=rule),
                      answer=recorded_answer)  # fmt: skip
    assert not any("fitted to" in said for said in same.warnings)
    for wrong in (lambda: SelfConsistency(n=5, stop=rule), lambda: BestOfN(n=4, stop=rule)):
        with pytest.raises(ConfigurationError, match="it was fitted to"):
            wrong()


def test_a_policy_from_a_file_is_for_its_model_verifier_n_and_choice(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    calibrate(POOL, budgets=(4,), orders=2, aggregate="last").save(path)
    for other in ({"model": "other"}, {"verifier": "other"}):
        with pytest.raises(
            ConfigurationError, match=r"was fitted to (model|verifier) 'synthetic', and runs with 'other'"
        ):
            ComputeOptimal.from_file(path, **other)  # type: ignore[arg-type]
    policy = ComputeOptimal.from_file(path)
    with pytest.raises(ConfigurationError, match="runs with 'another'"):
        solve_sync("?", model=ScriptedModel(["#### 1"], name="another"), strategy=policy, verifier=lambda _: 0.5)
    text = path.read_text()
    odd: list[dict[str, Any]] = [
        {"n": 0},
        {"n": True},
        {"n": "4"},
        {"select": "loudest"},
        {"stop": {"type": "no-such"}},
    ]
    for change in odd:
        value = json.loads(text)
        value["plans"][0]["fixed"] |= change
        path.write_text(json.dumps(value))
        with pytest.raises(DataError, match=r"policy\.json"):
            ComputeOptimal.from_file(path)


# Raw scores in memory


@pytest.mark.parametrize("odd", [1.5, -0.2, float("nan"), float("-inf"), float("inf"), "0.5", True, 10**400])
def test_scores_that_are_none_are_refused_in_memory_as_in_a_file(odd: Any) -> None:
    """A fit would take them, and nobody would see that it promises nothing."""
    for given in ({"score": odd}, {"step_scores": (0.5, odd)}):
        with pytest.raises(DataError, match=r"(score|step_scores\[1\]): .*(outside of 0 to 1|must be a number)"):
            changed(POOL, 3, **given)


def test_records_take_numpy_s_numbers_and_no_other_kinds() -> None:
    made = PoolCandidate(answer="1", tokens=np.int64(3), correct=np.True_, score=np.float32(0.5))  # type: ignore[arg-type]
    assert (made.tokens, made.correct, made.score) == (3, True, 0.5) and type(made.tokens) is int
    assert PoolCandidate(score=1 + 1e-12).score == 1.0  # an excess that is rounding error
    odd: list[dict[str, Any]] = [
        *({"tokens": count} for count in (-1, 1.5, float("nan"), 10**400)),
        {"correct": 1}, {"correct": "yes"}, {"answer": 4}, {"truncated": "no"}, {"truncated": None},
    ]  # fmt: skip
    for given in odd:
        with pytest.raises(DataError, match=next(iter(given))):
            PoolCandidate(**given)
    with pytest.raises(DataError, match="prompt_tokens"):
        PoolProblem(id="p", prompt_tokens=-1)


# Labels of a pool's own


def labelled(name: str, right: str, labels: tuple[str, ...], gold: str | None = None) -> Pool:
    made = tuple(PoolCandidate(answer=label, tokens=9, correct=label == right) for label in labels)
    return Pool(header=PoolHeader(model=name, dataset="d"), problems=tuple(
        PoolProblem(id=f"p{i}", prompt=f"{i}?", answer=gold, candidates=made) for i in range(12)))  # fmt: skip


def test_labels_of_a_pool_s_own_are_not_voted_on_together() -> None:
    groups = labelled("a", "g1", ("g0", "g1", "g1"))
    for label in ("g0", "class_3", "#1", "group 2"):
        assert classes(labelled("a", label, (label,)))
    for plain in ("391", "Paris", "x1 + x2"):
        assert not classes(labelled("a", plain, (plain,)))
    assert not classes(labelled("a", "B2", ("B2",), gold="B2"))  # the gold answer is written so
    declared = replace(labelled("a", "red", ("red",)), header=PoolHeader(model="a", dataset="d",
                                                                         extra={"answers": "classes"}))  # fmt: skip
    assert classes(declared)
    # A pool that was put together of two: the labels of some of its problems are its own.
    some = replace(groups, problems=tuple(
        p if i % 4 == 0 else replace(p, candidates=labelled("a", "391", ("391", "7")).problems[0].candidates)
        for i, p in enumerate(groups.problems)))  # fmt: skip
    assert (
        classes(some)
        and not LargerPool.beside(labelled("b", "391", ("391", "7")), some, price=2.0, extra=0).same_labels
    )
    one = replace(some, problems=tuple(p for i, p in enumerate(some.problems) if i == 0 or i % 4))
    assert not classes(one)  # one problem's may be answers that look like labels
    for small, large in (
        (groups, groups),
        (declared, labelled("b", "red", ("red",))),
        (labelled("a", "x", ("x", "y")), labelled("b", "y", ("x", "y"))),
    ):  # graded otherwise
        assert not LargerPool.beside(small, large, price=2.0, extra=0.0).same_labels  # fmt: skip
    alike = labelled("a", "x", ("x", "y"))
    assert LargerPool.beside(alike, alike, price=2.0, extra=0.0).same_labels
    (plan,) = calibrate(groups, budgets=(6,), larger=labelled("b", "g0", ("g0", "g1", "g0")), larger_price=2.0).plans
    assert any("not voted on together" in note for note in plan.notes)
    assert not (isinstance(plan.fixed, Ladder) and any(rung.beside for rung in plan.fixed.rungs))


# Problems without a score


def test_one_unscored_problem_blocks_neither_a_fit_nor_votes() -> None:
    odd = changed(POOL, 7, score=None, step_scores=())
    (plan,) = calibrate(odd, budgets=(4,), orders=2).plans
    assert any("1 of 60 problems lack a score and were left out" in note for note in plan.notes)
    found = replay_sync(odd, SelfConsistency(n=6), RecordedVerifier())
    assert found.accuracy == replay_sync(odd, SelfConsistency(n=6)).accuracy
    bare = replace(POOL, problems=tuple(
        replace(p, candidates=tuple(replace(c, score=None, step_scores=()) for c in p.candidates)) if i < 50 else p
        for i, p in enumerate(POOL.problems)))  # fmt: skip
    policy = calibrate(bare, budgets=(4,), orders=2)
    assert policy.verifier is None and any("scores are not used" in note for note in policy.plans[0].notes)


def test_one_problem_without_samples_is_left_out_and_a_short_one_is_named() -> None:
    first, *others = POOL.problems
    odd = replace(POOL, problems=(replace(first, candidates=()), *others))
    (plan,) = calibrate(odd, budgets=(4,), orders=2, abstain_risk=0.1).plans
    assert any(f"1 of 60 problems have no samples and were left out ({first.id})" in note for note in plan.notes)
    rest = held_out(odd)
    assert rest is not None and all(p.candidates for p in rest.problems)
    with pytest.raises(ConfigurationError, match="no problems with samples"):
        calibrate(replace(POOL, problems=tuple(replace(p, candidates=()) for p in POOL.problems)))
    with pytest.raises(DataError, match=f"larger: problem {first.id!r} of the smaller model's pool has no samples"):
        calibrate(POOL, larger=odd, larger_price=8.0)
    # A problem that is left out limits nothing and needs no counterpart; nor does one that only the larger model has.
    kept = replace(POOL, problems=tuple(others))
    assert calibrate(odd, larger=kept, larger_price=8.0, budgets=(12,), orders=2).plans[0].budget == 12
    assert calibrate(kept, larger=odd, larger_price=8.0, budgets=(12,), orders=2).plans[0].budget == 12
    short = replace(POOL, problems=(replace(first, candidates=first.candidates[:2]), *others))
    said = f"problem {first.id!r} has 2 on record, half of the problems at least 6"
    assert any(said in note for note in calibrate(short, orders=2).plans[0].notes)
    with pytest.raises(ConfigurationError, match=said):
        calibrate(short, budgets=(4,))


# Candidates that say nothing


def test_walks_leave_out_what_says_nothing_as_a_run_does() -> None:
    said = [PoolCandidate(text="x", answer=a, tokens=9, correct=a == "1") for a in ("1", "1", "2", "1")]
    blank = PoolCandidate(text=" ", answer=None, tokens=9, correct=False)
    assert blank.blank and not PoolCandidate(answer=None).blank and not PoolCandidate(text="", answer="1").blank
    orders = [(blank, *said), (said[0], blank, *said[1:]), (said[0], said[2], blank, said[1], said[3])]
    pool = Pool(header=PoolHeader(model="m", dataset="d"), problems=tuple(
        PoolProblem(id=str(i), prompt=f"{i}?", candidates=order) for i, order in enumerate(orders)))  # fmt: skip
    for rule in (LearnedStopping(n=5, select="majority", enough=2), LearnedStopping(n=5, select="majority", at_most=2),
                 VoteLead(2)):  # fmt: skip
        for wave in (1, None):
            strategy = sampling("majority", 5, rule, wave)
            trials = Trials(pool.problems, 5, ["majority"], how="last", orders=4, seed=1, extra=0.0)
            at = trials.stops_at(strategy)
            outcome = trials.outcome(strategy, at, 0)
            for row in range(len(at)):
                p = pool.problems[trials.problem[row]]
                order = tuple(c.output for c in trials.seen(row, 5))
                one = replace(pool, problems=(replace(p, candidates=order),))
                result = solve_sync(one.problems[0].problem(), model=ReplayModel(one, seed=None), strategy=strategy,
                                    answer=recorded_answer, seed=0)  # fmt: skip
                assert result.usage.calls == outcome.samples[row], (rule, wave, [c.answer for c in order])
                assert float(bool(result.output.correct)) == outcome.right[row]


def test_a_policy_that_a_budget_cannot_pay_for_says_so() -> None:
    policy = replace(calibrate(POOL, budgets=(4,), orders=2), any_verifier=True)
    ran = {}
    for calls in (2, 4):
        ran[calls] = solve_sync(
            POOL.problems[0].problem(), model=ReplayModel(POOL), strategy=policy, budget=Budget(calls=calls),
            verifier=RecordedVerifier().of(POOL), answer=recorded_answer,
        )  # fmt: skip
    assert any("smallest plan is for 4 samples, and the budget is sure to pay for 2" in w for w in ran[2].warnings)
    assert not any("smallest plan" in w for w in ran[4].warnings) and ran[2].usage.calls <= 2


# Raw rewards


@pytest.mark.parametrize(("how", "low", "high"), [("sigmoid", 0.01, 0.99), ("rank", 0.4, 1.0)])
def test_raw_rewards_are_refused_and_a_named_squash_is_offered(
    tmp_path: Path, how: str, low: float, high: float
) -> None:
    path = tmp_path / "raw.jsonl.gz"
    lines = [{"format": "tts-pool", "version": 1, "model": "m", "dataset": "d"}]
    lines += [{"id": str(i), "candidates": [
        {"text": "a", "answer": "a", "tokens": 3, "correct": True, "score": 7.5},
        {"text": "b", "answer": "b", "tokens": 3, "correct": False, "score": -800.0, "step_scores": [-3.0, 2.0]},
    ]} for i in range(3)]  # fmt: skip
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    with pytest.raises(DataError, match=r"7\.5 is outside of 0 to 1; for raw rewards .*Calibrated.*squash='sigmoid'"):
        Pool.read(path)
    good, bad = Pool.read(path, squash=how).problems[0].candidates
    assert good.score is not None and good.score >= high and bad.score is not None and bad.score <= low
    assert all(0 <= s <= 1 for s in bad.step_scores) and bad.step_scores[0] < bad.step_scores[1]
    with pytest.raises(ConfigurationError, match="squash='cut' is not known; use sigmoid or rank"):
        Pool.read(path, squash="cut")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"candidates": 5}, "line 2, candidates: 5 must be a list"),
        ({"candidates": [{"answer": "a", "correct": True, "step_scores": 3.0}]}, "step_scores: 3.0 must be a list"),
        (
            {"candidates": [{"answer": "a", "correct": True, "score": 10**400}]},
            "score: 1000.* must be a number from 0 to 1",
        ),
        ({"candidates": [{"answer": "a", "correct": True, "score": "9"}]}, "score: '9' must be a number"),
    ],
    ids=repr,
)
def test_lines_that_cannot_be_squashed_say_what_is_wrong(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    path = tmp_path / "raw.jsonl"
    header = {"format": "tts-pool", "version": 1, "model": "m", "dataset": "d"}
    path.write_text(f"{json.dumps(header)}\n{json.dumps({'id': 'x', **bad})}\n")
    for squash in (None, "sigmoid", "rank"):
        with pytest.raises(DataError, match=said) as caught:
            Pool.read(path, squash=squash)
        assert len(str(caught.value)) < 500


# What is held out


def test_what_is_measured_on_was_not_fitted_to() -> None:
    policy, rest = calibrate(POOL, budgets=(4,), target=0.3, orders=20), held_out(POOL)
    assert rest is not None and policy.problems is not None
    assert policy.held_out == len(rest.problems) == 18 and policy.problems == 42
    spoiled = replace(POOL, problems=tuple(
        replace(p, candidates=tuple(replace(c, correct=not c.correct) for c in p.candidates)) if p in rest.problems
        else p for p in POOL.problems))  # fmt: skip
    other = calibrate(spoiled, budgets=(4,), target=0.3, orders=20).plans[0]
    (plan,) = policy.plans
    assert other.fixed == plan.fixed and other.lost_at_most == plan.lost_at_most
    assert other.expected and plan.expected and other.expected.accuracy != plan.expected.accuracy
    found = replay_sync(rest, plan.fixed, RecordedVerifier(), orders=20)
    assert found.accuracy.value == pytest.approx(plan.expected.accuracy[0], abs=0.08)
    assert found.samples.value == pytest.approx(plan.expected.samples[0], abs=0.5)
    whole = calibrate(POOL, budgets=(4,), target=0.3, orders=2, hold_out=0)
    assert whole.problems == 60 and not whole.held_out and held_out(POOL, hold_out=0) is None
    assert any("a little too good" in note for note in whole.plans[0].notes)


def test_too_few_problems_are_told_how_many_would_do() -> None:
    (plan,) = calibrate(POOL, budgets=(6,), target=0.01, orders=2).plans
    (said,) = [note for note in plan.notes if "too few to promise" in note]
    assert "42 problems are too few" in said and "would do" in said and "in all" in said
    assert plan.lost_at_most == 0 and plan.over_full is not None
    enough = calibrate(synthetic_pool(300, 4, seed=3), budgets=(4,), target=0.1, orders=2).plans[0]
    assert not any("too few to promise" in note for note in enough.notes)
    assert enough.lost_at_most is not None and enough.lost_at_most <= 0.1


def test_rounds_are_told_at_the_wave_that_is_used() -> None:
    rule = VoteLead(2)
    options = [*(SelfConsistency(n=6, stop=rule, wave=wave) for wave in (1, None)), SelfConsistency(n=6)]
    (plan,) = calibrate(POOL, budgets=(6,), target=0.3, orders=2, options=options).plans
    assert plan.expected and plan.expected.rounds and plan.expected_full and plan.expected_full.rounds == (1, 1, 1)
    assert plan.fixed.wave == 1 and plan.expected.rounds == plan.expected.samples  # type: ignore[attr-defined]
    (other,) = plan.others
    assert other.strategy.wave is None and other.expected.rounds is not None  # type: ignore[attr-defined]
    assert other.expected.rounds[0] < plan.expected.rounds[0] and other.expected.tokens[0] > plan.expected.tokens[0]
    waves = {wave: calibrate(POOL, budgets=(6,), target=0.3, orders=2, wave=wave).plans[0].fixed for wave in (1, None)}
    assert all(getattr(fixed, "stop", None) is None or fixed.wave == wave for wave, fixed in waves.items())  # type: ignore[attr-defined]


def test_a_loss_above_the_bound_on_the_problems_held_out_is_told() -> None:
    def of(i: int, answers: str) -> PoolProblem:
        given = tuple(PoolCandidate(text=a, answer=a, tokens=9, correct=a == "1", step_scores=()) for a in answers)
        return PoolProblem(id=f"p{i}", prompt="?", answer="1", level=1, candidates=given)

    header = PoolHeader(model="m", dataset="d", licence="CC0-1.0")
    settled = Pool(header=header, problems=tuple(of(i, "1" * 9) for i in range(200)))
    apart = held_out(settled)
    assert apart is not None
    harder = {p.id for p in apart.problems}
    mixed = tuple(of(i, "111112222" if p.id in harder else "1" * 9) for i, p in enumerate(settled.problems))
    for pool, told in ((settled, False), (replace(settled, problems=mixed), True)):
        plan = calibrate(pool, budgets=(9,), target=0.05, orders=10).plans[0]
        assert any("more than the fit's bound" in note for note in plan.notes) is told


# Arguments of another kind


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: LearnedStopping.fit(POOL, n=4, target=0.1, seed=-1), "seed=-1"),
        (lambda: LearnedStopping.fit(7, n=4, target=0.1), "records=7 must be a list"),  # type: ignore[arg-type]
        (lambda: LearnedStopping.fit(["x"], n=4, target=0.1), "which is not a PoolProblem"),  # type: ignore[list-item]
        (lambda: LearnedStopping.frontier(POOL, n=4, prices=1e-4), "prices=0.0001 must be a list"),  # type: ignore[arg-type]
        (lambda: calibrate(POOL, seed=-1), "seed=-1"),
        (lambda: calibrate(POOL, budgets=8), "budgets=8 must be a list"),  # type: ignore[arg-type]
        (lambda: calibrate(POOL, options=SelfConsistency(n=2)), "options=.* must be a list"),  # type: ignore[arg-type]
        (lambda: held_out("samples.jsonl"), "is not a Pool"),  # type: ignore[arg-type]
        (lambda: Abstention.of_pool("samples.jsonl", BestOfN(n=2)), "is not a Pool"),  # type: ignore[arg-type]
        (lambda: Abstention.of_pool(POOL, "best-of-n"), "is not a strategy"),  # type: ignore[arg-type]
        (lambda: Abstention.fit(["x"] * 9, [True] * 9), "confidence='x' must be a number"),  # type: ignore[list-item]
        (lambda: Abstention.fit(0.9, True), "confidences=0.9 must be a list"),  # type: ignore[arg-type]
        (lambda: ComputeOptimal(plans="x"), "plans='x' must be a list"),  # type: ignore[arg-type]
        (lambda: LearnedStopping(n=4, select="majority", weights=3), "weights=3 must be a list"),  # type: ignore[arg-type]
        (lambda: replace(FOUND, curve=5), "curve=5 must be a list"),
        (lambda: replace(FOUND, curve=(1,)), "curve=.* is not of the kind"),
        (lambda: replace(FOUND, risk=7), "abstain_risk=7 must be"),
        (lambda: replace(FOUND, wrong=-1), "wrong=-1 must be"),
        (lambda: Abstention.of_pool(POOL, BestOfN), "is not a strategy"),  # type: ignore[arg-type]
        (lambda: Measured(strategy=BestOfN(n=2), right={"a": math.nan}, samples={}, tokens={}), "right.*=nan must"),
        (lambda: Measured(strategy=BestOfN(n=2), right={}, samples=3, tokens={}), "samples=3 is not"),  # type: ignore[arg-type]
        (lambda: Ladder([BestOfN(n=2)]).with_models(3), "models=3 must be a dict"),  # type: ignore[arg-type]
        (lambda: calibrate(POOL, measured=None), "measured=None must be a list"),  # type: ignore[arg-type]
        (lambda: calibrate(POOL, measured=[7]), "measured has 7, which is not a Measured"),  # type: ignore[list-item]
        (lambda: calibrate(POOL, aggregate=["last"]), "aggregate=.* is not known"),  # type: ignore[arg-type]
        (lambda: held_out(POOL, seed=[]), "held_out: seed="),  # type: ignore[arg-type]
        (lambda: Pool.read(5), "5 is not a path"),  # type: ignore[arg-type]
        (lambda: LearnedStopping.load(None), "None is not a path"),  # type: ignore[arg-type]
        (lambda: Abstention.load(b"x"), "b'x' is not a path"),  # type: ignore[arg-type]
        (lambda: ComputeOptimal.from_file("a\0b"), "cannot be a path"),
    ],
)  # fmt: skip
def test_an_argument_of_another_kind_is_refused_by_name(call: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        call()


@pytest.mark.parametrize("read", [LearnedStopping.load, Abstention.load, ComputeOptimal.from_file, Pool.read])
def test_files_that_are_not_there_or_are_folders_are_errors_of_data(read: Any, tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.json", "there is no such file"), (tmp_path, "that is a folder")):
        with pytest.raises(DataError, match=said):
            read(path)


def test_numpy_s_arrays_serve_as_lists() -> None:
    found = Abstention.fit(np.full(60, 0.9, dtype=np.float32), np.ones(60, dtype=bool))  # type: ignore[arg-type]
    assert found.answered == 60
