"""Searches over steps, on a tree of steps whose best path is known: what they find, and how many calls that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tts_plugins import (
    DVTS,
    BeamSearch,
    BestOfN,
    Budget,
    Candidate,
    ParticleFilter,
    Problem,
    Score,
    Scored,
    solve,
    solve_many,
)
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError, RequestRefused, VerifierError
from tts_plugins.strategies.particle_filter import multinomial, softmax, systematic
from tts_plugins.testing import ScriptedModel, ScriptedStepModel, TableVerifier
from tts_plugins.types import Generation
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier

LEVELS = 5


def digits(candidate: Candidate, number: int) -> str:
    """Level k's child j says j mod 4; the last of five levels gives the answer."""
    depth = len(candidate.steps)
    said = [s.text for s in candidate.steps] + [f"take {number % 4 + 1}"]
    if depth < LEVELS - 1:
        return said[-1]
    return f"{said[-1]}. Answer: {''.join(s.split()[1] for s in said)}"


def value(problem: Problem, candidate: Candidate) -> list[float]:
    """A step is the better the higher its digit."""
    return [int(s.text.split()[1].rstrip(".")) / 5 for s in candidate.steps]


def verifier(aggregate: Any = "mean") -> CallableVerifier:
    return CallableVerifier(value, aggregate=aggregate, inline=True)


def stepping(tree: Any = digits, **settings: Any) -> ScriptedStepModel:
    return ScriptedStepModel(tree, **settings)


async def test_beam_search_finds_the_best_path_and_counts_as_the_paper_does() -> None:
    model = stepping()
    result = await solve("?", model=model, strategy=BeamSearch(n=16, beam_width=4), verifier=verifier(), seed=1)
    assert result.answer == "44444" and result.score == pytest.approx(0.8)
    assert result.usage.calls == 16 * LEVELS == sum(n for _, n, _ in model.expanded)
    assert result.best.finished and not result.best.truncated and result.stopped == "complete"
    assert [s.text for s in result.best.steps] == ["take 4"] * 4 + ["take 4. Answer: 44444"]
    assert result.best.text == "\n\n".join(s.text for s in result.best.steps)
    assert len(result.best.step_scores) == 5


@pytest.mark.parametrize("k", [1, 2])
async def test_lookahead_takes_k_more_calls_for_each_child(k: int) -> None:
    # All children differ, so that nothing is shared; three of the five levels have k steps left below them.
    model = stepping(lambda c, j: digits(c, j) if len(c.steps) == 4 else f"take {j % 4 + 1} as number {j}")
    strategy = BeamSearch(n=8, beam_width=4, lookahead=k)
    result = await solve("?", model=model, strategy=strategy, verifier=verifier("last"), seed=1)
    ahead = [min(k, LEVELS - 1 - level) for level in range(LEVELS)]
    assert result.usage.calls == sum(8 * (1 + a) for a in ahead)
    assert sum(greedy for *_, greedy in model.expanded) == sum(8 * a for a in ahead)
    assert strategy.calls() == (8, 8 * (k + 1) * 40)


async def test_lookahead_scores_a_step_by_what_it_leads_to() -> None:
    tree = {
        "": ["good start", "dull start"],
        "good start": ["bad end. Answer: 1"],
        "dull start": ["fine end. Answer: 2"],
    }
    scores = {"good start": 0.9, "dull start": 0.2, "bad end. Answer: 1": 0.1, "fine end. Answer: 2": 0.8}
    check = CallableVerifier(lambda p, c: [scores[s.text] for s in c.steps], inline=True)
    greedy = await solve("?", model=stepping(tree), strategy=BeamSearch(n=2, beam_width=2), verifier=check, seed=1)
    ahead = await solve(
        "?", model=stepping(tree), strategy=BeamSearch(n=2, beam_width=2, lookahead=1), verifier=check, seed=1
    )
    assert (greedy.answer, ahead.answer) == ("1", "2")
    dull = next(c for c in ahead.candidates if c.text == "dull start")
    assert dull.score == 0.8 and dull.step_scores == (0.2,) and "fine end" in dull.details["lookahead"]


async def test_lookahead_reserves_all_of_its_calls() -> None:
    result = await solve(
        "?", model=stepping(), strategy=BeamSearch(n=4, beam_width=2, lookahead=2), verifier=verifier(),
        budget=Budget(calls=7),
    )  # fmt: skip
    # Two children hold 3 calls each; a third would need 9. What they do not use lets others in later.
    assert result.usage.calls <= 7 and result.stopped == "budget"
    assert result.usage.overshoot == 0


@pytest.mark.parametrize("k", [0, 2])
async def test_the_verifier_is_reserved_for_all_that_is_written_ahead(k: int) -> None:
    """Regression: it was reserved for one step, and shown all of them."""
    lengths: list[int | None] = []

    class Measured(CallableVerifier):
        async def bound(self, problem: Problem, tokens: int | None) -> Bound:
            lengths.append(tokens)
            return FREE

    strategy = BeamSearch(n=2, beam_width=2, lookahead=k, max_steps=1)
    model = stepping()
    await solve("?", model=model, strategy=strategy, verifier=Measured(value, inline=True))
    step = await model.step_bound(Candidate(Problem("?")))
    assert step is not None and step.completion_tokens and set(lengths) == {step.completion_tokens * (1 + k)}


async def test_equal_texts_are_scored_and_looked_ahead_from_once() -> None:
    scored: list[str] = []

    def look(problem: Problem, candidate: Candidate) -> list[float]:
        scored.append(candidate.text)
        return value(problem, candidate)

    model = stepping()  # sixteen children of the root say only four different things
    await solve(
        "?", model=model, strategy=BeamSearch(n=16, beam_width=4, max_steps=1, lookahead=1),
        verifier=CallableVerifier(look, inline=True),
    )  # fmt: skip
    assert len(scored) == 4 and sum(greedy for *_, greedy in model.expanded) == 4


async def test_dvts_keeps_its_subtrees_apart() -> None:
    result = await solve("?", model=stepping(), strategy=DVTS(n=16, beam_width=4), verifier=verifier(), seed=1)
    assert result.usage.calls == 16 * LEVELS and result.answer == "44444"
    roots = [c for c in result.candidates if len(c.steps) == 1]
    assert len({c.parent for c in roots}) == 4  # four roots, of four children each
    assert len({c.seed for c in roots}) == 16


async def test_no_subtree_waits_for_another() -> None:
    order: list[int] = []

    def look(problem: Problem, candidate: Candidate) -> list[float]:
        order.append(len(candidate.steps))
        return value(problem, candidate)

    class Uneven(ScriptedStepModel):
        async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Any:
            root = candidate.index if not candidate.steps else None
            await asyncio.sleep(0.2 if root == 0 else 0.0)
            return await super().expand(candidate, seeds, greedy=greedy)

    await solve(
        "?", model=Uneven(digits), strategy=DVTS(n=4, beam_width=2), verifier=CallableVerifier(look, inline=True)
    )
    assert order.index(LEVELS) < max(i for i, depth in enumerate(order) if depth == 1)


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
async def test_particles_follow_the_scores(resampling: Any) -> None:
    strategy = ParticleFilter(n=8, resampling=resampling, temperature=0.2)
    result = await solve("?", model=stepping(), strategy=strategy, verifier=verifier("last"), seed=3)
    assert result.usage.calls == 8 * LEVELS and result.answer is not None and result.answer.count("4") >= 3
    again = await solve("?", model=stepping(), strategy=strategy, verifier=verifier("last"), seed=3)
    assert again.answer == result.answer and [c.seed for c in again.candidates] == [c.seed for c in result.candidates]


async def test_finished_particles_cost_nothing_more() -> None:
    tree = {"": ["done. Answer: 1", "on"], "on": ["still. Answer: 2"]}
    check = CallableVerifier(lambda p, c: [0.5] * len(c.steps), inline=True)
    result = await solve("?", model=stepping(tree), strategy=ParticleFilter(n=4), verifier=check, seed=0)
    assert result.usage.calls == 6  # two of the four go on


def test_resampling_is_unbiased_and_systematic_varies_least() -> None:
    import random

    weights = softmax([0.0, 1.0, 2.0])
    rng = random.Random(0)
    for draw in (systematic, multinomial):
        counts = [0, 0, 0]
        for _ in range(500):
            for i in draw(weights, 10, rng):
                counts[i] += 1
        assert [c / 5000 for c in counts] == pytest.approx(weights, abs=0.02)
    for _ in range(50):
        drawn = systematic(weights, 10, rng)
        assert all(abs(drawn.count(i) - 10 * w) < 1 for i, w in enumerate(weights))


async def test_raw_scores_outside_of_0_and_1_are_squashed() -> None:
    from tts_plugins.strategies.particle_filter import logit

    p = Problem("?")
    assert logit(Scored(problem=p, score=0.5, details={"logit": 7.5})) == 7.5
    assert logit(Scored(problem=p, score=0.5)) == 0 and logit(Scored(problem=p, score=1.0)) > 10


@pytest.mark.parametrize(
    "strategy", [BeamSearch(n=1, beam_width=1), DVTS(n=1, beam_width=1), ParticleFilter(n=1)], ids=lambda s: s.type_name
)
async def test_one_candidate_is_plain_sampling_and_needs_no_verifier(strategy: Any) -> None:
    result = await solve("?", model=stepping(), strategy=strategy)
    assert result.answer == "11111" and result.usage.calls == LEVELS
    sampled = await solve("?", model=ScriptedModel([result.text]), strategy=BestOfN(n=1))
    assert sampled.text == result.text and sampled.answer == result.answer


ALL = [BeamSearch(n=8, beam_width=2), DVTS(n=8, beam_width=2), ParticleFilter(n=8)]


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.type_name)
@pytest.mark.parametrize("calls", [1, 3, 8, 9, 17, 25, 39])
async def test_a_budget_that_ends_in_the_middle_returns_the_best_so_far(strategy: Any, calls: int) -> None:
    result = await solve(
        "?", model=stepping(), strategy=strategy, verifier=verifier(), budget=Budget(calls=calls), seed=1
    )
    assert result.usage.calls <= calls and result.usage.overshoot == 0 and result.stopped == "budget"
    assert result.best.text and (result.best.finished or result.best.truncated)
    deepest = max(len(c.steps) for c in result.candidates)
    assert len(result.best.steps) >= deepest - 1


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.type_name)
async def test_a_model_that_never_ends_is_cut_and_the_result_says_so(strategy: Any) -> None:
    from dataclasses import replace

    short = replace(strategy, max_steps=3)
    result = await solve("?", model=stepping(lambda c, j: "take 1"), strategy=short, verifier=verifier())
    assert len(result.best.steps) == 3 and not result.best.finished and result.best.truncated
    assert result.answer is None
    assert any(e["kind"] == "max_steps" for e in result.trace)
    (warning,) = result.warnings
    assert warning.startswith("max_steps=3 ended it before") and warning.endswith("had an end")
    assert "nothing was left to do" not in result.trace.tree() and f"ended: {warning}" in result.trace.tree()


@pytest.mark.parametrize("blank", ["", "  ", "\n\n", " \n "])
async def test_an_empty_step_ends_a_solution_without_adding_to_it(blank: str) -> None:
    model = stepping({"": ["one"], "one": [blank]})
    check = CallableVerifier(lambda p, c: [0.5] * len(c.steps), inline=True)
    result = await solve("?", model=model, strategy=BeamSearch(n=2, beam_width=2), verifier=check)
    assert result.text == "one" and result.best.finished and len(result.best.steps) == 1


async def test_no_first_step_at_all_is_a_failure_that_says_so() -> None:
    with pytest.raises(AllCandidatesFailed, match="wrote no step at all"):
        await solve("?", model=stepping({}), strategy=BeamSearch(n=2, beam_width=2), verifier=verifier())


async def test_truncation_is_no_wrong_answer_and_gives_way_to_whole_solutions() -> None:
    cut = Generation(text="take 3 and then", finish_reason="length", tokens=10)
    model = stepping(lambda c, j: cut if j % 2 else "take 1. Answer: 1")
    result = await solve("?", model=model, strategy=BeamSearch(n=2, beam_width=2), verifier=verifier())
    assert result.answer == "1" and not result.best.truncated
    assert sum(c.truncated for c in result.candidates) == 1
    only = await solve(
        "?", model=stepping(lambda c, j: cut), strategy=BeamSearch(n=2, beam_width=2), verifier=verifier()
    )
    assert only.best.truncated and only.best.finished


async def test_a_stop_that_was_not_ours_finishes() -> None:
    end = Generation(text="take 2", finish_reason="stop")
    result = await solve("?", model=stepping(lambda c, j: end), strategy=DVTS(n=2, beam_width=2), verifier=verifier())
    assert result.best.finished and result.usage.calls == 2


async def test_a_beam_that_finishes_early_frees_its_place() -> None:
    tree = {"": ["a", "b. Answer: 9", "c", "d"]}
    check = CallableVerifier(
        lambda p, c: [{"a": 0.5, "b": 0.9, "c": 0.4, "d": 0.1}[c.text[0]]] * len(c.steps), inline=True
    )
    model = stepping(lambda c, j: tree[""][j % 4] if not c.steps else ("x" if len(c.steps) < 2 else ""), batch=8)
    await solve("?", model=model, strategy=BeamSearch(n=4, beam_width=2), verifier=check)
    assert [n for text, n, _ in model.expanded if text in ("a", "c")] == [2, 2]  # both places went to the others


async def test_ties_are_stable() -> None:
    flat = CallableVerifier(lambda p, c: [0.5] * len(c.steps), inline=True)
    results = [
        await solve("?", model=stepping(latency=0.002), strategy=BeamSearch(n=4, beam_width=2), verifier=flat, seed=s)
        for s in (1, 2)
    ]
    assert {r.answer for r in results} == {"11111"}


@pytest.mark.parametrize("lookahead", [0, 1])
async def test_a_tie_keeps_every_line_of_descent(lookahead: int) -> None:
    """Regression: with scores of 0 and 1, the first beam's children took all places, up to its dead end."""

    def step(candidate: Candidate, number: int) -> str:
        if not candidate.steps:
            return ["trap", "way"][number % 2]
        if candidate.text.startswith("trap"):
            return f"dead {number}" if len(candidate.steps) == 2 else f"on {number}"
        return f"on {number}" if len(candidate.steps) < 3 else f"Answer: {number}"

    def check(problem: Problem, candidate: Candidate) -> list[float]:
        return [float("dead" not in s.text) for s in candidate.steps]

    strategy = BeamSearch(n=4, beam_width=2, max_steps=4, lookahead=lookahead, select="best")
    programs = CallableVerifier(check, aggregate="min", inline=True)
    result = await solve("?", model=stepping(step), strategy=strategy, verifier=programs)
    assert result.best.steps[0].text == "way" and result.best.finished and result.score == 1


async def test_pruned_candidates_parents_and_step_scores_stand_in_the_trace() -> None:
    result = await solve(
        "?", model=stepping(), strategy=BeamSearch(n=4, beam_width=2, max_steps=6), verifier=verifier()
    )
    events = [e for e in result.trace if e["kind"] == "candidate"]
    ids = {e["candidate"] for e in events}
    assert sum(bool(e.get("pruned")) for e in events) == 2 * 4
    assert all(e["parent_candidate"] in ids for e in events if len(e["step_scores"]) > 1)
    assert max(len(e["step_scores"]) for e in events) == LEVELS
    committed = [e["steps"] for e in result.trace if e["kind"] == "committed"]
    assert [len(c) for c in committed] == sorted({len(c) for c in committed})
    assert all([s.text for s in result.best.steps][: len(c)] == c for c in committed)


async def test_a_listener_hears_of_the_pruned_before_the_next_level() -> None:
    heard: list[Any] = []
    strategy = BeamSearch(n=4, beam_width=2, max_steps=6)
    result = await solve("?", model=stepping(), strategy=strategy, verifier=verifier(), listener=heard.append)
    pruned = [e for e in heard if e.get("pruned")]
    assert [e["candidate"] for e in pruned] == [e["candidate"] for e in result.trace if e.get("pruned")]
    assert all(e["kind"] == "candidate" and e["end"] is not None for e in pruned)
    second = next(i for i, e in enumerate(heard) if e["kind"] == "candidate" and len(e.get("step_scores") or ()) == 2)
    assert heard.index(pruned[0]) < second


async def test_failures_lose_one_child_only() -> None:
    model = stepping(lambda c, j: RequestRefused("no") if j == 1 else digits(c, j))
    result = await solve("?", model=model, strategy=BeamSearch(n=4, beam_width=4), verifier=verifier())
    assert result.answer == "44444"


async def test_when_a_whole_level_fails_what_was_found_returns() -> None:
    model = stepping(lambda c, j: RequestRefused("gone") if len(c.steps) == 2 else "take 1")
    result = await solve("?", model=model, strategy=BeamSearch(n=4, beam_width=2), verifier=verifier())
    assert len(result.best.steps) == 2 and any(e["kind"] == "search_ended" for e in result.trace)
    assert result.best.truncated and "RequestRefused: gone" in result.warnings[0]
    with pytest.raises(AllCandidatesFailed):
        broken = stepping(lambda c, j: RequestRefused("gone"))
        await solve("?", model=broken, strategy=BeamSearch(n=4, beam_width=2), verifier=verifier())


def failing_after(steps: int) -> CallableVerifier:
    def check(problem: Problem, candidate: Candidate) -> list[float]:
        if len(candidate.steps) > steps:
            raise ZeroDivisionError("no more")
        return [1.0] * len(candidate.steps)

    return CallableVerifier(check, inline=True)


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.type_name)
async def test_a_verifier_that_fails_on_every_continuation_is_no_complete_search(strategy: Any) -> None:
    """Regression: the first step came back as the answer, with the score 1 and «complete»."""
    with pytest.raises(
        AllCandidatesFailed, match=r"nothing was finished, and after step 2 .*ZeroDivisionError"
    ) as caught:
        await solve("?", model=stepping(), strategy=strategy, verifier=failing_after(2))
    assert isinstance(caught.value.__cause__, VerifierError) and caught.value.unscored == len(caught.value.errors) > 0


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.type_name)
async def test_what_is_finished_stands_when_the_verifier_fails_later_and_the_result_says_so(strategy: Any) -> None:
    model = stepping(lambda c, j: "take 1. Answer: 1" if not c.steps and c.index == 0 and j == 0 else f"take {j}")
    result = await solve("?", model=model, strategy=strategy, verifier=failing_after(1), seed=3)
    assert result.best.finished and result.answer == "1" and not result.best.truncated
    assert any("ZeroDivisionError: no more" in warning for warning in result.warnings)
    assert result.stopped == "complete" and "it went no further" in result.trace.tree()


async def test_an_undisturbed_search_warns_of_nothing() -> None:
    result = await solve("?", model=stepping(), strategy=ALL[0], verifier=verifier())
    assert result.warnings == () and "nothing was left to do" in result.trace.tree()
    short = await solve("?", model=stepping(), strategy=ALL[0], verifier=verifier(), budget=Budget(calls=12))
    assert short.stopped == "budget" and short.warnings == ()  # `stopped` says it already


async def test_solve_many_keeps_each_candidate_under_its_own_problem() -> None:
    def tree(candidate: Candidate, number: int) -> str:
        name = candidate.problem.text
        return f"{name} step {number}" if len(candidate.steps) < 2 else f"Answer: {name}"

    def check(problem: Problem, candidate: Candidate) -> list[float]:
        assert candidate.problem is problem and problem.text in candidate.text
        return [0.5] * len(candidate.steps)

    problems = [f"p{i}" for i in range(12)]
    for strategy in ALL:
        results = await solve_many(
            problems,
            model=stepping(tree, latency=0.001),
            strategy=strategy,
            verifier=CallableVerifier(check, inline=True),
        )
        assert [r.answer for r in results] == problems
        for name, result in zip(problems, results, strict=True):
            assert all(c.problem.text == name and name in c.text for c in result.candidates)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BeamSearch(n=10, beam_width=4), "n=10 cannot be shared evenly by beam_width=4"),
        (lambda: DVTS(n=3, beam_width=2), "such as n="),
        (lambda: BeamSearch(n=0, beam_width=4), "n=0"),
        (lambda: BeamSearch(max_steps=0), "max_steps=0"),
        (lambda: BeamSearch(lookahead=-1), "lookahead=-1"),
        (lambda: BeamSearch(select="worst"), "select='worst'"),  # type: ignore[arg-type]
        (lambda: ParticleFilter(resampling="x"), "resampling='x'"),  # type: ignore[arg-type]
        (lambda: ParticleFilter(temperature=0), "temperature=0"),
        (lambda: ParticleFilter(max_steps=0), "max_steps=0"),
    ],
)
def test_bad_settings_name_the_field_the_value_and_the_mend(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")):
        make()


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.type_name)
async def test_what_cannot_serve_a_search_is_refused_with_the_mend(strategy: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"writes no single steps.*OpenAICompatibleModel"):
        await solve("?", model=ScriptedModel(["x"]), strategy=strategy, verifier=verifier())
    whole = CallableVerifier(lambda p, c: 0.5, name="overall", inline=True)
    with pytest.raises(ConfigurationError, match=r"overall gives no step scores.*ProcessJudge"):
        await solve("?", model=stepping(), strategy=strategy, verifier=whole)
    with pytest.raises(ConfigurationError, match="needs a verifier"):
        await solve("?", model=stepping(), strategy=strategy)
    with pytest.raises(ConfigurationError, match=r"ProcessJudge|needs a verifier|gives no step scores|compares"):
        await solve("?", model=stepping(), strategy=strategy, verifier=AnswerAgreement())
    few = TableVerifier({}, default=Score(value=0.5, steps=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    with pytest.raises(AllCandidatesFailed, match="step scores for 1 steps"):
        await solve("?", model=stepping(), strategy=strategy, verifier=few)


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.type_name)
def test_round_trip_through_a_dict(strategy: Any) -> None:
    from tts_plugins.strategies import BaseStrategy

    assert BaseStrategy.from_dict(strategy.to_dict()) == strategy
    least, most = strategy.calls()
    assert least == 8 and most == 8 * 40


async def test_what_is_no_score_loses_the_child() -> None:
    class Odd(TableVerifier):
        async def score(self, run: Any, candidate: Candidate) -> Any:
            return 0.7

    with pytest.raises(AllCandidatesFailed, match="InvalidScore"):
        await solve("?", model=stepping(), strategy=BeamSearch(n=2, beam_width=2), verifier=Odd({}))


async def test_no_room_for_a_single_step() -> None:
    with pytest.raises(BudgetExhausted):
        await solve("?", model=stepping(), strategy=ALL[0], verifier=verifier(), budget=Budget(tokens=5))


async def test_a_deadline_returns_the_best_so_far() -> None:
    results = await asyncio.gather(
        *(
            solve("?", model=stepping(latency=0.7), strategy=strategy, verifier=verifier(), budget=Budget(seconds=2.0))
            for strategy in ALL
        )
    )
    for result in results:
        assert result.stopped == "deadline" and len(result.best.steps) >= 1
