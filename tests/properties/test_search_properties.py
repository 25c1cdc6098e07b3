"""Whatever the tree, the scores, the budget and the failures: searches keep their promises."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins import DVTS, BeamSearch, Budget, ParticleFilter, RecursiveAggregation, Revision, TreeSearch, solve
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, RequestRefused
from tts_plugins.testing import ScriptedReviseModel, ScriptedStepModel
from tts_plugins.types import Generation
from tts_plugins.verifiers import CallableVerifier

SEARCHES = [
    BeamSearch(n=4, beam_width=2, max_steps=5), BeamSearch(n=6, beam_width=3, max_steps=4, lookahead=1),
    BeamSearch(n=4, beam_width=4, max_steps=4, select="best"), DVTS(n=4, beam_width=2, max_steps=5),
    ParticleFilter(n=4, max_steps=5), ParticleFilter(n=3, max_steps=4, resampling="multinomial", select="majority"),
]  # fmt: skip
WHOLE = [Revision(chains=2, rounds=3), Revision(chains=3, rounds=2, select="best"), TreeSearch(n=6, batch=2),
         RecursiveAggregation(population=3, subset=2, loops=3)]  # fmt: skip


def word(seed: int, *path: object) -> random.Random:
    return random.Random(f"{seed}/{path}")


def step(seed: int, failing: float) -> Any:
    def said(candidate: Any, number: int) -> Any:
        draw = word(seed, candidate.text, number)
        if draw.random() < failing:
            return RequestRefused("lost")
        kind = draw.choice(["go", "go", "go", "end", "cut", "blank", "mark"])
        text = f"s{draw.randint(0, 3)}"
        if kind == "go":
            return text
        if kind == "blank":
            return draw.choice(["", " ", "\n\n"]) if candidate.steps else text
        if kind == "mark":
            return f"{text} Answer: {draw.randint(0, 2)}"
        return Generation(text=text, finish_reason="stop" if kind == "end" else "length", tokens=7)

    return said


def check(seed: int) -> CallableVerifier:
    return CallableVerifier(
        lambda p, c: [word(seed, "score", s.text).choice([0.2, 0.5, 0.5, 0.9]) for s in c.steps], inline=True
    )


@settings(max_examples=120)
@given(
    which=st.integers(0, len(SEARCHES) - 1), seed=st.integers(0, 10**6), calls=st.integers(1, 40),
    failing=st.sampled_from([0.0, 0.0, 0.2, 0.6]), batch=st.integers(1, 4),
)  # fmt: skip
def test_searches(which: int, seed: int, calls: int, failing: float, batch: int) -> None:
    def run(budget: Budget | None) -> Any:
        model = ScriptedStepModel(step(seed, failing), batch=batch)
        try:
            return asyncio.run(
                solve("?", model=model, strategy=SEARCHES[which], verifier=check(seed), budget=budget, seed=seed)
            )
        except (AllCandidatesFailed, BudgetExhausted) as error:
            return error

    limited = run(Budget(calls=calls))
    if not isinstance(limited, Exception):
        assert limited.usage.calls <= calls and limited.usage.overshoot == 0
        assert limited.best.id in {c.id for c in limited.candidates} and limited.best.text.strip()
        assert limited.best.finished or limited.best.truncated
        for c in limited.candidates:
            assert len(c.step_scores) == len(c.steps) and all(s.text.strip() for s in c.steps)
            assert c.finished or c.answer is None
    free = run(None)
    again = run(None)
    if isinstance(free, Exception):
        assert type(free) is type(again)
    else:
        assert free.text == again.text and [c.seed for c in free.candidates] == [c.seed for c in again.candidates]
        assert free.usage.calls <= SEARCHES[which].calls()[1]


@settings(max_examples=80)
@given(which=st.integers(0, len(WHOLE) - 1), seed=st.integers(0, 10**6), calls=st.integers(1, 20))
def test_whole_answers(which: int, seed: int, calls: int) -> None:
    strategy = WHOLE[which]

    def run(budget: Budget | None) -> Any:
        model = ScriptedReviseModel(
            lambda p, i: f"Answer: {word(seed, i).randint(0, 5)}",
            lambda p, h, i: f"Answer: {word(seed, [a.text for a in h]).randint(0, 5)}",
        )
        score = CallableVerifier(lambda p, c: word(seed, c.text).choice([0.1, 0.5, 0.5, 0.8]), inline=True)
        return asyncio.run(solve("?", model=model, strategy=strategy, verifier=score, budget=budget, seed=seed))

    limited, free = run(Budget(calls=calls)), run(None)
    assert limited.usage.calls <= calls and limited.usage.overshoot == 0
    assert limited.best.id in {c.id for c in limited.candidates}
    least, most = strategy.calls()
    assert least <= free.usage.calls <= most
    if isinstance(strategy, TreeSearch) or getattr(strategy, "select", "") == "best":
        assert free.score == max(c.score for c in free.candidates)
    assert [c.seed for c in run(None).candidates] == [c.seed for c in free.candidates]
