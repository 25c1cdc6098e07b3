"""Revision, aggregation and adaptive branching: whole answers that build on earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tts_plugins import (
    BestOfN,
    Budget,
    Problem,
    RecursiveAggregation,
    Revision,
    Scored,
    SelfConsistency,
    TreeSearch,
    solve,
    solve_many,
)
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError, RequestRefused
from tts_plugins.models import CallableModel
from tts_plugins.stopping import Threshold
from tts_plugins.strategies import BaseStrategy
from tts_plugins.strategies.revision import circles
from tts_plugins.testing import ScriptedModel, ScriptedReviseModel, TableVerifier
from tts_plugins.verifiers import CallableVerifier


def better(problem: Problem, history: Sequence[Scored], number: int) -> str:
    """One more than the latest."""
    return f"Answer: {int(history[-1].answer or 0) + 1}"


def climbing(**settings: Any) -> ScriptedReviseModel:
    return ScriptedReviseModel(["Answer: 1", "Answer: 11", "Answer: 21", "Answer: 31"], better, **settings)


def by_height(problem: Problem, candidate: Any) -> tuple[float, str]:
    height = int(candidate.answer or 0)
    return height / 50, f"{height} is too low"


HEIGHT = CallableVerifier(by_height, inline=True)


async def test_revision_counts_chains_times_rounds_and_shows_four_attempts() -> None:
    model = climbing()
    result = await solve("?", model=model, strategy=Revision(chains=4, rounds=6), verifier=HEIGHT, seed=1)
    assert result.usage.calls == 4 * 6 and result.answer == "36"
    assert max(map(len, model.histories)) == 4
    longest = [h for h in model.histories if len(h) == 4]
    assert all(
        [int(t.split()[1]) for t in h] == list(range(int(h[0].split()[1]), int(h[0].split()[1]) + 4)) for h in longest
    )
    events = [e for e in result.trace if e["kind"] == "candidate"]
    assert sum("parent_candidate" in e for e in events) == 20


async def test_the_choice_is_over_all_attempts_never_the_last() -> None:
    model = ScriptedReviseModel(["Answer: 9"], lambda p, h, i: ["Answer: 1", "Answer: 2", "Answer: 3"][i % 3])
    table = TableVerifier({"9": 0.9, "1": 0.1, "2": 0.2, "3": 0.3})
    for select in ("best", "weighted"):
        result = await solve(
            "?",
            model=model,
            strategy=Revision(chains=1, rounds=4, select=select),
            verifier=table,  # type: ignore[arg-type]
        )
        assert result.answer == "9"


async def test_weighted_is_within_a_chain_first_and_majority_is_flat() -> None:
    # Chain 1: 5, 5, 8. Chains 2 and 3: 8, 7, 6 each. Flat, 8 leads; chain by chain, 5 beats 8 within the first.
    script = {"Answer: 50": ["Answer: 5", "Answer: 8"], "Answer: 8": ["Answer: 7", "Answer: 6"]}

    def revise(problem: Problem, history: Sequence[Scored], number: int) -> str:
        return script[history[0].text][len(history) - 1]

    starts = ["Answer: 50", "Answer: 8", "Answer: 8"]
    table = TableVerifier({"50": 0.3, "5": 0.5, "8": 0.2, "7": 0.1, "6": 0.1})
    flat = await solve(
        "?", model=ScriptedReviseModel(starts, revise), strategy=Revision(chains=3, rounds=3, select="majority"),
        verifier=table,
    )  # fmt: skip
    nested = await solve(
        "?", model=ScriptedReviseModel(starts, revise), strategy=Revision(chains=3, rounds=3), verifier=table
    )
    assert flat.answer == "8" and nested.answer == "5"


async def test_a_chain_stops_when_good_enough() -> None:
    result = await solve(
        "?", model=climbing(), strategy=Revision(chains=4, rounds=6, stop=Threshold(0.44)), verifier=HEIGHT
    )
    # 1 and 11 climb to the end; 21 needs one revision; 31 none.
    assert result.usage.calls == 6 + 6 + 2 + 1
    assert sum(e["kind"] == "stop" for e in result.trace) == 2
    assert result.stopped == "stop_rule"  # whichever chain goes on longest


async def test_a_chain_that_repeats_itself_stops() -> None:
    model = ScriptedReviseModel(["Answer: 1"], lambda p, h, i: "Answer: 1")
    result = await solve("?", model=model, strategy=Revision(chains=2, rounds=8), verifier=HEIGHT)
    assert result.usage.calls == 4 and sum(e["kind"] == "circles" for e in result.trace) == 2
    assert result.stopped == "complete"
    p = Problem("?")
    turning = [Scored(problem=p, text=t, answer=a) for t, a in (("a", "1"), ("b", "1"), ("c", "1"))]
    assert circles(turning) and not circles(turning[:2])
    assert circles([*turning[:2], Scored(problem=p, text=" a ", answer="2")])


@pytest.mark.parametrize(
    ("n", "ratio", "chains", "rounds"),
    [(64, 4, 4, 16), (64, 1, 8, 8), (64, 64, 1, 64), (16, 0.25, 8, 2), (7, 100, 1, 7)],
)
def test_a_budget_and_a_ratio_make_chains_and_rounds(n: int, ratio: float, chains: int, rounds: int) -> None:
    made = Revision.from_budget(n=n, ratio=ratio, select="majority")
    assert (made.chains, made.rounds, made.select) == (chains, rounds, "majority")
    assert made.calls()[1] <= n


@pytest.mark.parametrize("calls", range(1, 13))
async def test_a_revision_whose_budget_ends_returns_the_best_so_far(calls: int) -> None:
    result = await solve(
        "?", model=climbing(), strategy=Revision(chains=3, rounds=4), verifier=HEIGHT, budget=Budget(calls=calls)
    )
    assert result.usage.calls <= calls and result.usage.overshoot == 0
    assert result.score == max(c.score or 0 for c in result.candidates)
    assert result.stopped == ("complete" if calls == 12 else "budget")


async def test_one_chain_of_one_round_is_sampling() -> None:
    result = await solve("?", model=climbing(), strategy=Revision(chains=1, rounds=1), verifier=HEIGHT)
    assert result.usage.calls == 1 and result.answer == "1"
    tree = await solve("?", model=climbing(), strategy=TreeSearch(n=1), verifier=HEIGHT)
    assert tree.usage.calls == 1 and tree.answer == "1"
    merged = await solve("?", model=climbing(), strategy=RecursiveAggregation(population=1, subset=1, loops=1))
    assert merged.usage.calls == 1 and merged.answer == "1"
    for other in (BestOfN(n=1), SelfConsistency(n=1)):
        plain = await solve("?", model=climbing(), strategy=other)
        assert plain.answer == "1"


async def test_a_chain_goes_on_after_failed_attempts_and_shows_why_they_failed() -> None:
    shown: list[list[tuple[str, str]]] = []

    def revise(problem: Problem, history: Sequence[Scored], number: int) -> Any:
        shown.append([(a.text, a.feedback) for a in history])
        return [RequestRefused("the form is wrong"), "Answer: 2", "Answer: bad", "Answer: 4"][number]

    def check(problem: Problem, candidate: Any) -> tuple[float, str]:
        if candidate.answer == "bad":
            raise ValueError("not a number")
        return int(candidate.answer) / 10, "higher"

    model = ScriptedReviseModel([RequestRefused("no such form")], revise)
    strategy = Revision(chains=1, rounds=5, select="best")
    result = await solve("?", model=model, strategy=strategy, verifier=CallableVerifier(check, inline=True))
    assert result.answer == "4" and [c.answer for c in result.candidates] == ["2", "4"] and result.usage.calls == 5
    first, second, third, last = shown
    assert first == [("", "RequestRefused: no such form")] and second == [
        *first,
        ("", "RequestRefused: the form is wrong"),
    ]
    assert third == [*second, ("Answer: 2", "higher")]
    assert last[-1][0] == "Answer: bad" and "not a number" in last[-1][1], "what it wrote, and what the verifier said"


async def test_chains_whose_first_attempts_fail_ask_for_different_revisions() -> None:
    model = ScriptedReviseModel(lambda p, i: RequestRefused("no"), lambda p, h, i: f"Answer: {i}")  # type: ignore[arg-type]
    strategy = Revision(chains=3, rounds=2, select="majority")
    one, two = [await solve("?", model=model, strategy=strategy, seed=s) for s in (1, 1)]
    seeds = [[c.seed for c in r.candidates] for r in (one, two)]
    assert len(set(seeds[0])) == 3 and seeds[0] == seeds[1]


async def test_failures_of_all_attempts_are_told_together_and_end_the_search() -> None:
    model = ScriptedReviseModel(lambda p, i: RequestRefused("first"), lambda p, h, i: RequestRefused(f"then {i}"))  # type: ignore[arg-type]
    with pytest.raises(AllCandidatesFailed, match="all 6 attempts failed; the first because of RequestRefused") as info:
        await solve("?", model=model, strategy=Revision(chains=2, rounds=3, select="majority"))
    assert len(info.value.errors) == len(info.value.attempts) == 6


async def test_aggregation_counts_population_times_loops() -> None:
    model = ScriptedReviseModel(
        lambda p, i: f"Answer: {i % 3}", lambda p, h, i: f"Answer: {max(int(a.answer or 0) for a in h)}"
    )
    result = await solve("?", model=model, strategy=RecursiveAggregation(population=6, subset=3, loops=4), seed=4)
    assert result.usage.calls == 24 and result.answer == "2"
    assert {len(h) for h in model.histories} == {3}
    assert all(len(set(h)) >= 1 for h in model.histories)
    again = await solve("?", model=climbing(), strategy=RecursiveAggregation(population=4, subset=2, loops=2), seed=4)
    once = await solve("?", model=climbing(), strategy=RecursiveAggregation(population=4, subset=2, loops=2), seed=4)
    assert [c.seed for c in again.candidates] == [c.seed for c in once.candidates]


async def test_aggregation_survives_a_budget_that_ends() -> None:
    for calls in range(1, 12):
        result = await solve(
            "?",
            model=climbing(),
            strategy=RecursiveAggregation(population=4, subset=2, loops=3),
            budget=Budget(calls=calls),
        )
        assert result.usage.calls <= calls and result.answer is not None


async def test_tree_search_deepens_where_revision_pays_and_widens_where_it_does_not() -> None:
    def depth(result: Any) -> float:
        return sum(c.parent is not None for c in result.candidates) / len(result.candidates)

    deep, wide = [], []
    for seed in range(12):
        pays = ScriptedReviseModel(["Answer: 1"], lambda p, h, i: f"Answer: {min(49, 10 + int(h[-1].answer or 0))}")
        deep.append(depth(await solve("?", model=pays, strategy=TreeSearch(n=16), verifier=HEIGHT, seed=seed)))
        spoils = ScriptedReviseModel(["Answer: 40"], lambda p, h, i: "Answer: 0")
        wide.append(depth(await solve("?", model=spoils, strategy=TreeSearch(n=16), verifier=HEIGHT, seed=seed)))
    assert sum(deep) / 12 > 0.6 > 0.4 > sum(wide) / 12


async def test_tree_search_counts_stops_and_repeats_itself_for_a_seed() -> None:
    runs = [
        await solve("?", model=climbing(), strategy=TreeSearch(n=10, batch=3), verifier=HEIGHT, seed=5)
        for _ in range(2)
    ]
    assert runs[0].usage.calls == 10
    assert [c.seed for c in runs[0].candidates] == [c.seed for c in runs[1].candidates]
    assert runs[0].score == max(c.score or 0 for c in runs[0].candidates)
    stopped = await solve(
        "?", model=climbing(), strategy=TreeSearch(n=10, stop=Threshold(0.02)), verifier=HEIGHT, seed=5
    )
    assert stopped.usage.calls == 1 and stopped.stopped == "stop_rule"
    cut = await solve("?", model=climbing(), strategy=TreeSearch(n=10), verifier=HEIGHT, budget=Budget(calls=4), seed=5)
    assert cut.usage.calls == 4 and cut.stopped == "budget"
    with pytest.raises(BudgetExhausted):
        await solve("?", model=climbing(), strategy=TreeSearch(n=10), verifier=HEIGHT, budget=Budget(tokens=1))


ONE_BY_ONE = [TreeSearch(n=5), TreeSearch(n=5, batch=2), Revision(chains=1, rounds=5, select="best")]


@pytest.mark.parametrize("strategy", ONE_BY_ONE, ids=["tree", "tree by twos", "revision"])
@pytest.mark.parametrize("failing", [1, 2, 4])
async def test_attempts_go_on_after_one_that_failed(strategy: Any, failing: int) -> None:
    """The failure is the feedback, and what failed is never chosen."""
    count = 0

    def first_fail(problem: Problem, candidate: Any) -> float:
        nonlocal count
        count += 1
        if count <= failing:
            raise ValueError("the brackets do not match")
        return 0.1 * count

    model = climbing()
    verifier = CallableVerifier(first_fail, inline=True)
    result = await solve("?", model=model, strategy=strategy, verifier=verifier, seed=3)
    assert result.usage.calls == 5 and result.stopped == "complete"
    assert len(result.candidates) == 5 - failing and all(c.score is not None for c in result.candidates)
    assert result.score == max(c.score or 0 for c in result.candidates)


async def test_a_tree_shows_a_failure_to_what_revises_it() -> None:
    seen: list[str] = []

    def revise(problem: Problem, history: Sequence[Scored], number: int) -> str:
        seen.append(history[-1].feedback)
        return "Answer: 40"

    def judged(problem: Problem, candidate: Any) -> float:
        if candidate.answer == "1":
            raise ValueError("the brackets do not match")
        return 0.8

    model = ScriptedReviseModel(["Answer: 1"], revise)
    verifier = CallableVerifier(judged, inline=True)
    result = await solve("?", model=model, strategy=TreeSearch(n=16), verifier=verifier, seed=1)
    assert result.answer == "40" and any("the brackets do not match" in feedback for feedback in seen)


@pytest.mark.parametrize("batch", [1, 3])
async def test_a_tree_whose_every_attempt_fails_names_them_all(batch: int) -> None:
    def never(problem: Problem, candidate: Any) -> float:
        raise ValueError("no")

    model, verifier = climbing(), CallableVerifier(never, inline=True)
    with pytest.raises(AllCandidatesFailed) as caught:
        await solve("?", model=model, strategy=TreeSearch(n=6, batch=batch), verifier=verifier)
    assert len(caught.value.errors) == len(caught.value.attempts) == 6
    with pytest.raises(BudgetExhausted):
        await solve("?", model=model, strategy=TreeSearch(n=6, batch=batch), verifier=verifier, budget=Budget(calls=2))


@pytest.mark.parametrize(
    "strategy", [Revision(chains=2, rounds=3), TreeSearch(n=5), RecursiveAggregation(population=3, subset=2, loops=2)],
    ids=lambda s: s.type_name,
)  # fmt: skip
async def test_every_problem_keeps_its_own_candidates(strategy: Any) -> None:
    model = ScriptedReviseModel(
        lambda p, i: f"{p.text} says {i}", lambda p, h, i: f"{p.text} revised {i} from {h[-1].text[:3]}", latency=0.001
    )
    own = CallableVerifier(lambda p, c: 0.5 if p.text in c.text and c.problem is p else 0.0, inline=True)
    problems = [f"p{i:02}" for i in range(10)]
    results = await solve_many(problems, model=model, strategy=strategy, verifier=own)
    for name, result in zip(problems, results, strict=True):
        assert all(c.problem.text == name and c.text.startswith(name) and c.score == 0.5 for c in result.candidates)
    assert BaseStrategy.from_dict(strategy.to_dict()) == strategy


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Revision(chains=0), "chains=0"),
        (lambda: Revision(rounds=-1), "rounds=-1"),
        (lambda: Revision(history=0), "history=0"),
        (lambda: Revision(select="last"), "select='last'"),  # type: ignore[arg-type]
        (lambda: Revision(stop=0.9), "stop=0.9"),  # type: ignore[arg-type]
        (lambda: Revision.from_budget(n=0, ratio=1), "n=0"),
        (lambda: Revision.from_budget(n=4, ratio=0), "ratio=0"),
        (lambda: RecursiveAggregation(population=2, subset=3), "subset=3 is more than population=2"),
        (lambda: RecursiveAggregation(loops=0), "loops=0"),
        (lambda: TreeSearch(n=0), "n=0"),
        (lambda: TreeSearch(prior=0), "prior=0"),
        (lambda: TreeSearch(select="majority"), "select='majority'"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


async def test_what_cannot_revise_is_refused_with_the_mend() -> None:
    strategy = Revision(chains=1, rounds=2)
    with pytest.raises(ConfigurationError, match=r"cannot revise; use OpenAICompatibleModel.*revise="):
        await solve("?", model=ScriptedModel(["Answer: 1"]), strategy=strategy, verifier=HEIGHT)
    with pytest.raises(ConfigurationError, match=r"a function alone cannot revise"):
        await solve("?", model=CallableModel(lambda q: "Answer: 1"), strategy=strategy, verifier=HEIGHT)
    with pytest.raises(ConfigurationError, match="select='majority'"):
        await solve("?", model=climbing(), strategy=strategy)
    with pytest.raises(ConfigurationError, match="needs a verifier"):
        await solve("?", model=climbing(), strategy=TreeSearch(n=2))
    with pytest.raises(ConfigurationError, match="two ways"):
        CallableModel(str, revise=better, revision=lambda p, h: "")
    with pytest.raises(ConfigurationError, match="revise=3"):
        CallableModel(str, revise=3)  # type: ignore[arg-type]


async def test_a_function_revises_through_a_second_function_or_a_prompt_builder() -> None:
    seen: list[Any] = []

    def revise(content: str, attempts: list[Scored], seed: int) -> str:
        seen.append((content, [(a.text, a.score, a.feedback) for a in attempts], seed))
        return f"Answer: {int(attempts[-1].answer or 0) + 1}"

    result = await solve(
        "?", model=CallableModel(lambda q: "Answer: 1", revise=revise), strategy=Revision(chains=1, rounds=3),
        verifier=HEIGHT, seed=1,
    )  # fmt: skip
    assert result.answer == "3" and seen[1][1] == [
        ("Answer: 1", 0.02, "1 is too low"),
        ("Answer: 2", 0.04, "2 is too low"),
    ]
    assert isinstance(seen[0][2], int) and seen[0][2] != seen[1][2]

    def chain(inputs: dict[str, str]) -> str:
        return f"Answer: {len(inputs.get('hint', ''))}"

    def with_hint(problem: Problem, attempts: Sequence[Scored]) -> dict[str, str]:
        return {**problem.content, "hint": attempts[-1].feedback}

    hinted = await solve(
        {"question": "?"}, model=CallableModel(chain, revision=with_hint, max_tokens=5),
        strategy=replace(Revision(chains=1, rounds=2), select="best"), verifier=HEIGHT, budget=Budget(tokens=1000),
    )  # fmt: skip
    assert hinted.answer == str(len("0 is too low"))
