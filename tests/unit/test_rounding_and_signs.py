"""Scores that rounding took past 0 or 1, and texts that no encoding can carry, break nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from tts_plugins import BestOfN, Problem, SelfConsistency, solve
from tts_plugins.engine._scoring import scored_by
from tts_plugins.errors import InvalidScore
from tts_plugins.models import CallableModel
from tts_plugins.types import Candidate, Generation, Score

HALF, WHOLE = "half \ud83d of a sign", "\ud83d\ude00"  # the two halves of one, side by side


@pytest.mark.parametrize(("given", "score"), [(1.0000000000000002, 1.0), (-1e-17, 0.0), (1.0, 1.0), (0, 0.0), (1, 1.0)])
def test_rounding_is_cut_off(given: float, score: float) -> None:
    candidate = Candidate(Problem("?"), text="4")
    scored = scored_by("v", candidate, Score(value=given, steps=(given,)))
    assert (scored.score, scored.step_scores) == (score, (score,)) and isinstance(scored.score, float)


@pytest.mark.parametrize("given", [1.001, -0.001, float("nan"), float("inf"), True, "1", None])
def test_anything_else_is_no_score(given: object) -> None:
    with pytest.raises(InvalidScore):
        scored_by("v", Candidate(Problem("?")), Score(value=given))  # type: ignore[arg-type]


async def test_sums_that_round_above_one() -> None:
    result = await solve(
        "?", model=CallableModel(lambda c: "4"), strategy=BestOfN(n=2), verifier=lambda output: sum([0.1] * 3) / 0.3
    )
    assert result.score == 1.0 and len(result.candidates) == 2


def test_texts_are_cleaned_where_they_come_in() -> None:
    assert Generation(text=HALF, reasoning=HALF).text == "half \ufffd of a sign"
    assert Generation(text=WHOLE).text == "\U0001f600"
    assert Generation(text="plain ü").text == "plain ü"


async def test_a_solve_over_such_texts_can_be_written(tmp_path: Path) -> None:
    def checks(problem: Problem, candidate: Candidate) -> tuple[float, str]:
        return 0.5, f"odd: {HALF}"

    result = await solve(
        f"what is {HALF}?", model=CallableModel(lambda content: HALF), strategy=BestOfN(n=2), verifier=checks
    )
    assert result.text == "half \ufffd of a sign" and result.best.feedback == "odd: half \ufffd of a sign"
    for text in (result.trace.html(), result.trace.tree(), json.dumps(result.trace.to_dict(), ensure_ascii=False)):
        (tmp_path / "out").write_text(text, encoding="utf-8")
    assert pickle.loads(pickle.dumps(result.trace)).to_dict() == result.trace.to_dict()
    voted = await solve(
        "?", model=CallableModel(lambda c: "4"), strategy=SelfConsistency(n=1), answer=lambda text: HALF
    )
    assert voted.answer == "half \ufffd of a sign"
