"""LearnedVerifier: that it learns what is there to learn, what it refuses, and its file."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, Budget, Candidate, Problem, Result, Step, solve
from tts_plugins.bench.analysis.heldout import measure
from tts_plugins.bench.analysis.reliability import Reliability
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DataError,
    ServerFailed,
)
from tts_plugins.metrics import auc, clustered_auc, hold_out
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.testing import ScriptedModel
from tts_plugins.types import Generation
from tts_plugins.verifiers import LearnedHead, LearnedVerifier
from tts_plugins.verifiers.learned import labelled
from tts_plugins.verifiers.learned._features import rows, texts

SIZE = 12


def vector(text: str) -> tuple[float, ...]:
    """Noise that follows from the text, but for one direction: how often «good» stands in it, less «bad»."""
    rng = random.Random(text)
    noise = [rng.gauss(0, 1) for _ in range(SIZE)]
    noise[3] += 3.0 * (text.count("good") - text.count("bad"))
    return tuple(noise)


def embedder(name: str = "tiny", **settings: Any) -> ScriptedModel:
    def embed(problem: Problem, number: int) -> Any:
        given = problem.content if isinstance(problem.content, tuple) else (problem.content,)
        return Generation(text="vectors", output=tuple(map(vector, given)))

    return ScriptedModel(embed, name=name, completion_tokens=0, max_tokens=0, **settings)


def rollouts(problems: int = 40, *, teach: bool = True, logprobs: bool = False, seed: int = 0) -> Pool:
    """Solutions of two steps; a step is good or bad, and labels say so where they are to teach."""
    rng = random.Random(seed)
    made = []
    for i in range(problems):
        candidates = []
        for _ in range(6):
            words = [rng.choice(["good", "bad"]) for _ in range(2)]
            worth = (words.count("good") - words.count("bad")) / 2 if teach else rng.uniform(-1, 1)
            right = rng.random() < 0.5 + 0.45 * worth
            first = 0.5 + (0.3 if words[0] == "good" else -0.3) if teach else rng.random()
            steps = [f"step {rng.randint(0, 99)} {word}" for word in words]
            extra: dict[str, Any] = {"steps": steps}
            if logprobs:
                extra["logprobs"] = [-0.1, -0.5, -0.2, -3.0 if "bad" in words else -0.3]
            candidates.append(
                PoolCandidate(
                    text="\n\n".join(steps), answer=str(right), correct=right, step_scores=(first, float(right)),
                    extra=extra,
                )
            )  # fmt: skip
        made.append(PoolProblem(id=f"p{i}", prompt=f"problem {i}", candidates=tuple(candidates)))
    return Pool(header=PoolHeader(model="m", dataset="d"), problems=tuple(made))


async def trained(**settings: Any) -> LearnedVerifier:
    return await LearnedVerifier.fit(rollouts(), embedder(), **settings)


async def scored(verifier: Any, text: str, **settings: Any) -> Result:
    model = ScriptedModel([Generation(text=text, logprobs=(-0.1,) * 6)])
    return await solve("problem", model=model, strategy=BestOfN(n=1), verifier=verifier, **settings)


async def test_it_learns_what_tells_right_from_wrong() -> None:
    pool, source = rollouts(), embedder()
    table = await labelled(pool, source)
    assert table.x.shape == (40 * 6 * 2, 2 + SIZE) and not table.logprobs
    assert max(len(p) for p in table.x.tolist()) == 2 + SIZE
    train, test = hold_out(40, 0.4, 0)
    head = LearnedHead.of(table.of(train), embedding=source.name)
    found = measure([pool.problems[i] for i in test], [head.predicted(table, i) for i in test], "last")
    assert found.problems == 16 and found.solutions == 96
    assert found.auc.low > 0.7 and found.auc_within is not None and found.auc_within.low > 0.65
    assert found.gain["random"].low > 0 and found.accuracy["oracle"].value >= found.accuracy["verifier"].value
    assert found.reliability.brier < found.reliability.base_brier and found.reliability.error < 0.1
    assert head.about["loss"] < head.about["base_loss"] and head.about["rounds"] > 0
    assert "AUC 0." in found.text() and json.loads(json.dumps(found.to_dict()))["problems"] == 16


async def test_where_there_is_nothing_to_learn_it_claims_nothing() -> None:
    pool, source = rollouts(teach=False, seed=3), embedder()
    table = await labelled(pool, source)
    train, test = hold_out(40, 0.5, 1)
    head = LearnedHead.of(table.of(train), embedding=source.name)
    found = measure([pool.problems[i] for i in test], [head.predicted(table, i) for i in test], "last")
    assert found.auc.low <= 0.5 <= found.auc.high
    predicted = [s for i in test for steps in head.predicted(table, i) for s in steps]
    assert max(predicted) - min(predicted) < 0.5  # stopped early, it stays near the mean


async def test_step_scores_and_their_aggregate() -> None:
    verifier = await trained(aggregate="min")
    good = await scored(verifier, "step 1 good\n\nstep 2 good")
    bad = await scored(verifier, "step 1 good\n\nstep 2 bad")
    assert good.best.step_scores[0] == bad.best.step_scores[0]  # of the same beginning
    assert good.best.step_scores[1] > 0.7 > 0.5 > bad.best.step_scores[1]
    assert bad.score == min(bad.best.step_scores)
    assert good.usage.by_role["verifier"].calls == 1
    assert (await scored(LearnedVerifier(embedder(), verifier.head, aggregate="mean"), "a\n\nb")).score is not None


async def test_the_same_rollouts_give_the_same_head() -> None:
    assert (await trained()).head == (await trained()).head != (await trained(seed=5)).head


async def test_what_beams_share_is_asked_for_once() -> None:
    source = embedder()
    verifier = LearnedVerifier(source, (await trained()).head)

    async def both(run: Any, problem: Problem) -> Any:
        for steps in (("one", "two"), ("one", "two", "three"), ("one", "two")):
            text = "\n\n".join(steps)
            candidate = Candidate(problem, text=text, steps=tuple(map(Step, steps)), finished=True)
            score = await verifier.score(run, candidate)
            assert len(score.steps) == len(steps)
        return await anext(aiter(run.sample(problem, 1)))

    await solve("problem", model=ScriptedModel(["x"]), strategy=both, verifier=verifier)
    assert len(source.requests) == 3  # the third candidate cost nothing; the sampled one is the third request


async def test_log_probabilities_are_needed_where_it_was_trained_with_them() -> None:
    verifier = await LearnedVerifier.fit(rollouts(logprobs=True), embedder())
    assert verifier.head.logprobs and verifier.head.size == SIZE
    assert (await scored(verifier, "step 1 good\n\nstep 2 good")).score is not None
    with pytest.raises(AllCandidatesFailed, match="logprobs=True on the model"):
        await solve("p", model=ScriptedModel(["a\n\nb"]), strategy=BestOfN(n=1), verifier=verifier)


def test_a_beginning_has_the_tokens_that_its_characters_have() -> None:
    steps, logprobs = ["abc", "abcdefg"], [-0.1, -2.0, -0.3, -30.0, -0.1, -0.1]
    made = rows(steps, [[0.0], [1.0]], logprobs)
    assert made.shape == (2, 5)
    assert made[:, 0] == pytest.approx([math.log(2), math.log(3)])
    assert made[:, 1] == pytest.approx([math.log1p(4), math.log1p(12)])
    assert made[0, 2:] == pytest.approx([-1.05, -2.0, 0.0])  # 4 of 12 characters: 2 of 6 tokens
    assert made[1, 3] == -20.0 and made[1, 4] == 1.0
    assert texts("p", steps) == ["p\n\nabc", "p\n\nabc\nabcdefg"]


async def test_another_embedding_model_is_refused() -> None:
    head = (await trained()).head
    with pytest.raises(ConfigurationError, match=r"trained on vectors of 'tiny', and embedder is 'other'"):
        LearnedVerifier(embedder("other"), head)
    longer = ScriptedModel([Generation(text="", output=((0.0,) * (SIZE + 1),))], name="tiny")
    with pytest.raises(AllCandidatesFailed, match=f"vectors of {SIZE + 1} numbers.*trained on vectors of {SIZE}"):
        await scored(LearnedVerifier(longer, head), "one")
    none = ScriptedModel(["no vectors"], name="tiny")
    with pytest.raises(AllCandidatesFailed, match="0 vectors"):
        await scored(LearnedVerifier(none, head), "one")


async def test_too_many_steps_and_none() -> None:
    verifier = LearnedVerifier(embedder(), (await trained()).head, max_steps=2)
    with pytest.raises(AllCandidatesFailed, match="max_steps=2"):
        await scored(verifier, "a\n\nb\n\nc")


async def test_it_is_reserved_with_the_candidate() -> None:
    verifier = LearnedVerifier(embedder(prompt_tokens=50), (await trained()).head)
    bound = await verifier.bound(Problem("problem"), 10)
    assert (bound.calls, bound.prompt_tokens) == (1, 50)
    with pytest.raises(BudgetExhausted):
        await scored(verifier, "a", budget=Budget(calls=1))


async def test_the_file_holds_all_and_no_pickle(tmp_path: Path) -> None:
    verifier = await LearnedVerifier.fit(rollouts(logprobs=True), embedder(), aggregate="mean")
    path = tmp_path / "v.npz"
    verifier.save(path)
    again = LearnedVerifier.load(path, embedder())
    assert again.head == verifier.head and again.aggregate == "mean"
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {"weights", "settings"}
    assert [p.name for p in tmp_path.iterdir()] == ["v.npz"]  # noqa: ASYNC240


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "version 2; this release reads .* version 1"),
        ({"format": "other"}, "'other'"),
        ({"features": 9}, "features=9"),
        ({"aggregate": "sum"}, "aggregate='sum'"),
        ({"weights": [1.0, math.nan, 2.0]}, "finite"),
        ({"weights": [1.0]}, "at least"),
        ({"bias": None}, "bias=None"),
        ({"logprobs": "yes"}, "logprobs='yes'"),
        ({"embedding": ""}, "embedding=''"),
    ],
)
async def test_a_file_that_is_none_says_why(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    said = {
        "format": "tts-learned-verifier", "version": 1, "bias": 0.0, "embedding": "tiny", "logprobs": False,
        "aggregate": "last", "features": 1, "about": {},
    }  # fmt: skip
    weights = change.pop("weights", [0.1] * 5)
    path = tmp_path / "v.npz"
    np.savez(path, weights=np.asarray(weights), settings=np.array(json.dumps({**said, **change})))
    with pytest.raises(DataError, match=f"v.npz.*{says}"):
        LearnedHead.load(path)


def test_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    np.savez(path, weights=np.array([object()], dtype=object), settings=np.array(["x"], dtype=object))
    with pytest.raises(DataError, match="no learned verifier"):
        LearnedHead.load(path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="no learned verifier"):
        LearnedHead.load(path)
    with pytest.raises(DataError, match="no learned verifier"):
        LearnedHead.load(tmp_path / "absent.npz")


async def test_rollouts_that_teach_nothing_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="give at least 4"):
        await LearnedVerifier.fit(rollouts(3), embedder())
    same = [
        PoolProblem(id=str(i), prompt="p", candidates=(PoolCandidate(step_scores=(1.0,), extra={"steps": ["a"]}),))
        for i in range(8)
    ]
    with pytest.raises(ConfigurationError, match="all labels are 1"):
        await LearnedVerifier.fit(Pool(header=PoolHeader(model="m", dataset="d"), problems=tuple(same)), embedder())
    for extra, says in (({}, "steps"), ({"steps": ["a", "b"]}, "1 labels for 2 steps")):
        bad = PoolProblem(id="x", prompt="p", candidates=(PoolCandidate(step_scores=(1.0,), extra=extra),))
        with pytest.raises(DataError, match=rf"problem 'x', candidates\[0\].*{says}"):
            await LearnedVerifier.fit(Pool(header=PoolHeader(model="m", dataset="d"), problems=(bad,)), embedder())


async def test_a_request_that_fails_once_is_made_again() -> None:
    source, failed = embedder(), [0]

    def flaky(problem: Problem, number: int) -> Any:
        failed[0] += 1
        if failed[0] == 1:
            return ServerFailed("busy", retry_after=0.0)
        return Generation(text="", output=tuple(map(vector, problem.content)))

    table = await labelled(rollouts(4), ScriptedModel(flaky, name="tiny"))
    assert (table.x == (await labelled(rollouts(4), source)).x).all()


# Figures --------------------------------------------------------------------------------------------------------------


def test_auc_by_counting_pairs() -> None:
    rng = random.Random(1)
    for _ in range(20):
        scores = [rng.choice([0.1, 0.2, 0.5, 0.9]) for _ in range(12)]
        right = [rng.random() < 0.5 for _ in range(12)]
        pairs = [(a, b) for a, r in zip(scores, right, strict=True) if r
                 for b, s in zip(scores, right, strict=True) if not s]  # fmt: skip
        if not pairs:
            continue
        assert auc(scores, right) == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))
    with pytest.raises(ValueError, match="both kinds"):
        auc([0.1, 0.2], [True, True])


def test_within_a_problem_knowing_the_easy_ones_counts_for_nothing() -> None:
    easy = [(0.9, True), (0.9, True), (0.9, False)]
    hard = [(0.1, False), (0.1, False), (0.1, True)]
    clusters = [easy, hard] * 20
    over, within = clustered_auc(clusters), clustered_auc(clusters, within=True)
    assert over.value == pytest.approx(2 / 3) and within.value == within.low == within.high == 0.5
    assert over.low < over.value <= over.high
    with pytest.raises(ValueError, match="both kinds"):
        clustered_auc([[(0.1, True)], [(0.2, False)]], within=True)


def test_a_reliability_diagram() -> None:
    found = Reliability.of([0.05, 0.15, 0.15, 1.0], [0.0, 0.5, 0.0, 1.0])
    assert [(b.low, b.count) for b in found.bins] == [(0.0, 1), (0.1, 2), (0.9, 1)]
    assert found.bins[1].observed == 0.25
    assert found.error == pytest.approx((0.05 + 2 * 0.10 + 0.0) / 4)
    assert found.brier == pytest.approx((0.05**2 + 0.35**2 + 0.15**2) / 4)
    assert found.text().count("\n") == 3 and found.svg().count("<circle") == 3
    with pytest.raises(ValueError, match="reliability"):
        Reliability.of([], [])
