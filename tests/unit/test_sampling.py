"""Sampling: scored as they arrive, stopped at any arrival, in waves, and always from the same seeds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tests.waiting import until
from tts_plugins import BestOfN, Budget, Ledger, Limits, Problem, SelfConsistency, solve
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import BudgetExhausted, ServerFailed
from tts_plugins.models import CallableModel
from tts_plugins.policies._resumed_run import SeededRun
from tts_plugins.protocols import Run
from tts_plugins.stopping import Threshold, VoteDecided
from tts_plugins.strategies.escalation import HeardRun
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Candidate, Reply, Score, Scored
from tts_plugins.verifiers import CallableVerifier


@dataclass
class StopAfter:
    """Stops when so many were seen, and says that it needs `least_` at least."""

    count: int
    least_: int = 1

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        return len(seen) >= self.count

    def least(self, seen: Sequence[Scored], left: int) -> int:
        return self.least_


@dataclass
class Sampled:
    """A strategy that samples, and keeps in which order they came."""

    n: int
    stop: Any = None
    wave: int | None = None

    def __post_init__(self) -> None:
        self.arrived: list[int] = []

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        async for candidate in run.sample(problem, self.n, stop=self.stop, wave=self.wave):
            self.arrived.append(candidate.index)
            last = candidate
        return last


# As they arrive -------------------------------------------------------------------------------------------------------


async def test_a_slow_verification_holds_no_other_up() -> None:
    async def check(problem: Problem, candidate: Candidate) -> float:
        if candidate.index == 0:
            await until(lambda: len(strategy.arrived) == 3)
        return 0.5

    strategy = Sampled(4)
    await solve("q", model=ScriptedModel(["a"]), verifier=CallableVerifier(check), strategy=strategy)
    assert len(strategy.arrived) == 4 and strategy.arrived[-1] == 0


async def test_a_slow_generation_holds_no_verification_up() -> None:
    async def slow(content: str, seed: int) -> str:
        if seeds.setdefault("first", seed) == seed:
            await until(lambda: len(strategy.arrived) == 3)
        return "a"

    seeds: dict[str, int] = {}
    strategy = Sampled(4)
    await solve("q", model=CallableModel(slow), verifier=TableVerifier({}, default=0.5), strategy=strategy)
    assert len(strategy.arrived) == 4


async def test_one_slow_server_of_many_requests_is_the_critical_path() -> None:
    generated, scored = asyncio.Barrier(16), asyncio.Barrier(16)  # nothing goes on before all 16 are there at once

    async def generate(content: str) -> str:
        await generated.wait()
        return "a"

    async def check(problem: Problem, candidate: Candidate) -> float:
        await scored.wait()
        return 0.5

    async with asyncio.timeout(60):
        result = await solve(
            "q", model=CallableModel(generate), verifier=CallableVerifier(check), strategy=BestOfN(n=16)
        )
    assert len(result.candidates) == 16


# Stop rules -----------------------------------------------------------------------------------------------------------


async def test_a_stop_rule_ends_it_at_an_arrival_and_what_is_in_flight_is_cancelled_and_charged() -> None:
    def said(problem: Problem, number: int) -> str:
        return "good" if number == 0 else "bad"

    class Uneven(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            reply = await super().generate(problem, seeds)
            await asyncio.sleep(0 if reply.generations[0].text == "good" else 60)
            return reply

    ledger = Ledger(Budget(calls=8, tokens=1000))
    before, start = len(asyncio.all_tasks()), time.monotonic()
    result = await solve(
        "q", model=Uneven(said), verifier=TableVerifier({"good": 1.0}), budget=ledger,
        strategy=BestOfN(n=4, stop=Threshold(0.9), wave=4),
    )  # fmt: skip
    assert time.monotonic() - start < 20
    assert (result.stopped, result.text, len(result.candidates)) == ("stop_rule", "good", 1)
    assert (ledger.spent.calls, ledger.spent.tokens, ledger.open_holds) == (4, 60, 0)
    assert len(asyncio.all_tasks()) == before
    assert not result.usage.exact
    (stop,) = [e for e in result.trace if e["kind"] == "stop"]
    assert (stop["seen"], stop["left"]) == (1, 3)


async def test_a_rule_that_fires_at_the_last_one_is_completeness() -> None:
    result = await solve(
        "q", model=ScriptedModel(["a"]), verifier=TableVerifier({}, default=1.0),
        strategy=BestOfN(n=1, stop=Threshold(0.9)),
    )  # fmt: skip
    assert result.stopped == "complete"


# Waves ----------------------------------------------------------------------------------------------------------------


def waves(result: Any) -> list[int]:
    return [e["n"] for e in result.trace if e["kind"] == "wave"]


@pytest.mark.parametrize(
    ("rule", "wave", "n", "sizes"),
    [
        (None, None, 20, [20]),
        (StopAfter(99), None, 20, [1, 2, 4, 8, 5]),
        (StopAfter(99, least_=3), None, 20, [3, 6, 11]),
        (StopAfter(99, least_=50), None, 20, [20]),
        (StopAfter(99), 4, 10, [4, 4, 2]),
        (StopAfter(3), None, 20, [1, 2]),
        (StopAfter(99, least_=0), None, 3, [1, 2]),
        (VoteDecided(), None, 16, [9]),
    ],
)
async def test_waves_start_at_what_the_rule_needs_and_double(
    rule: Any, wave: int | None, n: int, sizes: list[int]
) -> None:
    model = ScriptedModel(["#### 1"])
    result = await solve("q", model=model, strategy=Sampled(n, rule, wave))
    assert waves(result) == sizes
    assert len(model.requests) == sum(sizes)


# Seeds ----------------------------------------------------------------------------------------------------------------


async def seeds(seed: int | None, *, n: int = 6, **settings: Any) -> list[tuple[int | None, ...]]:
    model = ScriptedModel(["a"], **settings)
    result = await solve("q", model=model, strategy=SelfConsistency(n=n), seed=seed)
    assert [c.seed for c in result.candidates] == [c.seed for c in sorted(result.candidates, key=lambda c: c.index)]
    return sorted(model.requests)  # type: ignore[type-var]


async def test_the_same_seed_sends_the_same_requests_at_any_concurrency() -> None:
    first = await seeds(7)
    assert len({s for (s,) in first}) == 6
    assert await seeds(7) == first
    assert await seeds(7, latency=0.001, limits=Limits(concurrency=2)) == first
    assert await seeds(8) != first
    assert {s for (s,) in await seeds(None)} != {s for (s,) in await seeds(None)}


async def test_seeds_are_stable_under_n_and_retries() -> None:
    assert set(await seeds(7, n=3)) < set(await seeds(7, n=6))
    model = ScriptedModel([ServerFailed("x", retry_after=0.0), "a"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=1), seed=7)
    assert model.requests == [(result.best.seed,)] * 2


async def test_a_drawn_seed_is_told_and_repeats_the_run() -> None:
    model = ScriptedModel(["a"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=3))
    again = ScriptedModel(["a"])
    await solve("q", model=again, strategy=SelfConsistency(n=3), seed=result.seed)
    assert again.requests == model.requests
    assert all(0 <= (s or 0) < 2**31 for request in model.requests for s in request)


async def test_two_samplings_of_a_run_have_different_seeds() -> None:
    async def twice(run: Run, problem: Problem) -> Scored:
        first = [c async for c in run.sample(problem, 3)]
        second = [c async for c in run.sample(problem, 3)]
        return (first + second)[0]

    model = ScriptedModel(["a"])
    result = await solve("q", model=model, strategy=twice, seed=1)
    assert len(set(model.requests)) == 6
    assert [c.index for c in result.candidates] == [0, 1, 2, 3, 4, 5]


async def test_a_judges_seeds_belong_to_the_candidate_whatever_arrives_first() -> None:
    asked: dict[int, list[int | None]] = {}

    class Judge:
        name = "judge"

        def __init__(self, delays: Sequence[float]) -> None:
            self.delays, self.models = delays, [ScriptedModel(["0.5"]) for _ in delays]

        async def bound(self, problem: Problem, tokens: int | None) -> Bound:
            return FREE

        async def score(self, run: Run, candidate: Candidate) -> Score:
            await asyncio.sleep(self.delays[candidate.index])
            model = self.models[candidate.index]
            for _ in range(2):
                await run.generate(model, Problem(f"rate {candidate.index}"))
            asked[candidate.index] = [seeds[0] for seeds in model.requests]
            return Score(value=0.5)

    async def once(delays: Sequence[float]) -> dict[int, list[int | None]]:
        asked.clear()
        await solve("q", model=ScriptedModel(["a"]), verifier=Judge(delays), strategy=BestOfN(n=3), seed=3)
        return dict(sorted(asked.items()))

    first = await once([0.0, 0.05, 0.1])
    assert len({s for each in first.values() for s in each}) == 6
    assert await once([0.1, 0.05, 0.0]) == first


async def test_inner_solves_follow_from_the_outer_seed() -> None:
    async def run_once() -> set[tuple[int | None, ...]]:
        inner = ScriptedModel(["a"])

        async def function(content: str) -> str:
            for _ in range(2):
                await solve("inner", model=inner, strategy=SelfConsistency(n=2))
            return "b"

        await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=3), seed=5)
        assert len(set(inner.requests)) == 12
        return set(inner.requests)

    assert await run_once() == await run_once()


# Batches --------------------------------------------------------------------------------------------------------------


async def test_fewer_choices_than_asked_are_topped_up() -> None:
    class Two(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            return await super().generate(problem, seeds[:2])

    model = Two(["a"], batch=8)
    ledger = Ledger(Budget(calls=8))
    result = await solve("q", model=model, strategy=SelfConsistency(n=7), budget=ledger)
    assert len(result.candidates) == 7
    assert [len(r) for r in model.requests] == [2, 2, 2, 1]
    assert len({c.seed for c in result.candidates}) == 7
    assert ledger.spent.calls == 7


async def test_more_choices_than_asked_are_charged_and_dropped() -> None:
    class More(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            return await super().generate(problem, [*seeds, 1])

    result = await solve("q", model=More(["a"]), strategy=SelfConsistency(n=2))
    assert len(result.candidates) == 2
    assert result.usage.calls == 4


async def test_generate_brings_as_many_as_are_asked_for_where_the_model_gives_one_at_a_time() -> None:
    got: list[Reply] = []

    async def strategy(run: Run, problem: Problem) -> Scored:
        got.append(await run.generate(run.model, problem, 4))
        got.append(await run.generate(run.model, problem, 9))
        return await anext(run.sample(problem, 1))

    model = ScriptedModel(["a"])
    with pytest.raises(BudgetExhausted):  # of which the second brings fewer, and nothing is left for a sample
        await solve("q", model=model, strategy=strategy, budget=Budget(calls=6))
    assert [len(r.generations) for r in got] == [4, 2]
    assert got[0].usage is not None and got[0].usage.calls == 4
    assert len(set(model.requests)) == 6


# Strategies of others -------------------------------------------------------------------------------------------------


async def test_a_strategy_that_breaks_off_leaves_nothing_running() -> None:
    async def first(run: Run, problem: Problem) -> Scored:
        async for candidate in run.sample(problem, 8):
            return candidate
        raise AssertionError

    class Uneven(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            self._latency = 0.0 if not self.requests else 30.0
            return await super().generate(problem, seeds)

    ledger, before = Ledger(Budget(calls=20)), len(asyncio.all_tasks())
    result = await solve("q", model=Uneven(["a"]), strategy=first, budget=ledger)
    await asyncio.sleep(0.01)
    assert (len(result.candidates), result.stopped) == (1, "complete")
    assert (ledger.open_holds, ledger.spent.calls, len(asyncio.all_tasks())) == (0, 8, before)
    assert all(e["end"] is not None for e in result.trace)


@pytest.mark.parametrize("wrap", [HeardRun, lambda run: SeededRun(run, ()), lambda run: SeededRun(HeardRun(run), ())])
async def test_a_sampling_that_is_closed_early_has_nothing_in_flight_through_runs_that_wrap_it_either(
    wrap: Callable[[Run], Run],
) -> None:
    """Regression: the requests went on for some turns, beside those of the next rung."""
    active = 0

    async def answer(problem: Problem, seed: int) -> str:
        nonlocal active
        active += 1
        try:
            await asyncio.sleep(0 if active == 1 else 30)
            return "a"
        finally:
            active -= 1

    async def first(run: Run, problem: Problem) -> Scored:
        async with contextlib.aclosing(cast(Any, wrap(run).sample(problem, 4))) as found:
            chosen: Scored = await anext(found)
        assert active == 0
        return chosen

    ledger = Ledger(Budget(calls=20))
    result = await solve("q", model=CallableModel(answer), strategy=first, budget=ledger)
    assert (result.text, ledger.open_holds, ledger.spent.calls) == ("a", 0, 4)


async def test_a_strategy_that_goes_on_after_exhaustion_gets_no_more() -> None:
    async def deaf(run: Run, problem: Problem) -> Scored:
        seen: list[Scored] = []
        for _ in range(5):
            try:
                seen += [c async for c in run.sample(problem, 2)]
            except BudgetExhausted:
                continue
        return seen[0]

    model = ScriptedModel(["a"])
    result = await solve("q", model=model, strategy=deaf, budget=Budget(calls=3))
    assert (len(model.requests), len(result.candidates), result.stopped) == (3, 3, "budget")


async def test_what_ended_the_last_sampling_is_told() -> None:
    async def phases(run: Run, problem: Problem) -> Scored:
        probe = [c async for c in run.sample(problem, 4, stop=StopAfter(1))]
        rest = [c async for c in run.sample(problem, int(problem.text))]
        return (probe + rest)[-1]

    for more, stopped in (("2", "complete"), ("9", "budget")):
        result = await solve(more, model=ScriptedModel(["a"]), strategy=phases, budget=Budget(calls=6))
        assert result.stopped == stopped


async def test_samplings_at_the_same_time_keep_apart() -> None:
    async def both(run: Run, problem: Problem) -> Scored:
        async def one(n: int) -> list[int]:
            return sorted([c.index async for c in run.sample(problem, n)])

        left, right = await asyncio.gather(one(3), one(4))
        assert len(left) == 3 and len(right) == 4 and not set(left) & set(right)
        return await anext(run.sample(problem, 1))

    result = await solve("q", model=ScriptedModel(["a"], latency=0.01), strategy=both)
    assert len(result.candidates) == 8


async def test_a_run_that_has_ended_sends_nothing_more() -> None:
    kept: list[Run] = []

    async def strategy(run: Run, problem: Problem) -> Scored:
        kept.append(run)
        return await anext(run.sample(problem, 1))

    model = ScriptedModel(["a"])
    await solve("q", model=model, strategy=strategy)
    from tts_plugins.errors import SolveCancelled

    with pytest.raises(SolveCancelled):
        await kept[0].generate(model, Problem("more"))
    with pytest.raises(SolveCancelled):
        await anext(kept[0].sample(Problem("more"), 2))
    assert len(model.requests) == 1
