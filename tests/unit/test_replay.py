from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Problem, SelfConsistency, solve
from tts_plugins.bench import replay, replay_sync
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, DataError, RequestRefused
from tts_plugins.metrics import (
    clustered_bootstrap,
    expected_best,
    expected_majority,
    expected_weighted,
    paired_bootstrap,
)
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.pools import Pool, PoolCandidate
from tts_plugins.stopping import VoteLead
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.verifiers.recorded import RecordedVerifier

POOL = synthetic_pool(6, 8)


def changed(**fields: Any) -> Pool:
    """The pool with each candidate's fields replaced."""
    problems = (replace(p, candidates=tuple(replace(c, **fields) for c in p.candidates)) for p in POOL.problems)
    return replace(POOL, problems=tuple(problems))


async def test_each_sample_is_served_once_with_its_tokens() -> None:
    p = POOL.problems[0]
    result = await solve(p.problem(), model=ReplayModel(POOL), strategy=SelfConsistency(n=8), answer=recorded_answer)
    assert sorted(id(c.output) for c in result.candidates) == sorted(map(id, p.candidates))
    assert result.usage.tokens == sum(c.tokens or 0 for c in p.candidates)
    assert result.usage.calls == 8 and result.usage.exact
    assert [c.answer for c in result.candidates] == [c.output.answer for c in result.candidates]


async def test_the_seed_fixes_the_order() -> None:
    async def order(seed: int | None) -> list[str | None]:
        result = await solve(POOL.problems[1].problem(), model=ReplayModel(POOL, seed=seed), seed=0,
                             strategy=SelfConsistency(n=8), answer=recorded_answer)  # fmt: skip
        return [c.output.text + str(c.tokens) for c in result.candidates]

    recorded = [str(c.text) + str(c.tokens) for c in POOL.problems[1].candidates]
    assert await order(None) == recorded
    assert await order(3) == await order(3) != recorded
    assert await order(3) != await order(4)


async def test_a_problem_object_goes_on_where_it_stopped_and_a_fresh_one_does_not() -> None:
    model = ReplayModel(POOL)
    problem = POOL.problems[0].problem()
    first = await model.generate(problem, [0] * 3)
    rest = await model.generate(problem, [0] * 8)
    assert len(rest.generations) == 5
    assert len({id(g.output) for g in (*first.generations, *rest.generations)}) == 8
    with pytest.raises(RequestRefused, match="all 8 samples of problem 'p0'"):
        await model.generate(problem, [0])
    assert len((await model.generate(POOL.problems[0].problem(), [0] * 8)).generations) == 8


async def test_a_problem_is_found_by_its_text() -> None:
    result = await solve(str(POOL.problems[2].prompt), model=ReplayModel(POOL), strategy=SelfConsistency(n=2),
                         answer=recorded_answer)  # fmt: skip
    assert result.best.output in POOL.problems[2].candidates
    with pytest.raises(ConfigurationError, match="no problem 'nobody'"):
        await solve(Problem("?", id="nobody"), model=ReplayModel(POOL))


async def test_a_token_budget_holds_on_recorded_tokens() -> None:
    result = await solve(POOL.problems[0].problem(), model=ReplayModel(POOL), budget=Budget(tokens=1500),
                         strategy=SelfConsistency(n=8), answer=recorded_answer)  # fmt: skip
    assert result.stopped == "budget" and 0 < result.usage.tokens <= 1500


async def test_recorded_scores_are_read_and_aggregated() -> None:
    p = POOL.problems[0]
    for how in ("last", "min"):
        result = await solve(p.problem(), model=ReplayModel(POOL), strategy=BestOfN(n=8), answer=recorded_answer,
                             verifier=RecordedVerifier(aggregate=how))  # fmt: skip
        assert all(c.score == c.output.scored(how) and c.step_scores == c.output.step_scores for c in result.candidates)
        assert result.score == max(c.scored(how) or 0 for c in p.candidates)


async def test_a_candidate_without_a_record_or_a_score_has_no_score() -> None:
    with pytest.raises(AllCandidatesFailed, match="not from a ReplayModel"):
        await solve("?", model=ScriptedModel(["x"]), strategy=BestOfN(n=2), verifier=RecordedVerifier())
    bare = changed(step_scores=())
    with pytest.raises(AllCandidatesFailed, match="no score on record"):
        await solve(bare.problems[0].problem(), model=ReplayModel(bare), strategy=BestOfN(n=2),
                    verifier=RecordedVerifier())  # fmt: skip
    with pytest.raises(ConfigurationError, match="'median'"):
        RecordedVerifier(aggregate="median")  # type: ignore[arg-type]


async def test_truncation_is_carried_along() -> None:
    cut = replace(POOL, problems=(replace(POOL.problems[0], candidates=(
        PoolCandidate(text=None, answer=None, correct=False, truncated=True),) * 3),))  # fmt: skip
    result = await solve(cut.problems[0].problem(), model=ReplayModel(cut), strategy=SelfConsistency(n=3),
                         answer=recorded_answer)  # fmt: skip
    assert all(c.truncated and c.answer is None for c in result.candidates) and not result.usage.exact


async def test_replay_measures_what_the_votes_reach() -> None:
    pool = synthetic_pool(12, 8, seed=1)
    found = await replay(pool, SelfConsistency(n=8), orders=30)
    truth = [expected_majority([c.answer for c in p.candidates], [bool(c.correct) for c in p.candidates])
             for p in pool.problems]  # fmt: skip
    assert found.accuracy.value == pytest.approx(sum(truth) / 12, abs=0.03)
    assert found.accuracy.low <= found.accuracy.value <= found.accuracy.high
    assert found.samples.value == 8 and found.exact
    assert found.tokens.value == pytest.approx(sum(c.tokens or 0 for p in pool.problems for c in p.candidates) / 12)


def test_replay_pairs_strategies_on_the_same_orders() -> None:
    pool = synthetic_pool(12, 8, seed=1)
    fixed = replay_sync(pool, SelfConsistency(n=8), orders=5)
    early = replay_sync(pool, SelfConsistency(n=8, stop=VoteLead(3), wave=1), orders=5)
    saved = early.tokens_saved(fixed)
    assert saved.value == pytest.approx(fixed.tokens.value / early.tokens.value) and saved.low >= 1
    assert early.accuracy_over(fixed).value == pytest.approx(early.accuracy.value - fixed.accuracy.value)
    assert replay_sync(pool, SelfConsistency(n=8, stop=VoteLead(3), wave=1), orders=5) == early
    with pytest.raises(ConfigurationError, match="different problems"):
        early.accuracy_over(replay_sync(pool, SelfConsistency(n=2), problems=["p1"], orders=1))


async def test_replay_refuses_what_cannot_be_measured() -> None:
    with pytest.raises(ConfigurationError, match="fewest is 8"):
        await replay(POOL, SelfConsistency(n=9), orders=1)
    with pytest.raises(ConfigurationError, match="empty"):
        await replay(POOL, SelfConsistency(n=2), problems=[])
    with pytest.raises(ConfigurationError, match="'nobody'"):
        await replay(POOL, SelfConsistency(n=2), problems=["nobody"])
    ungraded = changed(correct=None)
    with pytest.raises(DataError, match="never graded"):
        await replay(ungraded, SelfConsistency(n=2), orders=1)
    found = await replay(ungraded, SelfConsistency(n=2), orders=1, grade=lambda result: True)
    assert found.accuracy.value == 1


def test_expectations_over_ties_are_means_over_orders() -> None:
    rng = random.Random(0)
    for _ in range(50):
        size = rng.randint(1, 5)
        answers = [rng.choice(["a", "b", None]) for _ in range(size)]
        scores = [rng.choice([0.2, 0.5]) for _ in range(size)]
        right = [a == "a" for a in answers]
        value = expected_weighted(answers, scores, right)
        sums = {a: sum(s for x, s in zip(answers, scores, strict=True) if x == a) for a in answers if a is not None}
        top = [a for a in sums if abs(sums[a] - max(sums.values())) < 1e-9]
        assert value == pytest.approx(sum(a == "a" for a in top) / len(top) if top else 0.0)
    assert expected_best([0.5, 0.5, 0.1], [True, False, True]) == 0.5
    assert expected_majority(["a", "b", None], [True, False, True]) == 0.5
    assert expected_weighted([None, None], [0.1, 0.2], [True, False]) == 0.0
    with pytest.raises(ValueError, match="1 values for 2"):
        expected_best([0.5], [True, False])


def test_intervals_resample_whole_problems() -> None:
    clusters = [[1.0] * 50] * 10 + [[0.0] * 50] * 10
    wide = clustered_bootstrap(clusters)
    assert wide.value == 0.5 and 0.2 <= wide.low <= 0.35 and 0.65 <= wide.high <= 0.8  # 20 coins, not 1000
    assert paired_bootstrap(clusters, clusters) == paired_bootstrap(clusters, clusters)
    same = paired_bootstrap(clusters, clusters)
    assert same.value == same.low == same.high == 0
    ratio = paired_bootstrap([[4.0], [2.0]], [[2.0], [1.0]], ratio=True)
    assert ratio.low == ratio.high == 2.0
    for wrong in (lambda: clustered_bootstrap([]), lambda: clustered_bootstrap([[]]),
                  lambda: paired_bootstrap([[1]], []), lambda: paired_bootstrap([[1]], [[0]], ratio=True)):  # fmt: skip
        with pytest.raises(ValueError):
            wrong()


async def test_recorded_log_probabilities_are_served() -> None:
    probed = changed(extra={"logprobs": [-0.5, -1]})
    result = await solve(probed.problems[0].problem(), model=ReplayModel(probed), strategy=SelfConsistency(n=2),
                         answer=recorded_answer)  # fmt: skip
    assert [c.logprobs for c in result.candidates] == [(-0.5, -1.0)] * 2
