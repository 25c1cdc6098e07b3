"""A level of search does not wait for children that take far longer than the others, where it was told so."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.imitations import STEPS, Body, vllm
from tts_plugins import DVTS, BeamSearch, Budget, Candidate, ParticleFilter, Problem, Result, solve
from tts_plugins.budget import Bound, Limits
from tts_plugins.engine._stragglers import Stragglers, TooLate
from tts_plugins.errors import ConfigurationError, DeadlineExceeded, RequestRefused
from tts_plugins.ledger import Ledger
from tts_plugins.models import OpenAICompatibleModel, StepSettings
from tts_plugins.testing import ScriptedModel, ScriptedStepModel, TableVerifier
from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.verifiers import CallableVerifier

EVEN = CallableVerifier(lambda p, c: [0.5] * len(c.steps), inline=True, name="even")
SEARCHES: list[Any] = [
    BeamSearch(n=4, beam_width=2, max_steps=6, straggler=4.0),
    DVTS(n=8, beam_width=4, max_steps=6, straggler=4.0),
    ParticleFilter(n=4, max_steps=6, straggler=4.0),
]
SLOW = 90.0  # a third of it is what a busy machine may take


def reply(body: Body, index: int) -> Reply:
    """Every sixth seed is slow, at whatever level; some level has one."""
    return replace(vllm(body, index), latency=SLOW if index % 6 == 0 else 0.15)


async def searched(server: LoopbackServer, strategy: Any, budget: Any, **settings: Any) -> Result:
    model = OpenAICompatibleModel(
        "m",
        base_url=server.base_url,
        max_tokens=50,
        temperature=0.8,
        batch=1,
        steps=StepSettings(way="vllm"),
        **settings,
    )
    try:
        return await solve("Add 3, 4, 5", model=model, strategy=strategy, verifier=EVEN, budget=budget, seed=3)
    finally:
        await model.aclose()


@pytest.mark.parametrize("strategy", SEARCHES, ids=lambda s: s.type_name)
async def test_the_level_goes_on_and_the_late_ones_are_charged(strategy: Any) -> None:
    ledger = Ledger(Budget(calls=200, tokens=40_000))
    with LoopbackServer(reply=reply, tokenizer=True) as server:
        start = time.monotonic()
        result = await searched(server, strategy, ledger)
        assert time.monotonic() - start < SLOW / 3
        counts = await asyncio.to_thread(server.wait)
    assert [s.text for s in result.best.steps] == STEPS and result.stopped == "complete"
    late = [e for e in result.trace if e["kind"] == "straggler"]
    assert late and counts.aborted == len(late) == counts.aborted_choices
    # Each is there as a cancelled request that paid its reserve; nothing is held any more, and nothing went over.
    kinds = {e["id"]: e["kind"] for e in result.trace}
    for event in late:
        assert "4 times the median" in event["limit"] and len(event["indices"]) == 1
        assert kinds[event["parent"]] == "wave"
    gone = [e for e in result.trace if e["kind"] == "request" and e.get("error") == "CancelledError"]
    assert len(gone) == len(late) and all(e["usage"]["calls"] == 1 and e["usage"]["tokens"] > 50 for e in gone)
    assert result.usage.calls == counts.choices + counts.aborted and result.usage.overshoot == 0
    assert ledger.spent.tokens >= counts.tokens and ledger.open_holds == 0 and ledger.held == (0, 0, 0)
    assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "engine" in str(t.get_coro())]
    assert "too slow for its level" in result.trace.tree()


async def test_without_the_option_it_waits_for_all() -> None:
    def sometimes(body: Body, index: int) -> Reply:
        return replace(vllm(body, index), latency=0.5 if index % 6 == 0 else 0.02)

    with LoopbackServer(reply=sometimes) as server:
        result = await searched(server, replace(SEARCHES[0], straggler=None), None)
        assert server.counts.aborted == 0 and result.usage.calls == server.counts.choices
        assert not [e for e in result.trace if e["kind"] == "straggler"]


async def test_a_small_budget_is_kept_to_the_call() -> None:
    for calls in (3, 5, 8):
        with LoopbackServer(reply=reply) as server:
            result = await searched(server, SEARCHES[0], Budget(calls=calls))
            counts = await asyncio.to_thread(server.wait)
        assert result.usage.calls == counts.choices + counts.aborted_choices <= calls
        assert result.usage.overshoot == 0 and result.best.steps


async def test_waiting_for_a_place_is_not_straggling() -> None:
    """With one place for four, the last waits three times as long as the first took."""
    with LoopbackServer(reply=vllm, latency=0.5) as server:
        strategy = BeamSearch(n=4, beam_width=2, max_steps=1, straggler=2.5)
        result = await searched(server, strategy, None, concurrency=1)
        assert len(result.candidates) == 4 and server.counts.aborted == 0


async def test_a_late_one_frees_its_place() -> None:
    with LoopbackServer(reply=vllm, latency=lambda number: SLOW if number == 2 else 0.3) as server:
        strategy = BeamSearch(n=6, beam_width=6, max_steps=1, straggler=4.0)
        result = await searched(server, strategy, None, concurrency=2)
        assert len(result.candidates) == 5  # the other place worked on, and its own was free again


async def test_a_late_score_loses_its_child() -> None:
    class Late(TableVerifier):
        async def score(self, run: Any, candidate: Candidate) -> Any:
            await asyncio.sleep(SLOW if candidate.text == "take 2" else 0.2)
            return await super().score(run, candidate)

    start = time.monotonic()
    result = await solve(
        "?", model=ScriptedStepModel(lambda c, j: f"take {j}"), verifier=Late({}, default=[0.5]), seed=1,
        strategy=BeamSearch(n=4, beam_width=2, max_steps=1, straggler=5.0),
    )  # fmt: skip
    assert time.monotonic() - start < SLOW / 3 and len(result.candidates) == 3
    (lost,) = [e for e in result.trace if e["kind"] == "candidate" and e.get("error")]
    assert lost["text"] == "take 2" and "5 times the median of its level" in lost["error"]


class Asking(TableVerifier):
    """It thinks for a while, and then asks a model; "hang" it never decides."""

    def __init__(self, **seconds: float) -> None:
        super().__init__({}, default=[0.5])
        self.model, self.cancelled = ScriptedModel(["yes"], latency=0.01), 0
        self.seconds = {"hang": SLOW, **seconds}

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self.model.bound(problem)

    async def score(self, run: Any, candidate: Candidate) -> Any:
        try:
            await asyncio.sleep(self.seconds.get(candidate.text, self.seconds["others"]))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await run.generate(self.model, candidate.problem)
        return await super().score(run, candidate)


async def test_a_late_child_takes_no_other_of_its_text_along() -> None:
    """The fourth began the scoring that the sixth and the seventh, sent later, wait for in time.

    The limit is 1.8 * 1.26 s: the scoring ends after 3 s for the fourth, and after 1.8 s for those sent 1.2 s later.
    """
    model = ScriptedStepModel(
        lambda candidate, number: "same" if number in (3, 5, 6) else f"take {number}",
        latency=1.2,
        limits=Limits(concurrency=4),
    )
    ledger, verifier = Ledger(Budget(calls=14)), Asking(others=0.05, same=1.8)
    result = await solve(
        "?", model=model, verifier=verifier, budget=ledger, seed=1,
        strategy=BeamSearch(n=7, beam_width=7, max_steps=1, straggler=1.8),
    )  # fmt: skip
    assert sorted(c.index for c in result.candidates) == [0, 1, 2, 4, 5, 6]
    assert [e["indices"] for e in result.trace if e["kind"] == "straggler"] == [[3]]
    # Scored once, and paid once, by what the late one held.
    assert len(verifier.scored) == 5 == result.usage.by_role["verifier"].calls and verifier.cancelled == 0
    assert ledger.spent.calls == 12 and ledger.open_holds == 0 and not any(ledger.held)


async def test_a_scoring_that_nobody_waits_for_any_more_ends() -> None:
    verifier = Asking(others=0.3)
    model = ScriptedStepModel(lambda candidate, number: "hang" if number in (2, 3) else f"take {number}")
    ledger, start = Ledger(Budget(calls=50)), time.monotonic()
    result = await solve(
        "?", model=model, verifier=verifier, budget=ledger, seed=1,
        strategy=BeamSearch(n=5, beam_width=5, max_steps=1, straggler=3.0),
    )  # fmt: skip
    assert time.monotonic() - start < SLOW / 3 and sorted(c.index for c in result.candidates) == [0, 1, 4]
    assert len([e for e in result.trace if e["kind"] == "straggler"]) == 2 and verifier.cancelled == 1
    assert ledger.spent.calls == 8 and ledger.open_holds == 0 and not any(ledger.held)


class Hanging(ScriptedStepModel):
    """Some of its steps are refused, and some never come."""

    async def expand(self, candidate: Candidate, seeds: Any, *, greedy: bool = False) -> Any:
        made = await super().expand(candidate, seeds, greedy=greedy)
        text = made.generations[0].text
        await asyncio.sleep(SLOW if text == "hang" else 0.2)
        if text == "refuse":
            raise RequestRefused("too long")
        return made


@pytest.mark.parametrize(
    ("budget", "words", "there"),
    [
        (None, ["refuse", "refuse", "refuse", "hang", "take"], 1),
        (Budget(calls=5), ["a", "b", "c", "hang", "d"], 4),
        (Budget(calls=3), ["a", "refuse", "hang"], 1),
    ],
    ids=["failed", "no-room", "both"],
)
async def test_those_that_cannot_come_are_not_waited_for(budget: Any, words: list[str], there: int) -> None:
    """The half is that of the children that may still come, of five or of sixteen."""
    model = Hanging(lambda candidate, number: words[number] if number < len(words) else "more")
    width, start = 5 if budget is None else 16, time.monotonic()
    result = await solve(
        "?", model=model, verifier=TableVerifier({}, default=[0.5]), seed=1, budget=budget,
        strategy=BeamSearch(n=width, beam_width=width, max_steps=1, straggler=5.0),
    )  # fmt: skip
    assert time.monotonic() - start < SLOW / 3 and len(result.candidates) == there
    assert [e["indices"] for e in result.trace if e["kind"] == "straggler"] == [[words.index("hang")]]
    assert result.usage.calls == len(words)


async def test_waiting_for_room_counts_again_once_there_is_some() -> None:
    late = Stragglers(2.0, 4)
    late.sent([0, 1])
    late.without(2)
    late.scored(0)
    assert late.limit is not None  # one of two
    late.without(-2)
    assert late.limit is None  # and no half of four
    late.failed([1])
    late.sent([2, 3])
    late.scored(2)
    assert late.limit is not None  # two of three


async def test_its_own_work_does_not_grow_with_the_square() -> None:
    """Each score of the second half lowers the limit, which all that are open have."""
    late, children, done = Stragglers(3.0, 6000), 6000, asyncio.Event()

    async def child(index: int) -> None:
        async with late.within([index]):
            late.sent([index])
            await done.wait()

    tasks = [asyncio.ensure_future(child(index)) for index in range(children)]
    await asyncio.sleep(0.05)
    start = time.process_time()
    for index in range(children // 2):
        late.scored(index)
    first = late.limit
    for index in range(children // 2, children):
        late.waiting([index])
        late.sent([index])
        late.scored(index)
    assert first is not None and late.limit is not None and late.limit < first / 2
    assert time.process_time() - start < 1.0
    done.set()
    await asyncio.gather(*tasks)
    late.stop()


async def test_the_end_of_the_time_is_no_straggler() -> None:
    late = Stragglers(1.0, 2)
    late.sent([0, 1])
    late.scored(0)
    with pytest.raises(DeadlineExceeded):
        async with late.within([1]):
            try:
                await asyncio.sleep(SLOW)
            finally:
                raise DeadlineExceeded("the time is up")


async def test_the_median_is_that_of_all_children() -> None:
    late = Stragglers(2.0, 5)
    late.sent(range(5))
    await asyncio.sleep(0.02)
    for index in (0, 1):
        late.scored(index)
    assert late.limit is None  # two of five are not half
    await asyncio.sleep(0.05)
    late.scored(2)
    assert late.limit is not None and late.limit >= 0.14
    with pytest.raises(TooLate):
        async with late.within([3]):
            await asyncio.sleep(SLOW)
    with pytest.raises(TooLate):  # as soon as it goes on
        async with late.within([3]):
            await asyncio.sleep(SLOW)
    late.waiting([4])  # asked again from the start
    async with late.within([4]):
        late.sent([4])
    late.scored(4)


@pytest.mark.parametrize("value", [0.5, 0, True, float("inf"), float("nan"), "2"])
def test_bad_values_are_named(value: Any) -> None:
    for kind in (BeamSearch, DVTS, ParticleFilter):
        with pytest.raises(ConfigurationError, match="straggler="):
            kind(straggler=value)
