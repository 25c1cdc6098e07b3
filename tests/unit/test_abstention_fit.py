"""The threshold for abstention: fixed-sequence binomial tests, ties whole, pools replayed, files, pages."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import BeamSearch, BestOfN, Revision, SelfConsistency, solve_sync
from tts_plugins.bench.report.abstention import abstention_page
from tts_plugins.cli import main
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.models import ReplayModel
from tts_plugins.models.replay import recorded_answer
from tts_plugins.policies import Abstention, ComputeOptimal, calibrate, held_out
from tts_plugins.policies._calibration.answering import Sureness, way_of
from tts_plugins.policies.abstention import choices_of, least_answered
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.stopping import VoteLead
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.verifiers import RecordedVerifier


def test_the_least_numbers_are_those_of_the_exact_binomial_test() -> None:
    assert least_answered(0.05, 0.9) == 45 and least_answered(0.1, 0.9) == 22
    need = {0: 45, 1: 77, 2: 105, 3: 132, 4: 158}
    for wrong, count in need.items():
        right = [True] * (count - wrong) + [False] * wrong
        ties = [0.9] * count  # all of one confidence: one test
        assert Abstention.fit(ties, right).answered == count
        assert Abstention.fit(ties[1:], right[1:]).below is None


def test_it_goes_down_from_the_surest_until_a_test_fails() -> None:
    confidences = [1 - i / 1000 for i in range(200)]
    right = [i < 60 for i in range(200)]
    found = Abstention.fit(confidences, right)
    assert found.below == confidences[59] and (found.answered, found.wrong) == (60, 0)
    shuffled = random.Random(1).sample(range(200), 200)
    assert Abstention.fit([confidences[i] for i in shuffled], [right[i] for i in shuffled]) == found
    assert found.coverage == 0.3 and "60 (30%)" in found.words


def test_answers_of_one_confidence_are_answered_together_or_not_at_all() -> None:
    confidences = [0.9] * 50 + [0.8] * 50
    right = [True] * 50 + [True] * 40 + [False] * 10
    found = Abstention.fit(confidences, right)
    assert found.below == 0.9 and found.answered == 50
    mixed = Abstention.fit([0.9] * 60, [True] * 50 + [False] * 10)
    assert mixed.below is None and "some are wrong" in mixed.words


def test_unknown_confidence_is_never_answered_and_counts_as_a_problem() -> None:
    found = Abstention.fit([0.9] * 50 + [None] * 50, [True] * 100)
    assert found.problems == 100 and found.answered == 50 and found.coverage == 0.5


def test_too_few_problems_have_no_threshold_and_it_says_how_many_are_needed() -> None:
    found = Abstention.fit([0.9] * 44, [True] * 44)
    assert found.below is None and found.needed == 45
    assert "takes at least 45 answered problems, and there are 44" in found.words
    assert Abstention.fit([], []).below is None


@pytest.mark.parametrize(
    "bad", [{"risk": 0}, {"risk": 1}, {"risk": math.nan}, {"risk": "0.1"}, {"risk": True}, {"confidence": 0.4},
            {"confidence": 1.0}, {"confidence": math.nan}],
)  # fmt: skip
def test_promises_that_cannot_be_made_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a number"):
        Abstention.fit([0.5], [True], **bad)


def test_bad_data_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="2 confidences and 1 grades"):
        Abstention.fit([0.5, 0.4], [True])
    for value in (1.5, math.nan, -0.1, True):
        with pytest.raises(ConfigurationError, match="must be a number from 0 to 1"):
            Abstention.fit([value], [True])
    for grade in (0.5, None, "no", math.nan):
        with pytest.raises(ConfigurationError, match=r"the grade .* must be true or false"):
            Abstention.fit([0.5, 0.5], [True, grade])  # type: ignore[list-item]
    empty = Pool(header=PoolHeader(model="m", dataset="d"), problems=())
    with pytest.raises(DataError, match="no problems"):
        Abstention.of_pool(empty, SelfConsistency(n=4))
    bare = PoolProblem(id="p", candidates=(PoolCandidate(text="1", answer="1", tokens=1),) * 4)
    with pytest.raises(DataError, match="not graded"):
        Abstention.of_pool(Pool(header=PoolHeader(model="m", dataset="d"), problems=(bare,)), SelfConsistency(n=4))
    pool = synthetic_pool(problems=4, candidates=4)
    with pytest.raises(DataError, match="asks for 8; lower its n"):
        Abstention.of_pool(pool, SelfConsistency(n=8))
    with pytest.raises(ConfigurationError, match="aggregate='max' is not known"):
        Abstention.of_pool(pool, SelfConsistency(n=4), aggregate="max")  # type: ignore[arg-type]
    for strategy in (Revision(chains=1, rounds=2), BeamSearch(n=4, beam_width=2)):
        with pytest.raises(ConfigurationError, match="which a pool of whole answers does not have"):
            Abstention.of_pool(pool, strategy)


@pytest.mark.parametrize(
    "strategy",
    [SelfConsistency(n=8), SelfConsistency(n=8, stop=VoteLead(2)), BestOfN(n=8), BestOfN(n=8, select="weighted")],
    ids=repr,
)
def test_a_replay_is_what_the_engine_does(strategy: Any) -> None:
    pool = synthetic_pool(problems=12, candidates=8)
    confidences, right = choices_of(pool, strategy)
    model, verifier = ReplayModel(pool, seed=None), RecordedVerifier()
    for problem, confidence, good in zip(pool.problems, confidences, right, strict=True):
        result = solve_sync(
            problem.problem(), model=model, strategy=strategy, verifier=verifier, answer=recorded_answer
        )
        assert result.confidence == pytest.approx(confidence) and result.output.correct == good


def test_the_promise_is_kept_and_the_policy_abstains() -> None:
    pool = synthetic_pool(problems=300, candidates=8)
    policy = calibrate(pool, budgets=(8,), abstain_risk=0.1, orders=2)
    (plan,) = policy.plans
    assert (policy.problems, policy.held_out) == (45, 255)
    assert plan.abstain is not None and plan.abstain.below is not None and policy.abstains
    assert plan.abstain.wrong / plan.abstain.answered <= 0.1
    same = ComputeOptimal.from_dict(json.loads(json.dumps(policy.to_dict())))
    assert same == policy
    kept = []
    for problem in pool.problems[:40]:
        result = solve_sync(
            problem.problem(),
            model=ReplayModel(pool, seed=None),
            strategy=policy,
            verifier=RecordedVerifier().of(pool),
            answer=recorded_answer,
        )
        assert (result.abstained is not None) == (result.confidence is None or result.confidence < plan.abstain.below)
        kept.append(result.abstained is None)
    assert 0 < sum(kept) < 40
    over = solve_sync(
        pool.problems[0].problem(), model=ReplayModel(pool, seed=None), strategy=policy, abstain_below=0.0,
        verifier=RecordedVerifier().of(pool), answer=recorded_answer,
    )  # fmt: skip
    assert over.abstained is None  # what the caller says comes first


def test_a_threshold_is_fitted_to_problems_that_did_not_choose_the_plan() -> None:
    pool = synthetic_pool(problems=60, candidates=4)
    rest = held_out(pool, abstain_risk=0.2)
    policy = calibrate(pool, budgets=(4,), abstain_risk=0.2, orders=2)
    assert rest is not None and policy.plans[0].abstain == Abstention.of_pool(rest, policy, risk=0.2)
    assert (policy.problems, policy.held_out) == (9, len(rest.problems)) == (9, 51)
    assert len(held_out(pool, hold_out=0.5, abstain_risk=0.2).problems) == 30  # type: ignore[union-attr]
    all_of_it = calibrate(pool, budgets=(4,), abstain_risk=0.2, hold_out=0, orders=2)
    assert all_of_it.plans[0].abstain == Abstention.of_pool(pool, all_of_it, risk=0.2)
    assert any("problems that chose the plan" in note for note in all_of_it.plans[0].notes)


def _sure_when_wrong(problems: int) -> Pool:
    """A pool whose best scores are right most often, and as high where they are wrong; agreement tells them apart."""
    rng, made = random.Random(1), []
    for i in range(problems):
        easy, found = rng.random() < 0.5, rng.random() < 0.6
        right = [easy or found, *[easy] * 7]
        scores = [rng.uniform(0.9, 1.0), *[rng.uniform(0.4, 0.6) for _ in range(7)]]
        wrong = ["odd", "wrong"]  # seven that agree on a wrong answer are less sure than all eight on the right one
        said = [
            PoolCandidate(
                text=f"{k}", answer="right" if good else wrong[min(k, 1)], tokens=9, correct=good, score=score
            )
            for k, (good, score) in enumerate(zip(right, scores, strict=True))
        ]
        made.append(PoolProblem(id=f"p{i}", prompt="?", answer="right", candidates=tuple(said)))
    return Pool(header=PoolHeader(model="m", dataset="d", licence="CC0-1.0", verifier="v"), problems=tuple(made))


def test_a_plan_that_abstains_is_chosen_by_its_confidence() -> None:
    pool = _sure_when_wrong(400)
    given: dict[str, Any] = {"budgets": (8,), "orders": 2}
    (plain,) = calibrate(pool, **given).plans
    assert isinstance(plain.fixed, BestOfN) and plain.fixed.select == "best"
    for goal in ({}, {"price": 1e-5}):
        (plan,) = calibrate(pool, abstain_risk=0.05, **goal, **given).plans
        assert not isinstance(plan.fixed, BestOfN) or plan.fixed.select == "weighted"
        assert plan.abstain is not None and plan.abstain.coverage > 0.3
        (why,) = (note for note in plan.notes if "unsure questions get no answer" in note)
        assert "its confidence tells right answers from wrong ones best" in why and "weighted vote 5" in why
        assert "best score is right more often" in why
    alone = Abstention.of_pool(pool, plain.fixed, risk=0.05)
    assert alone.coverage == 0


def test_exact_checks_still_end_at_the_first_that_passes() -> None:
    pool = synthetic_pool(problems=200, candidates=8, exact=True)
    (plan,) = calibrate(pool, budgets=(8,), abstain_risk=0.05, orders=2).plans
    assert isinstance(plan.fixed, BestOfN) and plan.fixed.select == "best" and plan.abstain is not None
    assert plan.abstain.coverage > 0.7 and not plan.abstain.wrong


def test_too_few_problems_take_agreement_and_say_so() -> None:
    right = np.array([[1.0], [1.0], [1.0], [0.0], [0.0]])
    best = Sureness(confidences=np.array([[0.9], [0.8], [0.7], [0.6], [0.5]]), right=right)
    vote = Sureness(confidences=np.array([[0.9], [0.8], [0.6], [0.7], [0.5]]), right=right)
    assert best.answers(0.25) == pytest.approx((0.6 + (0.5 + 0.2) / 5, -(1 / 4 + 2 / 5) / 5))
    assert way_of({"best": best, "majority": vote}, 0.25, exact=False) == ("majority", True)
    assert way_of({"best": best, "majority": vote}, 0.25, exact=True) == ("best", False)
    many = {name: Sureness(confidences=np.tile(s.confidences, (40, 1)), right=np.tile(s.right, (40, 1)))
            for name, s in (("best", best), ("majority", vote))}  # fmt: skip
    assert way_of(many, 0.25, exact=False) == ("best", False)  # type: ignore[arg-type]
    (plan,) = calibrate(synthetic_pool(problems=12, candidates=4), budgets=(4,), abstain_risk=0.05, orders=2).plans
    assert any("4 problems" in note and "was taken because" in note for note in plan.notes)


def test_what_the_pool_has_no_records_for_is_refused() -> None:
    pool = synthetic_pool(problems=12, candidates=4)
    bare = replace(pool, problems=tuple(
        replace(p, candidates=tuple(replace(c, score=None, step_scores=()) for c in p.candidates))
        for p in pool.problems
    ))  # fmt: skip
    for risk in (None, 0.2):
        with pytest.raises(ConfigurationError, match="chooses by 'best', and the pool has no scores"):
            calibrate(bare, budgets=(4,), options=[BestOfN(n=4)], abstain_risk=risk)


def test_a_policy_of_too_few_problems_promises_nothing() -> None:
    policy = calibrate(synthetic_pool(problems=12, candidates=4), budgets=(4,), abstain_risk=0.05, orders=2)
    assert not policy.abstains and policy.plans[0].abstain is not None and policy.plans[0].abstain.needed == 45
    with pytest.raises(ConfigurationError, match="nothing is ever withheld"):
        solve_sync("?", model=ReplayModel(synthetic_pool(problems=12, candidates=4)), strategy=policy,
                   on_abstain="raise")  # fmt: skip
    for bad in (0, 2, math.nan, "5%"):
        with pytest.raises(ConfigurationError, match=r"abstain_risk=.* must be a number above 0 and below 1"):
            calibrate(synthetic_pool(problems=12, candidates=4), abstain_risk=bad)  # type: ignore[arg-type]


def test_it_says_how_many_problems_would_do_where_more_of_the_same_would() -> None:
    some = Abstention.fit([1.0] * 24 + [0.5] * 6, [True] * 23 + [False] * 7, risk=0.1)
    assert some.below is None and some.enough is not None and f"about {some.enough} problems would do" in some.words
    k = some.enough
    more = Abstention.fit([1.0] * 24 * k + [0.5] * 6 * k, ([True] * 23 + [False]) * k + [False] * 6 * k, risk=0.1)
    assert more.below == 1.0
    hopeless = Abstention.fit([1.0] * 30, [True, False] * 15, risk=0.1)
    assert hopeless.enough is None and "would do" not in hopeless.words


def test_a_problem_without_a_score_does_not_block_a_threshold() -> None:
    pool = synthetic_pool(problems=40, candidates=4)
    bare = replace(pool.problems[3].candidates[1], score=None, step_scores=())
    odd = replace(pool.problems[3], candidates=(bare, *pool.problems[3].candidates[1:]))
    pool = replace(pool, problems=(*pool.problems[:3], odd, *pool.problems[4:]))
    assert Abstention.of_pool(pool, BestOfN(n=4), risk=0.5).problems == 39
    assert Abstention.of_pool(pool, SelfConsistency(n=4), risk=0.5).problems == 40


def test_files_and_pages(tmp_path: Path) -> None:
    found = Abstention.fit([1 - i / 1000 for i in range(300)], [i % 50 != 49 for i in range(300)], risk=0.1)
    found.save(tmp_path / "a.json")
    assert Abstention.load(tmp_path / "a.json") == found and len(found.curve) == 200
    (tmp_path / "b.json").write_text('{"format": "tts-policy"}')
    with pytest.raises(DataError, match="not a threshold for abstention"):
        Abstention.load(tmp_path / "b.json")
    page = abstention_page([("one", found), ("<none>", Abstention.fit([], []))], "model")
    alike = abstention_page([("same", Abstention.fit([0.5] * 30, [True] * 29 + [False]))], "model")
    assert alike.count('class="curve') == 1 and "there is no dot" in alike and ">-<" in alike
    assert page.count('class="curve') == 1 and "&lt;none&gt;" in page and "questions answered" in page
    assert "no threshold" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_thresholds_that_fall_together_keep_their_letters_apart() -> None:
    found = Abstention.fit([0.9] * 60 + [0.5] * 40, [True] * 60 + [False] * 40)
    page = abstention_page([(name, found) for name in ("first", "second", "third")], "m")
    letters = set(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="8.5"', page))
    dots = set(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3"', page))
    assert found.below == 0.9 and len(dots) == 1 and len(letters) == 3
    assert page.count("at most 5%, with 90% confidence") == 3


def test_the_command_prints_the_promise_and_writes_the_page(tmp_path: Path, capsys: Any) -> None:
    pool = tmp_path / "pool.jsonl.gz"
    synthetic_pool(problems=60, candidates=4).write(pool)
    out, page = tmp_path / "policy.json", tmp_path / "page.html"
    given = ["calibrate", str(pool), "--out", str(out), "--budgets", "4", "--orders", "2", "--abstain-page", str(page)]
    assert main([*given, "--abstain-risk", "0.2"]) == 0
    printed = capsys.readouterr()
    assert "of the answered questions are wrong, with 90% confidence" in " ".join(printed.err.split())
    assert "was taken because unsure questions get no answer" in " ".join(printed.out.split())
    assert "When to answer" in page.read_text()
    assert main(given) == 2 and "--abstain-risk" in capsys.readouterr().err
