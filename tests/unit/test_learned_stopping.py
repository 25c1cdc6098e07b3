from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tts_plugins import BestOfN, SelfConsistency
from tts_plugins.bench import replay_sync
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies import LearnedStopping
from tts_plugins.policies._stopping.regression import calibrated
from tts_plugins.policies._stopping.walks import Samples
from tts_plugins.pools import Pool
from tts_plugins.selection import Ballots, Select
from tts_plugins.stopping import Rule, Threshold, VoteLead
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Problem, Scored
from tts_plugins.verifiers.recorded import RecordedVerifier

N = 12
FIT, REST = synthetic_pool(60, N, seed=1).split(2, seed=1)
EXACT_FIT, EXACT_REST = synthetic_pool(60, N, seed=2, exact=True).split(2, seed=1)


@pytest.fixture(scope="module")
def rule() -> LearnedStopping:
    return LearnedStopping.fit(FIT, n=N, price=6e-5, orders=8)


@pytest.fixture(scope="module")
def exact() -> LearnedStopping:
    return LearnedStopping.fit(EXACT_FIT, n=N, select="best", price=1e-6, orders=8)


def candidates(*answers: str | None, score: float | None = None) -> list[Scored]:
    problem = Problem("?")
    return [Scored(problem, text="x", answer=a, finished=True, tokens=200, index=i, score=score)
            for i, a in enumerate(answers)]  # fmt: skip


def test_it_saves_tokens_on_problems_it_has_not_seen(rule: LearnedStopping) -> None:
    fixed = replay_sync(REST, SelfConsistency(n=N), orders=8)
    early = replay_sync(REST, SelfConsistency(n=N, stop=rule, wave=1), orders=8)
    assert early.tokens_saved(fixed).low > 1.2
    assert early.accuracy_over(fixed).value > -0.05


def test_a_dearer_token_buys_fewer_of_them() -> None:
    rules = LearnedStopping.frontier(FIT, n=N, prices=[1e-6, 3e-5, 1e-3], orders=8)
    spent = [replay_sync(REST, SelfConsistency(n=N, stop=r, wave=1), orders=3).tokens.value for r in rules]
    assert spent == sorted(spent, reverse=True) and spent[0] > 2 * spent[2]
    assert [r.price for r in rules] == [1e-6, 3e-5, 1e-3]


def test_weighted_votes_use_the_scores() -> None:
    fitted = LearnedStopping.fit(FIT, n=N, select="weighted", price=2e-5, orders=8)
    verifier = RecordedVerifier()
    fixed = replay_sync(REST, BestOfN(n=N, select="weighted"), verifier, orders=5)
    early = replay_sync(REST, BestOfN(n=N, select="weighted", stop=fitted, wave=1), verifier, orders=5)
    assert early.tokens_saved(fixed).low > 1.5 and early.accuracy_over(fixed).value > -0.05


def test_on_an_exact_check_it_stops_at_the_first_that_passes(exact: LearnedStopping) -> None:
    verifier = RecordedVerifier()
    first = replay_sync(EXACT_REST, BestOfN(n=N, stop=Threshold(1.0), wave=1), verifier, orders=5)
    ours = replay_sync(EXACT_REST, BestOfN(n=N, stop=exact, wave=1), verifier, orders=5)
    assert ours.tokens.value <= first.tokens.value and ours.accuracy.value >= first.accuracy.value


def test_with_a_price_it_gives_up_on_the_hopeless() -> None:
    dear = LearnedStopping.fit(EXACT_FIT, n=N, select="best", price=3e-4, orders=8)
    found = replay_sync(EXACT_REST, BestOfN(n=N, stop=dear, wave=1), RecordedVerifier(), orders=5)
    never = [p.id for p in EXACT_REST.problems if not any(c.correct for c in p.candidates)]
    assert never
    for name in never:
        assert sum(found.by_problem[name].samples) / 5 < N


def test_a_target_is_kept_by_cross_validation() -> None:
    loose, tight = (LearnedStopping.fit(FIT, n=N, target=t, orders=4) for t in (0.1, 0.0))
    for r, target in ((loose, 0.1), (tight, 0.0)):
        assert r.expected_accuracy is not None and r.full_accuracy is not None
        assert r.expected_accuracy >= r.full_accuracy - target - 1e-9 or r.price == min(loose.price, tight.price)
    assert (loose.expected_tokens or 0) < (tight.expected_tokens or 0)


def test_the_same_records_and_seed_give_the_same_rule(rule: LearnedStopping) -> None:
    assert LearnedStopping.fit(FIT, n=N, price=6e-5, orders=8) == rule
    assert LearnedStopping.fit(list(FIT.problems), n=N, price=6e-5, orders=8).weights == rule.weights


def test_it_reads_no_grade_when_it_runs(rule: LearnedStopping) -> None:
    problems = (replace(p, candidates=tuple(replace(c, correct=None) for c in p.candidates)) for p in REST.problems)
    hidden = replace(REST, problems=tuple(problems))
    strategy = SelfConsistency(n=N, stop=rule, wave=1)
    blind = replay_sync(hidden, strategy, orders=3, grade=lambda r: True)
    assert blind.samples == replay_sync(REST, strategy, orders=3).samples


def test_saved_and_loaded_it_is_the_same(rule: LearnedStopping, tmp_path: Path) -> None:
    rule.save(tmp_path / "rule.json")
    assert LearnedStopping.load(tmp_path / "rule.json") == rule
    assert [f.name for f in tmp_path.iterdir()] == ["rule.json"]
    assert Rule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    both = rule | VoteLead(3)
    assert Rule.from_dict(json.loads(json.dumps(both.to_dict()))) == both


def test_other_versions_and_files_are_refused(rule: LearnedStopping, tmp_path: Path) -> None:
    path = tmp_path / "rule.json"
    for change, said in (({"version": 99}, "version=99"), ({"format": "x"}, "format"), ({"weights": [1]}, "weights"),
                         ({"select": "worst"}, "'worst'"), ({"colour": 1}, "'colour'"), ({"begin": 0}, "begin=0"),
                         ({"price": float("inf")}, "price")):  # fmt: skip
        path.write_text(json.dumps({"format": "tts-stop-rule", **rule.to_dict(), **change}))
        with pytest.raises(DataError, match=said) as caught:
            LearnedStopping.load(path)
        assert "rule.json" in str(caught.value)
    path.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        LearnedStopping.load(path)


def test_strategies_that_it_was_not_fitted_for_are_refused(rule: LearnedStopping, exact: LearnedStopping) -> None:
    with pytest.raises(ConfigurationError, match="n=12, and the strategy has 16"):
        SelfConsistency(n=16, stop=rule)
    with pytest.raises(ConfigurationError, match="select='majority'"):
        BestOfN(n=N, stop=rule)
    with pytest.raises(ConfigurationError, match="select='best'"):
        BestOfN(n=N, select="weighted", stop=exact | Threshold(0.5))
    with pytest.raises(ConfigurationError, match="fitted to n=12, and 13 may come"):
        rule(candidates("a"), 12)
    with pytest.raises(ConfigurationError, match="no score"):
        exact(candidates("a"), 3)


def test_least_is_no_promise_that_it_breaks(rule: LearnedStopping, exact: LearnedStopping) -> None:
    assert rule.least([], N) == min(rule.begin, N // 2 + 1) and exact.least([], N) == 1
    late = replace(rule, begin=5)
    assert late.least([], N) == 5 and late.least(candidates("a", "b"), N - 2) == 3
    assert not late(candidates(*"abcd"), N - 4)
    assert late(candidates(*"aaaaaaa"), N - 7)  # decided, whatever the weights say
    assert exact(candidates("a", score=1.0), 3)


def test_lost_candidates_leave_fewer_to_come(rule: LearnedStopping) -> None:
    assert replace(rule, begin=N)(candidates("a", "a", "b"), 0) is True
    assert replace(rule, begin=N)(candidates("a", "b"), 3) is False


def fewer(pool: Pool, **change: object) -> Pool:
    p = pool.problems[3]
    odd = replace(p, candidates=(*p.candidates[:-1], replace(p.candidates[-1], **change)))  # type: ignore[arg-type]
    return replace(pool, problems=(*pool.problems[:3], odd, *pool.problems[4:]))


def test_records_that_do_not_serve_are_named() -> None:
    for pool, select, said in ((fewer(FIT, correct=None), "majority", "correct: is null"),
                               (fewer(FIT, tokens=None), "majority", "tokens: is null"),
                               (fewer(FIT, step_scores=()), "weighted", "score: is null")):  # fmt: skip
        with pytest.raises(DataError, match=said) as caught:
            LearnedStopping.fit(pool, n=N, select=select, price=1e-5)  # type: ignore[arg-type]
        assert FIT.problems[3].id in str(caught.value)
    with pytest.raises(DataError, match="has 12 candidates; lower n=13"):
        LearnedStopping.fit(FIT, n=13, price=1e-5)
    with pytest.raises(ConfigurationError, match="no problems"):
        LearnedStopping.fit([], n=4, price=1e-5)
    with pytest.raises(ConfigurationError, match=r"prices=\(\) has none"):
        LearnedStopping.frontier(FIT, n=N, prices=[])
    for wrong in ({}, {"price": 1e-5, "target": 0.1}, {"price": -1.0}, {"target": 1.0}, {"price": 1e-5, "orders": 0},
                  {"price": 1e-5, "extra_tokens": float("nan")}, {"price": 1e-5, "select": "x"}):  # fmt: skip
        with pytest.raises(ConfigurationError):
            LearnedStopping.fit(FIT, n=N, **wrong)  # type: ignore[arg-type]


def test_one_problem_or_none_that_is_right_is_enough_to_fit() -> None:
    wrong = replace(FIT, problems=tuple(
        replace(p, candidates=tuple(replace(c, correct=False, truncated=True, answer=None) for c in p.candidates))
        for p in FIT.problems[:5]))  # fmt: skip
    lost = LearnedStopping.fit(wrong, n=N, price=1e-5, orders=3)
    assert lost(candidates(None, None), N - 2)  # nothing was ever right: not worth a token
    assert LearnedStopping.fit(FIT.problems[:1], n=N, price=1e-5, orders=3).n == N


@pytest.mark.parametrize("select", ["majority", "weighted", "best"])
def test_calibration_uses_the_grades_of_its_own_fold_only(select: Select) -> None:
    samples = Samples.of(FIT.problems, N, select, "last")
    train = np.arange(15)
    table = calibrated(samples, select, train)
    spoiled = replace(samples, correct=np.where(np.arange(30)[:, None] < 15, samples.correct, 1 - samples.correct))
    assert np.allclose(calibrated(spoiled, select, train), table)
    assert ((table >= 0) & (table <= 1)).all()
    right, wrong = samples.correct == 1, samples.correct == 0
    assert table[right].mean() > table[wrong].mean() + 0.2


def test_numpy_is_not_imported_until_something_is_fitted() -> None:
    code = "import sys, tts_plugins, tts_plugins.policies, tts_plugins.pools; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("select", ["majority", "weighted", "best"])
def test_a_rule_without_weights_looks_at_each_candidate_once(select: Select) -> None:
    reads = 0

    class Read(Scored):
        @property
        def vote(self) -> str | None:
            nonlocal reads
            reads += 1
            return super().vote

    rule = LearnedStopping(n=300, select=select, enough=200.0, fade=3.0, at_most=300, price=0.0, reference=1.0)
    seen = Ballots()
    for i in range(250):
        seen.append(Read(Problem("?"), text="x", answer=str(i % 3), score=0.25, finished=True))
        assert not rule(seen, 300 - len(seen)) and rule.least(seen, 300 - len(seen)) >= 1
    assert reads <= 3 * 250
    with pytest.raises(ConfigurationError, match="has no score"):
        seen.append(Read(Problem("?"), text="x", answer="1", finished=True))
        LearnedStopping(n=300, select="weighted", enough=1.0, price=0.0, reference=1.0)(seen, 1)
