"""Budgets: reserved before anything is sent, never overspent, and every wait comes to an end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.waiting import until
from tts_plugins import BestOfN, Budget, Ledger, Problem, SelfConsistency, Usage, current_ledger, solve, solve_sync
from tts_plugins._internal.request_sent import holding, leaving
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    CallTimedOut,
    ConfigurationError,
    RateLimited,
    ServerFailed,
    UnboundedCallError,
    UnknownPriceError,
)
from tts_plugins.models import CallableModel
from tts_plugins.protocols import Run
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Candidate, Score, Scored
from tts_plugins.verifiers import CallableVerifier

TABLE = TableVerifier({}, default=0.5)


class Judge:
    """A verifier that asks a model once for each candidate."""

    name = "judge"

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self.model.bound(problem)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        reply = await run.generate(self.model, Problem(f"rate {candidate.text}"))
        return Score(value=float(reply.generations[0].text))


class OnlySets:
    """A set verifier: it has no `score`."""

    name = "sets"

    def __init__(self, model: ScriptedModel) -> None:
        self._judge = Judge(model)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self._judge.bound(problem, tokens)

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> list[Score]:
        return [await self._judge.score(run, c) for c in candidates]


async def test_the_verification_is_reserved_with_the_generation() -> None:
    model, judge = ScriptedModel(["a"]), ScriptedModel(["0.5"])
    result = await solve("q", model=model, verifier=Judge(judge), strategy=BestOfN(n=8), budget=Budget(calls=7))
    assert result.stopped == "budget"
    assert len(result.candidates) == 3  # of 2 calls each: a fourth could be generated, and not be verified
    assert all(c.score == 0.5 for c in result.candidates)
    assert len(model.requests) == len(judge.requests) == 3
    assert result.usage.calls == 6
    assert result.usage.by_role["model"].calls == result.usage.by_role["verifier"].calls == 3


async def test_a_set_verifier_keeps_its_reservation_until_all_have_arrived() -> None:
    model, judge = ScriptedModel(["a"], latency=0.01), ScriptedModel(["0.5"])
    ledger = Ledger(Budget(calls=10))
    result = await solve("q", model=model, verifier=OnlySets(judge), strategy=BestOfN(n=8), budget=ledger)
    assert (result.stopped, len(result.candidates), result.usage.calls) == ("budget", 5, 10)
    assert all(c.score == 0.5 for c in result.candidates)
    assert ledger.open_holds == 0


async def test_what_a_set_verifier_cannot_pay_for_leaves_the_vote() -> None:
    class Greedy(OnlySets):
        async def bound(self, problem: Problem, tokens: int | None) -> Bound:
            return Bound(calls=0)  # it lies

    model, judge = ScriptedModel(["#### 1", "#### 2", "#### 2"]), ScriptedModel(["0.5"])
    result = await solve("q", model=model, verifier=Greedy(judge), strategy=BestOfN(n=3), budget=Budget(calls=4))
    assert (result.stopped, result.answer, result.score) == ("budget", "2", None)
    assert result.usage.calls == 4


async def test_a_batch_is_trimmed_to_what_fits() -> None:
    model = ScriptedModel(["a"], batch=16)
    result = await solve("q", model=model, strategy=SelfConsistency(n=16), budget=Budget(tokens=64))
    # 10 tokens are held for each, and 5 once for the prompt of all of them
    assert [len(r) for r in model.requests] == [5]
    assert result.usage.tokens == 55
    assert result.stopped == "budget"


async def test_no_room_at_all_is_an_error_before_anything_is_sent() -> None:
    model = ScriptedModel(["a"])
    with pytest.raises(BudgetExhausted, match=r"tokens=10\).*15 tokens"):
        await solve("q", model=model, strategy=SelfConsistency(n=2), budget=Budget(tokens=10))
    assert model.requests == []


async def test_where_failures_used_the_budget_up_the_error_says_what_failed() -> None:
    failed = ServerFailed("the server has a fault")
    with pytest.raises(
        BudgetExhausted, match=r"tokens=40\).*tried again, since it failed: the server has a fault"
    ) as caught:
        await solve("q", model=ScriptedModel([failed]), strategy=SelfConsistency(n=2), budget=Budget(tokens=40))
    assert caught.value.__cause__ is failed


async def test_exhaustion_can_raise_instead() -> None:
    model, ledger = ScriptedModel(["a"]), Ledger(Budget(calls=2))
    with pytest.raises(BudgetExhausted, match="after 2 candidates") as caught:
        await solve("q", model=model, strategy=SelfConsistency(n=3), budget=ledger, on_exhausted="raise")
    assert caught.value.ledger is ledger
    assert isinstance(caught.value.__cause__, BudgetExhausted)
    assert ledger.spent.calls == 2


async def test_a_stop_rule_that_was_content_is_no_exhaustion() -> None:
    from tts_plugins.stopping import Threshold

    slow = CallableVerifier(lambda p, c: 1.0 if c.index == 1 else 0.1, name="v")
    result = await solve(
        "q", model=ScriptedModel(["a"], latency=0.02), verifier=slow, budget=Budget(calls=2), on_exhausted="raise",
        strategy=BestOfN(n=4, stop=Threshold(0.9), wave=4),
    )  # fmt: skip
    assert (result.stopped, result.score) == ("stop_rule", 1.0)


@pytest.mark.parametrize("limit", [{"tokens": 100}, {"usd": 1.0}])
async def test_what_has_no_bound_is_refused_before_anything_is_sent(limit: dict[str, Any]) -> None:
    model = ScriptedModel(["a"], max_tokens=None)
    with pytest.raises(UnboundedCallError, match="set max_tokens"):
        await solve("q", model=model, strategy=SelfConsistency(n=2), budget=Budget(**limit))
    assert model.requests == []


async def test_an_unknown_price_is_refused_before_anything_is_sent() -> None:
    model = ScriptedModel(["a"], price=None)
    with pytest.raises(UnknownPriceError, match="price="):
        await solve("q", model=model, strategy=SelfConsistency(n=2), budget=Budget(usd=1.0))
    assert model.requests == []


async def test_a_verifier_without_a_bound_is_refused_before_anything_is_sent() -> None:
    model, judge = ScriptedModel(["a"]), ScriptedModel(["0.5"], max_tokens=None)
    with pytest.raises(UnboundedCallError, match="judge: max_tokens"):
        await solve("q", model=model, verifier=Judge(judge), strategy=BestOfN(n=2), budget=Budget(tokens=1000))
    assert model.requests == []


def test_never_overspent_by_threads_that_share_an_account() -> None:
    ledger = Ledger(Budget(calls=40, tokens=700))
    lock, worst = threading.Lock(), [0, 0]

    def said(problem: Problem, number: int) -> str:
        with lock:
            worst[0] = max(worst[0], ledger.spent.calls + ledger.held.calls)
            worst[1] = max(worst[1], ledger.spent.tokens + ledger.held.tokens)
        return "a"

    def work(number: int) -> None:
        model = ScriptedModel(said, latency=0.002 * (number % 3), completion_tokens=3 + number % 5)
        judge = ScriptedModel(["0.5"], latency=0.001)
        with contextlib.suppress(BudgetExhausted):
            solve_sync(f"q{number}", model=model, verifier=Judge(judge), strategy=BestOfN(n=4), budget=ledger)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert worst[0] <= 40 and worst[1] <= 700
    assert ledger.spent.calls <= 40 and ledger.spent.tokens <= 700
    assert ledger.spent.tokens >= 700 - 2 * 15 or ledger.spent.calls >= 39  # and hardly anything is left over
    assert ledger.open_holds == 0 and ledger.held == (0, 0, 0)


async def test_loops_and_threads_at_once_on_one_account() -> None:
    ledger = Ledger(Budget(calls=30))

    def elsewhere() -> None:
        asyncio.run(many(10))

    async def many(count: int) -> None:
        ends = await asyncio.gather(
            *(
                solve("q", model=ScriptedModel(["a"], latency=0.005), strategy=SelfConsistency(n=3), budget=ledger)
                for _ in range(count)
            ),
            return_exceptions=True,
        )
        assert all(isinstance(e, BudgetExhausted) or not isinstance(e, BaseException) for e in ends)

    async with asyncio.timeout(60):
        await asyncio.gather(many(10), asyncio.to_thread(elsewhere), asyncio.to_thread(elsewhere))
    assert ledger.spent.calls == 30
    assert ledger.open_holds == 0


def nested(inner_n: int, concurrency: int | None = None) -> CallableModel:
    async def function(content: str) -> str:
        if content == "inner":
            await asyncio.sleep(0.002)
            return "#### 7"
        return (await solve("inner", model=model, strategy=SelfConsistency(n=inner_n))).text

    model = CallableModel(function, concurrency=concurrency)
    return model


@pytest.mark.parametrize("calls", [9, 8, 1])
async def test_three_by_three_nested_solves_end_on_any_budget(calls: int) -> None:
    async with asyncio.timeout(60):
        result = await solve("q", model=nested(3), strategy=SelfConsistency(n=3), budget=Budget(calls=calls))
    assert result.usage.calls <= calls
    assert result.answer == "7"
    if calls == 9:
        assert (result.usage.calls, result.stopped, len(result.candidates)) == (9, "complete", 3)


@pytest.mark.parametrize("budget", [Budget(calls=2), Budget(calls=1), None])
async def test_nested_solves_take_over_the_place_of_the_outer_call(budget: Budget | None) -> None:
    async with asyncio.timeout(60):
        result = await solve("q", model=nested(1, concurrency=1), strategy=SelfConsistency(n=2), budget=budget)
    assert result.answer == "7"
    assert result.usage.calls <= (2 if budget is None else budget.calls or 0)


async def test_solves_that_all_need_a_retry_end_without_a_deadlock() -> None:
    ledger = Ledger(Budget(calls=8))

    def flaky() -> ScriptedModel:
        return ScriptedModel([RateLimited("busy", retry_after=0.01), "a"], latency=0.005)

    async with asyncio.timeout(60):
        ends = await asyncio.gather(
            *(solve("q", model=flaky(), strategy=SelfConsistency(n=1), budget=ledger) for _ in range(8)),
            return_exceptions=True,
        )
    assert {type(e).__name__ for e in ends} <= {"Result", "BudgetExhausted"}
    assert ledger.spent.calls == 8
    assert ledger.open_holds == 0


async def test_room_is_not_kept_during_the_wait_before_a_retry() -> None:
    ledger = Ledger(Budget(calls=10))
    model, judge = ScriptedModel([ServerFailed("no", retry_after=60), "a"]), ScriptedModel(["0.5"])
    task = asyncio.create_task(solve("q", model=model, verifier=Judge(judge), strategy=BestOfN(n=1), budget=ledger))
    await until(lambda: model.requests and ledger.held == (0, 0, 0))
    assert not task.done() and len(model.requests) == 1
    task.cancel()
    await asyncio.wait([task])


async def test_waiting_for_room_ends_with_the_deadline() -> None:
    ledger, start = Ledger(Budget(calls=1)), asyncio.get_running_loop().time()
    held = ScriptedModel(["a"], latency=60)
    holder = asyncio.create_task(solve("q", model=held, strategy=SelfConsistency(n=1), budget=ledger))
    await until(lambda: held.requests)
    from tts_plugins.errors import DeadlineExceeded

    slow = CallableModel(lambda content: (current_ledger(), "a")[1])
    with pytest.raises(DeadlineExceeded):
        async with asyncio.timeout(30):

            async def outer(run: Run, problem: Problem) -> Scored:
                result = await solve("q", model=slow, strategy=SelfConsistency(n=1), budget=ledger)
                return result.best

            await solve("q", model=slow, strategy=outer, budget=Budget(seconds=0.2))
    assert asyncio.get_running_loop().time() - start < 20
    holder.cancel()
    await asyncio.wait([holder])
    assert ledger.open_holds == 0


async def test_the_usage_of_an_inner_solve_is_booked_by_what_it_was_for() -> None:
    inner = ScriptedModel(["x"])

    async def check(problem: Problem, candidate: Candidate) -> float:
        assert current_ledger() is not None
        await solve("inner", model=inner, strategy=SelfConsistency(n=2))
        return 1.0

    result = await solve("q", model=ScriptedModel(["a"]), verifier=CallableVerifier(check), strategy=BestOfN(n=3))
    assert result.usage.by_role["model"].calls == 3
    assert result.usage.by_role["verifier"].calls == 6
    assert result.usage.calls == 9


async def test_an_inner_budget_of_its_own_does_not_end_the_outer_search() -> None:
    async def check(problem: Problem, candidate: Candidate) -> float:
        if candidate.index == 0:
            tight = Budget(calls=1)
            await solve(
                "i", model=ScriptedModel(["x"]), strategy=SelfConsistency(n=2), budget=tight, on_exhausted="raise"
            )
        return 0.8

    result = await solve("q", model=ScriptedModel(["a"]), verifier=CallableVerifier(check), strategy=BestOfN(n=3))
    assert (result.stopped, [c.index for c in result.candidates]) == ("complete", [1, 2])


@pytest.mark.parametrize(
    ("limit", "shared", "end"), [(3, False, "budget"), (3, True, "budget"), (9, False, "complete")]
)
async def test_an_inner_search_that_the_outer_budget_cuts_ends_the_outer_one_by_budget(
    limit: int, shared: bool, end: str
) -> None:
    budget = Budget(calls=limit)
    inner: list[str] = []

    async def asks_again(question: str) -> str:
        found = await solve(question, model=CallableModel(lambda q: "4"), strategy=SelfConsistency(n=4))
        inner.append(found.stopped)
        return found.text

    result = await solve(
        "q", model=CallableModel(asks_again), strategy=SelfConsistency(n=1), budget=Ledger(budget) if shared else budget
    )
    assert (inner, result.stopped, result.text) == ([end], end, "4")


async def test_an_inner_solve_on_the_shared_account_draws_from_the_outer_call() -> None:
    ledger = Ledger(Budget(calls=2))

    async def function(content: str) -> str:
        return (await solve("i", model=ScriptedModel(["#### 1"]), strategy=SelfConsistency(n=1), budget=ledger)).text

    async with asyncio.timeout(60):
        result = await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=2), budget=ledger)
    assert (result.usage.calls, ledger.spent.calls, result.stopped) == (2, 2, "complete")


async def test_an_inner_account_of_another_root_pays_alone() -> None:
    own = Ledger(Budget(calls=5))

    async def function(content: str) -> str:
        return (await solve("i", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), budget=own)).text

    result = await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=1), budget=Budget(calls=1))
    assert own.spent.calls == 2
    assert result.usage.calls == 1


async def test_each_attempt_is_charged() -> None:
    model = ScriptedModel([ServerFailed("a"), RateLimited("b", retry_after=0.0), "c"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=1))
    # the reserve of the first, a call of the second, and what the third says
    assert (result.usage.requests, result.usage.calls) == (3, 3)
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (10, 20)
    assert not result.usage.exact


async def test_a_cancelled_call_is_charged_at_its_reserve() -> None:
    ledger, model = Ledger(Budget(calls=5, tokens=500)), ScriptedModel(["a"], latency=60)
    task = asyncio.create_task(solve("q", model=model, strategy=SelfConsistency(n=3), budget=ledger))
    await until(lambda: len(model.requests) == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ledger.spent.calls, ledger.spent.tokens, ledger.open_holds) == (3, 45, 0)


async def test_a_cancellation_that_is_swallowed_is_charged_and_starts_nothing_more() -> None:
    later: list[object] = []
    over, still = asyncio.Event(), 0

    async def outlasts() -> None:
        nonlocal still
        still += 1
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(over.wait(), 60)
        still -= 1

    async def stubborn(content: str) -> str:
        await outlasts()
        return "a"

    class Asking(Judge):
        async def score(self, run: Run, candidate: Candidate) -> Score:
            await outlasts()
            try:
                return await super().score(run, candidate)
            except Exception as error:
                later.append(type(error).__name__)
                raise

    ledger, judge = Ledger(Budget(calls=20)), ScriptedModel(["0.5"])
    with pytest.raises(TimeoutError):
        await solve(
            "q",
            model=CallableModel(stubborn),
            strategy=SelfConsistency(n=3),
            budget=Ledger(Budget(seconds=1), inside=ledger),
        )
    assert (ledger.spent.calls, ledger.open_holds, still) == (3, 0, 3)  # though they still run
    with pytest.raises(TimeoutError):
        await solve(
            "q", model=ScriptedModel(["a"]), verifier=Asking(judge), strategy=BestOfN(n=2),
            budget=Ledger(Budget(seconds=1), inside=ledger),
        )  # fmt: skip
    assert (ledger.open_holds, still) == (0, 5)
    over.set()
    await until(lambda: not still and len(later) == 2)
    assert set(later) <= {"DeadlineExceeded", "SolveCancelled"}
    assert (judge.requests, ledger.spent.calls, ledger.open_holds) == ([], 5, 0)


async def test_a_call_whose_usage_names_no_call_or_price_is_not_free() -> None:
    class Quiet(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
            reply = await super().generate(problem, seeds)
            return type(reply)(generations=reply.generations, usage=Usage(prompt_tokens=1, usd=None))

    ledger = Ledger(Budget(calls=3, usd=1.0))
    result = await solve("q", model=Quiet(["a"], price=0.001), strategy=SelfConsistency(n=8), budget=ledger)
    assert (result.usage.calls, len(result.candidates), result.stopped) == (3, 3, "budget")
    assert ledger.spent.usd == pytest.approx(3 * 0.015)
    assert not result.usage.exact


async def test_more_than_the_bound_is_told() -> None:
    model = ScriptedModel(["a"], completion_tokens=30, max_tokens=10)
    result = await solve("q", model=model, strategy=SelfConsistency(n=1), budget=Budget(tokens=100))
    assert (result.usage.tokens, result.usage.overshoot) == (35, 20)
    assert any(e["kind"] == "overshoot" and e["tokens"] == 20 for e in result.trace)


async def test_a_function_that_fails_after_inner_solves_is_charged_what_they_took() -> None:
    async def function(content: str) -> str:
        await solve("i", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2))
        raise ValueError("after that")

    ledger = Ledger(Budget(calls=10))
    with pytest.raises(AllCandidatesFailed, match="after that"):
        await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=2), budget=ledger)
    assert ledger.spent.calls == 4


async def test_as_many_as_the_budget_bears_may_be_asked_for() -> None:
    """Regression: a seed was made for each of them before the first was sent."""
    begun = time.monotonic()
    result = await solve("q", model=ScriptedModel(["4"]), strategy=SelfConsistency(n=10**9), budget=Budget(calls=5))
    assert (len(result.candidates), result.stopped) == (5, "budget") and time.monotonic() - begun < 30


async def test_waves_of_thousands_bring_each_candidate_once() -> None:
    result = await solve("q", model=ScriptedModel(["4"], batch=500), strategy=SelfConsistency(n=4200), seed=1)
    assert [c.index for c in result.candidates] == list(range(4200)) and len(
        {c.seed for c in result.candidates}
    ) == 4200


async def test_a_model_without_a_limit_overshoots_nothing() -> None:
    result = await solve(
        "q",
        model=CallableModel(lambda content: ("a", Usage(calls=1, prompt_tokens=5, completion_tokens=5000))),
        strategy=SelfConsistency(n=2),
        budget=Budget(calls=2),
    )
    assert (result.usage.tokens, result.usage.overshoot) == (10010, 0)
    assert not any(e["kind"] == "overshoot" for e in result.trace)


@pytest.mark.parametrize("left", [False, True])
async def test_a_request_that_never_left_costs_nothing_whatever_ended_it(left: bool) -> None:
    class Telling(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
            holding(self)
            if left:
                leaving()
            raise CallTimedOut("no complete answer in time")

    ledger = Ledger(Budget(calls=4, tokens=100))
    with pytest.raises(AllCandidatesFailed):
        await solve("q", model=Telling(["a"]), strategy=SelfConsistency(n=1), budget=ledger, attempts=1)
    assert (ledger.spent.calls, ledger.spent.tokens, ledger.open_holds) == ((1, 15, 0) if left else (0, 0, 0))


async def test_a_request_that_cannot_be_sent_is_an_error_at_once_and_costs_nothing() -> None:
    class Unsendable(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
            self.requests.append(tuple(seeds))
            raise ConfigurationError("base_url='http://h:99999': the port is out of range; use one below 65536")

    ledger, model = Ledger(Budget(calls=9)), Unsendable(["a"], limits=Limits(concurrency=1))
    with pytest.raises(ConfigurationError, match="99999"):
        await solve("q", model=model, strategy=SelfConsistency(n=4), budget=ledger)
    assert ledger.spent.calls == 0 and len(model.requests) <= 4, "nothing is tried again"
