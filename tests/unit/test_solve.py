"""`solve` and its kin: settings, results, many at once, watched, cancelled."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import time
import weakref
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from tests.waiting import until
from tts_plugins import (
    BestOfN,
    Budget,
    Ledger,
    Problem,
    Result,
    SelfConsistency,
    current_ledger,
    solve,
    solve_events,
    solve_many,
)
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    RequestRefused,
    SolveCancelled,
    TTSError,
)
from tts_plugins.models import CallableModel
from tts_plugins.protocols import Run
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Candidate, Generation, Scored
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier

WHERE: ContextVar[str] = ContextVar("where", default="nowhere")


# Results --------------------------------------------------------------------------------------------------------------


async def test_a_result_tells_all() -> None:
    native = {"answer": 2}
    model = ScriptedModel([Generation(text="#### 1"), Generation(text="#### 2", output=native, tokens=10)])
    verifier = TableVerifier({"1": 0.2, "2": 0.9})
    problem = Problem("q", id="p1")
    result = await solve(problem, model=model, verifier=verifier, strategy=BestOfN(n=2), seed=4)
    assert result.problem is problem
    assert (result.text, result.answer, result.score, result.output) == ("#### 2", "2", 0.9, native)
    assert [c.index for c in result.candidates] == [0, 1]
    assert result.best is result.candidates[1]
    assert (result.stopped, result.seed) == ("complete", 4)
    usage = result.usage
    assert (usage.calls, usage.requests, usage.prompt_tokens, usage.completion_tokens, usage.usd) == (2, 2, 10, 20, 0.0)
    assert usage.exact and usage.overshoot == 0 and 0 < usage.seconds < 60
    assert usage.by_role["model"].calls == 2
    root = next(iter(result.trace))
    assert (root["kind"], root["chosen"], root["stopped"]) == ("solve", result.best.id, "complete")
    assert root["usage"]["calls"] == 2
    json.dumps(result.trace.to_dict(), allow_nan=False)


async def test_the_verifiers_feedback_and_details_stay_with_the_candidate() -> None:
    result = await solve(
        "q", model=ScriptedModel(["a"]), verifier=CallableVerifier(lambda p, c: (0.5, "too short")),
        strategy=BestOfN(n=1),
    )  # fmt: skip
    assert result.best.feedback == "too short"


async def test_defaults_follow_from_the_verifier() -> None:
    alone = await solve("q", model=ScriptedModel(["#### 1", "#### 2", "#### 2"]))
    assert (alone.answer, len(alone.candidates)) == ("2", 8)
    judged = await solve("q", model=ScriptedModel(["a"]), verifier=TableVerifier({}, default=0.1))
    assert (judged.score, len(judged.candidates)) == (0.1, 8)


async def test_a_budget_is_fresh_for_each_solve_and_a_ledger_is_shared() -> None:
    budget, ledger = Budget(calls=2), Ledger(Budget(calls=3))
    for _ in range(2):
        result = await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=budget)
        assert (result.stopped, result.usage.calls) == ("complete", 2)
    first = await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=ledger)
    second = await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=ledger)
    assert (first.usage.calls, first.stopped) == (2, "complete")
    assert (second.usage.calls, second.stopped) == (1, "budget")


async def test_set_verifiers_choose_too() -> None:
    model = ScriptedModel(["#### 1", "#### 2", "#### 2", ""])
    result = await solve("q", model=model, verifier=AnswerAgreement(), strategy=BestOfN(n=4))
    assert (result.answer, result.score) == ("2", 0.5)
    assert [c.score for c in result.candidates] == [0.25, 0.5, 0.5, 0.0]


async def test_an_answer_key_of_ones_own_votes() -> None:
    model = ScriptedModel(["A 1", "B 1", "C 2"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=3), answer=lambda text: text.split()[1])
    assert (result.answer, result.text) == ("1", "A 1")


@pytest.mark.parametrize("function", [lambda text: text == "b", lambda problem, candidate: candidate.text == "b"])
async def test_a_function_is_a_verifier(function: Any) -> None:
    result = await solve("q", model=ScriptedModel(["a", "b"]), verifier=function, strategy=BestOfN(n=2))
    assert (result.text, result.score) == ("b", 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": print}, "wrap a function with CallableModel"),
        ({"verifier": 3}, "solve: verifier=3 is not a verifier"),
        ({"verifier": BestOfN}, "a function of the output, or a function of"),
        ({"verifier": lambda: 1.0}, r"verifier <lambda>\(\): it must take \(problem, candidate\)"),
        ({"strategy": BestOfN}, "pass an object such as BestOfN"),
        ({"strategy": 3}, "must be a strategy"),
        ({"budget": 32}, r"pass Budget\(calls=32\)"),
        ({"on_exhausted": "ignore"}, "'return' or 'raise'"),
        ({"attempts": 0}, "at least 1"),
        ({"attempts": True}, "at least 1"),
        ({"seed": "x"}, "seed='x' must be a whole number"),
        ({"seed": 1.5}, "seed=1.5"),
    ],
)
async def test_wrong_settings_are_named_with_their_mend(changes: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"model": ScriptedModel(["a"]), **changes}
    with pytest.raises(ConfigurationError, match=words):
        await solve("q", **settings)
    with pytest.raises(ConfigurationError, match=words):
        solve_events("q", **settings)


@pytest.mark.parametrize("problem", ["", "  ", None, [], [{"content": "no role"}]])
async def test_an_empty_problem_is_refused(problem: Any) -> None:
    with pytest.raises(ConfigurationError, match="problem"):
        await solve(problem, model=ScriptedModel(["a"]))


async def test_a_solve_leaves_nothing_that_only_the_cycle_collector_frees() -> None:
    gc.collect()
    gc.disable()
    try:
        for verifier in (TableVerifier({}, default=0.5), AnswerAgreement(), None):
            model = ScriptedModel(["#### 1"], latency=0.001)
            result = await solve("q", model=model, verifier=verifier, strategy=SelfConsistency(n=3))
            assert result.answer == "1"
            gone = weakref.ref(model)
            del model, result
            await asyncio.sleep(0)
            assert gone() is None, verifier
    finally:
        gc.enable()


# Context --------------------------------------------------------------------------------------------------------------


async def test_context_variables_reach_functions_and_do_not_come_back() -> None:
    seen: list[str] = []

    def in_thread(content: str) -> str:
        seen.append(WHERE.get())
        WHERE.set("changed in a thread")
        return "a"

    async def check(problem: Problem, candidate: Candidate) -> float:
        seen.append(WHERE.get())
        WHERE.set("changed in a task")
        return 1.0

    WHERE.set("here")
    await solve("q", model=CallableModel(in_thread), verifier=CallableVerifier(check), strategy=BestOfN(n=2))
    assert seen == ["here"] * 4
    assert WHERE.get() == "here"


async def test_the_account_of_a_solve_reaches_its_functions_and_no_sibling() -> None:
    async def one(limit: int) -> None:
        def function(content: str) -> str:
            time.sleep(0.01)
            ledger = current_ledger()
            assert ledger is not None and ledger.left()["calls"] is not None
            accounts.setdefault(limit, set()).add(id(ledger))
            return "a"

        await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=3), budget=Budget(calls=limit))
        assert current_ledger() is None

    accounts: dict[int, set[int]] = {}
    await asyncio.gather(*(one(limit) for limit in range(3, 9)))
    assert all(len(ids) == 1 for ids in accounts.values())
    assert len({next(iter(ids)) for ids in accounts.values()}) == 6


# Cancelling -----------------------------------------------------------------------------------------------------------


async def test_cancelling_many_solves_leaves_nothing() -> None:
    ledger, before = Ledger(Budget(calls=1200)), asyncio.all_tasks()
    model = ScriptedModel(["a"], latency=0.05, batch=1)
    tasks = [
        asyncio.create_task(
            solve(
                "q", model=model if i % 2 else CallableModel(lambda content: (time.sleep(0.05), "a")[1]),
                verifier=TableVerifier({}, default=0.5, latency=0.2), strategy=BestOfN(n=8), budget=ledger,
            )
        )
        for i in range(200)
    ]  # fmt: skip
    await until(lambda: ledger.spent.calls)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(e, asyncio.CancelledError) for e in ends)
    assert ledger.open_holds == 0 and ledger.held == (0, 0, 0)
    assert asyncio.all_tasks() == before
    assert 0 < ledger.spent.calls <= 1200


async def test_cancelling_during_any_stage_settles_everything() -> None:
    ledger = Ledger(Budget(calls=10_000))
    for delay in (0.0, 0.001, 0.005, 0.011, 0.015, 0.021, 0.025):
        task = asyncio.create_task(
            solve(
                "q", model=ScriptedModel(["a"], latency=0.01, batch=2),
                verifier=TableVerifier({}, default=0.1, latency=0.01), strategy=BestOfN(n=4, wave=2), budget=ledger,
            )
        )  # fmt: skip
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        assert ledger.open_holds == 0, delay


async def test_cleaning_up_after_a_cancellation_is_not_broken_off() -> None:
    begun, cleaned = list[int](), list[int]()

    async def check(problem: Problem, candidate: Candidate) -> float:
        begun.append(candidate.index)
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(3):
                await asyncio.sleep(0.01)
            cleaned.append(candidate.index)
        return 1.0

    task = asyncio.create_task(
        solve("q", model=ScriptedModel(["a"]), verifier=CallableVerifier(check), strategy=BestOfN(n=3))
    )
    await until(lambda: len(begun) == 3)
    task.cancel()
    await asyncio.wait([task])
    assert sorted(cleaned) == [0, 1, 2]


async def test_a_timeout_around_a_solve_is_a_timeout_even_where_the_strategy_swallows_it() -> None:
    async def deaf(run: Run, problem: Problem) -> Scored:
        candidate = await anext(run.sample(problem, 1))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return candidate
        raise AssertionError

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await solve("q", model=ScriptedModel(["a"]), strategy=deaf)


async def test_a_solve_in_the_cleanup_of_a_cancelled_task_keeps_its_deadline() -> None:
    results: list[Result] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:

            async def slow(run: Run, problem: Problem) -> Scored:
                candidate = await anext(run.sample(problem, 1))
                await asyncio.sleep(60)
                return candidate

            results.append(await solve("q", model=ScriptedModel(["a"]), strategy=slow, budget=Budget(seconds=2)))

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert [r.stopped for r in results] == ["deadline"]


# Watched --------------------------------------------------------------------------------------------------------------


async def test_events_come_in_order_each_at_its_start_and_its_end() -> None:
    events = solve_events("q", model=ScriptedModel(["a", "b"]), strategy=SelfConsistency(n=2), seed=1)
    with pytest.raises(RuntimeError, match="not ended"):
        _ = events.result
    seen = [e async for e in events]
    assert (seen[0]["kind"], seen[0]["end"]) == ("solve", None)
    assert (seen[-1]["kind"], seen[-1]["id"]) == ("solve", 0) and seen[-1]["end"] is not None
    first = {}
    for position, event in enumerate(seen):
        if event["end"] is None:
            first[event["id"]] = position
            assert event["parent"] is None or event["parent"] in first
        else:
            assert first.get(event["id"], -1) < position
    starts = [e["id"] for e in seen if e["end"] is None]
    assert starts == sorted(starts)
    assert events.result.text == "a"
    assert {e["id"] for e in seen} == {e["id"] for e in events.result.trace}
    assert [e async for e in events] == []  # and no second iteration hangs
    assert await events.wait() is events.result


async def test_cancel_gives_the_best_so_far() -> None:
    verifier = CallableVerifier(lambda p, c: 0.9 if c.index == 0 else 0.1)
    model = ScriptedModel(["a"], latency=0.05)
    events = solve_events("q", model=model, verifier=verifier, strategy=BestOfN(n=50, wave=2, stop=_Never()))
    scored = 0
    async for event in events:
        scored += event["kind"] == "candidate" and event["end"] is not None
        if scored == 3:
            events.cancel()
    assert events.result.stopped == "cancelled"
    assert (events.result.score, len(model.requests)) == (0.9, 4)
    events.cancel()  # afterwards it changes nothing
    assert len(events.result.trace) == len(events.result.trace.to_dict()["events"])


class _Never:
    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        return False

    def least(self, seen: Sequence[Scored], left: int) -> int:
        return 1


@pytest.mark.parametrize("early", [True, False])
async def test_cancel_without_any_candidate_is_an_error_and_no_cancellation_of_the_caller(early: bool) -> None:
    events = solve_events("q", model=ScriptedModel(["a"], latency=5), strategy=SelfConsistency(n=2))
    if early:
        events.cancel()
    with pytest.raises(SolveCancelled):
        async for _ in events:
            events.cancel()
    with pytest.raises(SolveCancelled):
        await events.wait()


async def test_cancel_ends_a_strategy_that_does_not_sample() -> None:
    async def slow(run: Run, problem: Problem) -> Scored:
        candidate = await anext(run.sample(problem, 1))
        await asyncio.sleep(60)
        return candidate

    events, start = solve_events("q", model=ScriptedModel(["a"]), strategy=slow), time.monotonic()
    async for event in events:
        if event["kind"] == "candidate" and event["end"] is not None:
            events.cancel()
    assert (events.result.text, events.result.stopped) == ("a", "cancelled")
    assert time.monotonic() - start < 20


async def test_breaking_off_the_loop_leaves_the_solve_running() -> None:
    events = solve_events("q", model=ScriptedModel(["a"], latency=0.02), strategy=SelfConsistency(n=2))
    async for _ in events:
        break
    result = await events.wait()
    assert (result.stopped, len(result.candidates)) == ("complete", 2)
    assert [e async for e in events][-1]["kind"] == "solve"  # the rest is still there


async def test_a_watcher_that_is_cancelled_leaves_the_solve_running() -> None:
    free = asyncio.Event()

    async def generate(content: str) -> str:
        await free.wait()
        return "a"

    events = solve_events("q", model=CallableModel(generate), strategy=SelfConsistency(n=2))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await events.wait()
    free.set()
    assert (await events.wait()).stopped == "complete"


async def test_what_solve_raises_is_raised_after_the_events() -> None:
    events = solve_events("q", model=ScriptedModel([RequestRefused("no")]), strategy=SelfConsistency(n=1))
    kinds = []
    with pytest.raises(AllCandidatesFailed):
        async for event in events:
            kinds.append(event["kind"])  # noqa: PERF401 - the error comes out of the loop
    assert "failure" in kinds
    with pytest.raises(AllCandidatesFailed):
        _ = events.result


# Many -----------------------------------------------------------------------------------------------------------------


def echo(latency: float = 0.0) -> ScriptedModel:
    return ScriptedModel(lambda problem, number: problem.text, latency=latency)


async def test_many_keep_their_order_and_a_limit() -> None:
    model = echo(0.01)
    results = await solve_many(
        [f"q{i}" for i in range(20)], model=model, strategy=SelfConsistency(n=1), concurrency=4, seed=1
    )
    assert [r.text for r in results] == [f"q{i}" for i in range(20)]
    assert model.peak == 4
    assert len({r.seed for r in results}) == 20
    again = await solve_many([f"q{i}" for i in range(20)], model=echo(), strategy=SelfConsistency(n=1), seed=1)
    assert [r.seed for r in again] == [r.seed for r in results]


async def test_many_have_a_fresh_budget_each_or_share_a_ledger() -> None:
    settings: dict[str, Any] = {"model": echo(), "strategy": SelfConsistency(n=3)}
    assert [r.usage.calls for r in await solve_many(list("abc"), budget=Budget(calls=2), **settings)] == [2, 2, 2]
    ledger = Ledger(Budget(calls=5))
    mixed = await solve_many(list("abc"), budget=ledger, return_errors=True, concurrency=1, **settings)
    assert [getattr(r, "stopped", type(r)) for r in mixed] == ["complete", "budget", BudgetExhausted]
    assert ledger.spent.calls == 5


def failing(problem: Problem, number: int) -> Any:
    return RequestRefused("no") if problem.text == "b" else problem.text


async def test_errors_take_their_places_where_that_is_asked_for() -> None:
    mixed = await solve_many(
        list("abc"), model=ScriptedModel(failing), strategy=SelfConsistency(n=1), return_errors=True
    )
    assert isinstance(mixed[1], AllCandidatesFailed)
    assert [r.text for r in mixed if isinstance(r, Result)] == ["a", "c"]


async def test_the_first_error_ends_the_rest() -> None:
    class Slow(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
            await asyncio.sleep(0 if problem.text == "b" else 60)
            return await super().generate(problem, seeds)

    ledger, before = Ledger(Budget(calls=9)), asyncio.all_tasks()
    async with asyncio.timeout(20):
        with pytest.raises(AllCandidatesFailed):
            await solve_many(list("abc"), model=Slow(failing), strategy=SelfConsistency(n=1), budget=ledger)
    assert ledger.open_holds == 0 and asyncio.all_tasks() == before


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5])
async def test_a_wrong_concurrency_is_refused(concurrency: Any) -> None:
    with pytest.raises(ConfigurationError, match="concurrency"):
        await solve_many(list("ab"), model=echo(), concurrency=concurrency)


async def test_none_of_many_is_none() -> None:
    assert await solve_many([], model=echo()) == []
    assert issubclass(SolveCancelled, TTSError)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
async def test_a_result_can_be_copied_and_sent_to_another_process(way: Any) -> None:
    """Regression: it held proxies and locks, which cannot be pickled."""
    model, verifier = ScriptedModel(["#### 1", "#### 2"]), TableVerifier({"1": 1.0, "2": 0.5})
    result = await solve(Problem("q", metadata={"a": 1}), model=model, strategy=BestOfN(n=2), verifier=verifier,
                         listener=lambda event: None, budget=Budget(calls=5))  # fmt: skip
    again = way(result)
    assert (again.answer, again.score, again.usage, again.stopped) == ("1", 1.0, result.usage, "complete")
    assert again.trace.to_dict() == result.trace.to_dict() and again.trace.tree() == result.trace.tree()
    assert [c.text for c in again.candidates] == [c.text for c in result.candidates]
    assert any(c is again.best for c in again.candidates)


@pytest.mark.parametrize("setting", ["answer", "listener"])
async def test_what_cannot_be_called_is_refused_before_anything_is_spent(setting: str) -> None:
    model = ScriptedModel(["#### 1"])
    wrong: Any = {setting: 5}
    with pytest.raises(ConfigurationError, match=f"solve: {setting}=5 cannot be called"):
        await solve("q", model=model, **wrong)
    assert not model.requests
