"""Cascade, Veto, Ensemble, Calibrated, MathAnswer, Canaries, Screen."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Problem, Result, SelfConsistency, solve
from tts_plugins.budget import Bound
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, DataError, MissingExtraError, VerifierError
from tts_plugins.protocols import Verifier
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.verifiers import (
    AnswerAgreement,
    Calibrated,
    Calibration,
    CallableVerifier,
    Canaries,
    Cascade,
    Ensemble,
    LLMJudge,
    MathAnswer,
    Screen,
    Veto,
)  # fmt: skip
from tts_plugins.verifiers.combined.ensemble import combined


async def scored(verifier: Any, *texts: str, **settings: Any) -> Result:
    given = texts or ("a",)
    return await solve(
        "?", model=ScriptedModel(list(given)), strategy=BestOfN(n=len(given)), verifier=verifier, seed=1, **settings
    )


def table(name: str = "table", **scores: Any) -> TableVerifier:
    return TableVerifier(scores, name=name)


class Costly(TableVerifier):
    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return Bound(prompt_tokens=3, completion_tokens=2, usd=0.5)


async def test_cascade_asks_the_dear_one_only_where_the_cheap_one_is_unsure() -> None:
    cheap, dear = table("cheap", a=0.0, b=0.5, c=1.0), table("dear", b=0.7)
    result = await scored(Cascade(cheap, dear), "a", "b", "c")
    assert [c.score for c in result.candidates] == [0.0, 0.7, 1.0]
    assert [c.details["decided_by"] for c in result.candidates] == ["cheap", "dear", "cheap"]
    assert len(dear.scored) == 1


async def test_cascade_tells_an_error_of_the_cheap_one() -> None:
    result = await scored(Cascade(table("cheap"), table("dear", a=0.7)))
    assert result.score == 0.7 and "not in the table" in result.best.details["first_error"]
    with pytest.raises(AllCandidatesFailed, match="dear: 'a' is not in the table"):
        await scored(Cascade(table("cheap", a=0.5), table("dear")))


async def test_the_bound_of_several_is_their_sum() -> None:
    one, two = Costly({"a": 0.5}), Costly({"a": 0.5})
    for verifier in (Cascade(one, two), Ensemble([one, two]), Veto(one, two)):
        assert isinstance(verifier, Verifier)
        bound = await verifier.bound(Problem("?"), 10)
        assert (bound.calls, bound.prompt_tokens, bound.completion_tokens, bound.usd) == (2, 6, 4, 1.0)
        assert (await scored(verifier, budget=Budget(calls=3))).score is not None
    assert (await Canaries(one, rate=0).bound(Problem("?"), 10)).calls == 1
    assert (await Canaries(one).bound(Problem("?"), 10)).calls == 2


async def test_a_veto_is_final_and_costs_no_judge() -> None:
    judge = table("judge", good=0.6, bad=1.0)
    no_bad = CallableVerifier(lambda problem, c: (c.text != "bad", "it is bad"), name="no_bad")
    result = await scored(Veto(judge, by=no_bad), "bad", "good")
    assert result.text == "good" and len(judge.scored) == 1
    assert result.candidates[0].score == 0.0 and result.candidates[0].feedback == "it is bad"
    assert result.candidates[0].details["vetoed_by"] == "no_bad"


@pytest.mark.parametrize(
    ("how", "weights", "value"),
    [
        ("mean", None, 0.5), ("mean", [2, 1, 1], 0.4), ("min", None, 0.1), ("median", None, 0.5), ("vote", None, 2 / 3),
        ("median", [3, 1, 1], 0.1), ("median", [2, 1, 1], 0.3), ("vote", [2, 1, 1], 0.5),
    ],
)  # fmt: skip
async def test_ensembles(how: Any, weights: list[float] | None, value: float) -> None:
    parts = [table("x", a=0.1), table("y", a=0.5), table("z", a=0.9)]
    result = await scored(Ensemble(parts, combine=how, weights=weights))
    assert result.score == pytest.approx(value)
    assert [part["score"] for part in result.best.details["parts"]] == [0.1, 0.5, 0.9]


async def test_an_ensembles_quorum() -> None:
    parts = [table("x", a=0.2), table("y")]
    with pytest.raises(AllCandidatesFailed, match="1 of 2 verifiers gave a score"):
        await scored(Ensemble(parts))
    result = await scored(Ensemble(parts, quorum=1))
    assert result.score == 0.2 and len(result.best.details["errors"]) == 1


def test_combined_stays_in_range() -> None:
    rng = random.Random(1)
    for _ in range(200):
        values = [rng.random() for _ in range(rng.randint(1, 6))]
        weights = [rng.random() + 0.01 for _ in values]
        for how in ("mean", "min", "median", "vote"):
            assert 0 <= combined(values, weights, how) <= 1  # type: ignore[arg-type]
        assert min(values) <= combined(values, weights, "median") <= max(values)


def pairs(n: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Scores that claim too much: of those at s, s squared are right."""
    rng = random.Random(seed)
    scores = [rng.random() for _ in range(n)]
    return scores, [rng.random() < s * s for s in scores]


@pytest.mark.parametrize(("method", "within"), [("isotonic", 0.12), ("platt", 0.07)])
def test_calibration_comes_near_the_truth(method: Any, within: float) -> None:
    calibration = Calibration.fit(*pairs(4000), method=method)
    values = [calibration(s / 20) for s in range(21)]
    assert values == sorted(values)
    assert all(abs(v - (s / 20) ** 2) < within for s, v in enumerate(values) if 1 < s < 19)
    raw, right = pairs(2000, seed=1)
    before = sum((s - r) ** 2 for s, r in zip(raw, right, strict=True))
    assert sum((calibration(s) - r) ** 2 for s, r in zip(raw, right, strict=True)) < before


def test_isotonic_pools_what_falls() -> None:
    calibration = Calibration.fit([0.1, 0.2, 0.2, 0.3], [True, False, False, True])
    assert calibration.x == (0.1, 0.2, 0.3) and calibration.y == pytest.approx((0.4, 0.4, 2 / 3))


def test_platt_never_turns_the_ranking_round() -> None:
    calibration = Calibration.fit([0.1, 0.2, 0.8, 0.9], [True, True, False, False], method="platt")
    assert calibration(0.0) == calibration(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_calibrations_are_saved_without_pickles(tmp_path: Path, method: Any) -> None:
    made = Calibration.fit(*pairs(50), method=method)
    made.save(tmp_path / "c.npz")
    assert Calibration.load(tmp_path / "c.npz") == made
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_what_is_no_calibration_is_refused(tmp_path: Path) -> None:
    import numpy as np

    for name, data in (("text", b"hello"), ("empty", b""), ("pickle", pickle.dumps({"x": 1}))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="no calibration"):
            Calibration.load(tmp_path / name)
    np.savez(tmp_path / "objects.npz", version=np.array({"a": 1}, dtype=object))
    np.savez(tmp_path / "newer.npz", version=9, method="platt", x=np.array([]), y=np.array([1.0, 2.0]), pairs=3)
    with pytest.raises(DataError, match="no calibration"):
        Calibration.load(tmp_path / "objects.npz")
    with pytest.raises(DataError, match="version 9"):
        Calibration.load(tmp_path / "newer.npz")


def test_pairs_that_teach_nothing_are_refused() -> None:
    for scores, right in (
        ([], []),
        ([0.1, 0.2], [True]),
        ([0.1, 0.2], [True, True]),
        ([0.1, float("nan")], [True, False]),
    ):
        with pytest.raises(ConfigurationError):
            Calibration.fit(scores, right)


async def test_calibrated_from_a_pool(tmp_path: Path) -> None:
    raw, right = pairs(300)
    lines = [json.dumps({"format": "tts-pool", "version": 1})]
    lines += [
        json.dumps(
            {"id": i, "candidates": [{"step_scores": [1.0, s], "correct": r}, {"correct": False, "answer": None}]}
        )
        for i, (s, r) in enumerate(zip(raw, right, strict=True))
    ]
    path = tmp_path / "pool.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    calibration = Calibration.from_pool(path)
    assert calibration == Calibration.fit(raw, right)
    assert Calibration.from_pool(path, aggregate="prod") == calibration
    result = await scored(Calibrated(table(a=[0.4, 0.5]), calibration))
    assert result.score == pytest.approx(calibration(0.5)) and result.best.details["raw"] == 0.5
    assert result.best.step_scores == (0.4, 0.5)
    path.write_bytes(gzip.compress(("\n".join(lines[:2]) + "\n{").encode()))
    with pytest.raises(DataError, match="line 3"):
        Calibration.from_pool(path)


def test_parts_must_score_single_candidates() -> None:
    one = table(a=1)
    for make in (
        lambda: Cascade(AnswerAgreement(), one), lambda: Cascade(one, one, low=1, high=0), lambda: Ensemble([]),  # type: ignore[arg-type]
        lambda: Ensemble([one], weights=[0]), lambda: Ensemble([one], quorum=2), lambda: Veto(one, 3),  # type: ignore[arg-type]
        lambda: Calibrated(one, "x"), lambda: Canaries(one, rate=2), lambda: Canaries(one, keys="abc"),  # type: ignore[arg-type]
        lambda: Ensemble([one], combine="max"),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(ConfigurationError):
            make()


async def test_a_judge_that_rewards_a_canary_is_told_in_details_and_trace() -> None:
    generous = CallableVerifier(lambda problem, c: 0.9, name="generous")
    result = await scored(Canaries(generous, rate=1.0), "a", "b")
    assert all("generous gave 0.90" in c.details["unreliable"] for c in result.candidates)
    notes = [e for e in result.trace if e["kind"] == "canary"]
    assert len(notes) == 2 and all(e["unreliable"] for e in notes)
    with pytest.raises(AllCandidatesFailed, match="deserves nothing"):
        await scored(Canaries(generous, rate=1.0, refuse=True), "a", "b")


async def test_a_sound_judge_passes_its_canaries() -> None:
    sound = CallableVerifier(lambda problem, c: 0.9 if c.text == "a" else 0.1, name="sound")
    result = await scored(Canaries(sound, rate=1.0, refuse=True), "a")
    assert result.score == 0.9 and "unreliable" not in result.best.details and result.best.details["canaries"] == 1
    picky = CallableVerifier(lambda problem, c: 0.9 if c.text == "a" else float("nan"), name="picky")
    assert (await scored(Canaries(picky, rate=1.0), "a")).score == 0.9


async def test_canaries_come_at_their_rate_and_are_counted() -> None:
    judge = CallableVerifier(lambda problem, c: 0.1, name="judge", inline=True)
    texts = [str(i) for i in range(200)]
    result = await scored(Canaries(judge, rate=0.2), *texts)
    assert 20 <= sum(e["kind"] == "canary" for e in result.trace) <= 60
    again = await scored(Canaries(judge, rate=0.2), *texts)
    assert sum(e["kind"] == "canary" for e in again.trace) == sum(e["kind"] == "canary" for e in result.trace)


@pytest.mark.parametrize(
    "text", ["", ":", "Solution", "Thought process:", "Let's solve this problem step by step.", "解"]
)
async def test_the_screen_refuses_openers(text: str) -> None:
    score = await Screen().score(None, _candidate(text))  # type: ignore[arg-type]
    assert score.value == 0.0


@pytest.mark.parametrize("text", ["42", "Solution: 42", "Let's solve it.\nThe answer is 42", "x", "解: x = 2"])
async def test_the_screen_lets_work_pass(text: str) -> None:
    assert (await Screen().score(None, _candidate(text))).value == 1.0  # type: ignore[arg-type]


def _candidate(text: str) -> Any:
    from tts_plugins import Candidate

    return Candidate(problem=Problem("?"), text=text)


async def test_a_judge_inside_a_cascade_inside_a_veto_is_counted() -> None:
    judge = ScriptedModel(["no verdict"])
    verifier = Veto(Cascade(table("cheap", a=0.5), LLMJudge(judge)), by=Screen())
    with pytest.raises(AllCandidatesFailed, match="no verdict could be read"):
        await scored(verifier)
    assert (await verifier.bound(Problem("?"), 10)).calls == 2


HAS_MATH = importlib.util.find_spec("math_verify") is not None


@pytest.mark.skipif(HAS_MATH, reason="math-verify is installed")
def test_math_answer_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"tts-plugins\[math\]"):
        MathAnswer()


@pytest.mark.skipif(not HAS_MATH, reason="needs math-verify")
async def test_math_answers_are_compared_in_a_worker() -> None:
    verifier = MathAnswer(timeout=20)
    try:
        for gold, answer, right in (
            (r"\frac{1}{2}", "0.5", 1.0), ("2x+1", "1+2x", 1.0), (r"\sqrt{8}", r"2\sqrt{2}", 1.0), ("7", "8", 0.0),
        ):  # fmt: skip
            problem = Problem("?", metadata={"answer": gold})
            text = rf"So \boxed{{{answer}}}."
            result = await solve(problem, model=ScriptedModel([text]), strategy=BestOfN(n=1), verifier=verifier)
            assert result.score == right, (gold, answer)
        unread = await solve(problem, model=ScriptedModel(["a\nb"]), strategy=BestOfN(n=1), verifier=verifier)
        assert unread.score == 0.0 and "no answer" in unread.best.feedback
        with pytest.raises(ConfigurationError, match="no known answer"):
            await solve("?", model=ScriptedModel(["7"]), strategy=BestOfN(n=1), verifier=verifier)
    finally:
        verifier.close()


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (r"$\boxed{1}\boxed{2}$", "1,2", True), ("$1$ and $2$ and $3$", "1,2,3", True),
        ("$21,16$ or $11$", "11", False),
        (r"\boxed{1} papers and \boxed{2} bins", "1,2", True), (r"\boxed{1} no no no no \boxed{2}", "1,2", False),
        ("$x$ is $5$", "5", True), ("1000.99", "1000,99", True), ("1000,99", "1000.98", False),
        ("1.234", "1,234", False),
        ("1.2", "1,2", False), ("32349", r"32,\! 349", True),
        (r"So it is \[ \boxed{32349} \]", r"32,\! 349", True),
        ("5!", r"5\!", False),
    ],
)  # fmt: skip
@pytest.mark.skipif(not HAS_MATH, reason="needs math-verify")
async def test_lists_decimal_commas_and_narrow_spaces(gold: str, answer: str, right: bool) -> None:
    verifier = MathAnswer(gold, timeout=20)
    try:
        score = (await scored(verifier, rf"So \boxed{{{answer}}}.")).score
        assert (score == 1.0) == right
        assert verifier.equal_here(answer, gold) == right
    finally:
        verifier.close()


@pytest.mark.skipif(not HAS_MATH, reason="needs math-verify")
async def test_a_comparison_without_end_costs_one_candidate() -> None:
    verifier = MathAnswer("2x", timeout=0.001)
    try:
        with pytest.raises(AllCandidatesFailed, match="no answer within"):
            await scored(verifier, r"\boxed{x+x}")
        verifier.timeout = 20
        assert (await scored(verifier, r"\boxed{x+x}")).score == 1.0  # a new worker
    finally:
        verifier.close()


def test_names_are_exported() -> None:
    import tts_plugins.verifiers as v

    assert all(hasattr(v, name) for name in v.__all__)
    assert SelfConsistency and VerifierError
