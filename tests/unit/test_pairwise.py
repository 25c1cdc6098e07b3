"""PairwiseJudge: both orders, flips, knockout and Swiss schedules, and what is left when the budget ends."""

from __future__ import annotations

import json
import re

import pytest

from tts_plugins import BestOfN, Budget, Problem, Result, solve
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import PairwiseJudge
from tts_plugins.verifiers.judges._bradley_terry import bradley_terry, swiss_pairs, win_rates


def strengths(problem: Problem) -> tuple[str, int, int]:
    user = str(problem.messages[-1]["content"])
    key = re.findall(r'"key": "(\w+)"', user)[-1]
    a, b = (int(v) for v in re.findall(r"^\| candidate (\d+)$", user, re.MULTILINE))
    return key, a, b


def say(key: str, better: object) -> str:
    return json.dumps({"key": key, "critique": f"{better} is stronger", "better": better})


def honest(problem: Problem, number: int) -> str:
    key, a, b = strengths(problem)
    return say(key, "A" if a > b else "B" if b > a else "tie")


async def compared(judge: object, order: list[int], **settings: object) -> Result:
    model = ScriptedModel([f"candidate {v}" for v in order])
    return await solve("Which?", model=model, strategy=BestOfN(n=len(order)), verifier=judge, seed=1, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [2, 3, 5, 8])
async def test_knockout_finds_the_best_with_n_minus_1_comparisons(n: int) -> None:
    order = [(3 * i) % n if n % 3 else (2 * i + 1) % n for i in range(n)]
    model = ScriptedModel(honest)
    result = await compared(PairwiseJudge(model), order)
    assert result.text == f"candidate {max(order)}"
    assert result.best.details["comparisons"] == n - 1 and len(model.requests) == 2 * (n - 1)
    assert result.best.details["flip_rate"] == 0
    assert 0.5 < result.score <= 1


async def test_swiss_ranks_all_of_them() -> None:
    judge = PairwiseJudge(ScriptedModel(honest), mode="swiss", rounds=5)
    result = await compared(judge, [3, 0, 5, 1, 4, 2])
    ranked = sorted(result.candidates, key=lambda c: -(c.score or 0))
    assert [c.text for c in ranked] == [f"candidate {i}" for i in (5, 4, 3, 2, 1, 0)]
    assert result.best.details["comparisons"] == 15


async def test_a_verdict_that_follows_the_order_is_a_tie_and_is_told() -> None:
    result = await compared(PairwiseJudge(ScriptedModel(lambda p, n: say(strengths(p)[0], "A"))), [1, 2, 3, 4])
    assert {c.score for c in result.candidates} == {0.5}
    assert result.text == "candidate 1"  # ties take the first
    note = next(e for e in result.trace if e["kind"] == "pairwise")
    assert note["flips"] == 3 and note["flip_rate"] == 1.0


async def test_a_comparison_that_cannot_be_read_is_left_out() -> None:
    def judge(problem: Problem, number: int) -> str:
        _key, a, b = strengths(problem)
        return "well…" if {a, b} == {1, 2} else honest(problem, number)

    result = await compared(PairwiseJudge(ScriptedModel(judge)), [1, 2, 4, 3])
    assert result.text == "candidate 4" and result.best.details["failed"] == 1


@pytest.mark.parametrize("said", ["A", "{}", '{"better": "A"}', '{"key": "abcdefgh", "better": "A"}', ""])
async def test_no_readable_comparison_is_an_error(said: str) -> None:
    with pytest.raises(VerifierError, match="not one comparison"):
        await compared(PairwiseJudge(ScriptedModel([said])), [1, 2])


async def test_what_was_compared_decides_when_the_budget_ends() -> None:
    result = await compared(PairwiseJudge(ScriptedModel(honest)), [1, 2, 4, 3], budget=Budget(calls=4 * 5))
    assert result.text == "candidate 4"
    assert (await PairwiseJudge(ScriptedModel(honest)).bound(Problem("?"), 10)).calls == 4


async def test_one_candidate_needs_no_comparison() -> None:
    model = ScriptedModel(honest)
    result = await compared(PairwiseJudge(model), [1])
    assert result.score == 0.5 and not model.requests


def test_wrong_settings() -> None:
    for settings in ({"mode": "league"}, {"rounds": 0}, {"limit": 1}):
        with pytest.raises(ConfigurationError):
            PairwiseJudge(ScriptedModel(["x"]), **settings)  # type: ignore[arg-type]


def test_bradley_terry_is_symmetric_and_ordered() -> None:
    strengths = bradley_terry(3, [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0)])
    assert strengths[0] > strengths[1] > strengths[2] > 0
    assert strengths[0] * strengths[2] == pytest.approx(1.0, abs=1e-6)
    assert win_rates(bradley_terry(2, [(0, 1, 0.5)])) == [0.5, 0.5]


def test_swiss_rests_one_of_an_odd_number_and_avoids_rematches() -> None:
    assert [{i for pair in swiss_pairs(3, {}, set(), turn) for i in pair} for turn in range(3)] == [
        {0, 1},
        {0, 2},
        {1, 2},
    ]
    met: set[tuple[int, int]] = set()
    for turn in range(3):
        pairs = swiss_pairs(4, {}, met, turn)
        assert len(pairs) == 2 and not met & {(min(p), max(p)) for p in pairs}
        met |= {(min(p), max(p)) for p in pairs}
