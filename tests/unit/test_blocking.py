"""What shares a loop: a verifier that blocks it is told of, one that says so gets a thread; shortages are told too."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from tests.waiting import until
from tts_plugins import BestOfN, Budget, Problem, SelfConsistency, solve, solve_sync
from tts_plugins.budget import FREE, Bound
from tts_plugins.models import CallableModel
from tts_plugins.protocols import Run
from tts_plugins.testing import ScriptedModel
from tts_plugins.types import Candidate, Score
from tts_plugins.verifiers.grouping.named import named_answer

MODEL = CallableModel(lambda content: "The answer is 4.")


class Blocks:
    """A verifier whose coroutine blocks."""

    name = "blocks"

    def __init__(self, work: Callable[[], object], *, blocking: bool = False) -> None:
        self.work, self.blocking = work, blocking
        self.threads: set[int] = set()

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        await asyncio.sleep(0)
        self.threads.add(threading.get_ident())
        self.work()
        return Score(value=0.5)


def sleeps() -> None:
    time.sleep(0.15)


class BlocksAll:
    name = "blocks all"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        time.sleep(0.15)  # noqa: ASYNC251
        return [Score(value=0.5) for _ in candidates]


async def test_a_verifier_that_blocks_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        result = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=2), verifier=Blocks(sleeps))
        (warning,) = result.warnings
        assert warning.startswith("blocks held the event loop for ") and "blocking = True" in warning
    assert sum("blocks held the event loop" in record.message for record in caplog.records) == 1  # once is enough
    result = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=2), verifier=BlocksAll())
    assert len(result.warnings) == 1 and result.warnings[0].startswith("blocks all held the event loop")


async def test_what_it_computed_is_told_from_what_it_waited() -> None:
    result = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=1), verifier=Blocks(sleeps))
    assert "(0.0 s of them computing)" in result.warnings[0]


async def test_one_that_is_quick_or_waits_is_not() -> None:
    async def waits(problem: Problem, candidate: Candidate) -> float:
        await asyncio.sleep(0.15)
        return 0.5

    for verifier in (waits, lambda problem, candidate: time.sleep(0.15) or 0.5):
        result = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=2), verifier=verifier)
        assert result.warnings == ()


def test_one_whose_thread_starts_late_is_not() -> None:
    code = """
        import sys, threading
        from tts_plugins import BestOfN, solve_sync
        from tts_plugins.models import CallableModel

        async def said(problem):
            return "4"

        ended = threading.Event()

        def compute():
            while not ended.is_set():
                pass

        computing = threading.Thread(target=compute)
        computing.start()
        sys.setswitchinterval(0.3)  # so long does a thread wait for the interpreter's lock
        result = solve_sync("q", model=CallableModel(said), strategy=BestOfN(n=1), verifier=lambda text: 1.0)
        ended.set()
        print(result.warnings)
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(run, capture_output=True, text=True, timeout=120, check=True).stdout.strip() == "()"


async def test_one_that_says_so_gets_a_thread() -> None:
    inside, ticked = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        assert ticked.wait(60)

    verifier = Blocks(work, blocking=True)

    async def tick() -> None:
        await until(inside.is_set)
        for _ in range(5):
            await asyncio.sleep(0.001)
        ticked.set()

    ticking = asyncio.ensure_future(tick())
    result = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=4), verifier=verifier)
    await ticking
    assert result.warnings == () and result.score == 0.5 and len(result.candidates) == 4
    assert threading.get_ident() not in verifier.threads


class Slow:
    """An answer key of this package's that may take long."""

    __module__ = "tts_plugins.verifiers"
    slow = True

    def __init__(self) -> None:
        self.threads = set[int]()

    def __call__(self, text: str) -> str:
        self.threads.add(threading.get_ident())
        return text


async def test_an_answer_key_that_may_take_long_does_not_hold_the_loop() -> None:
    """Regression: a pattern that backtracks held it for two seconds a candidate."""
    key = Slow()
    result = await solve("q", model=MODEL, strategy=BestOfN(n=2), verifier=lambda text: 1.0, answer=key)
    assert result.answer and threading.get_ident() not in key.threads
    slow = [named_answer(f"regex:{pattern}", "answer").slow for pattern in ("(a+)+$", r"x=(\d+)", "ab")]  # type: ignore[attr-defined]
    assert slow == [True, True, False]


class Judges(Blocks):
    """It asks a model, from its thread."""

    def __init__(self) -> None:
        super().__init__(lambda: None, blocking=True)
        self.model = ScriptedModel(["0.75"])

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self.model.bound(problem)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        reply = await run.generate(self.model, Problem("how good?"))
        return Score(value=float(reply.generations[0].text))


async def test_its_requests_are_within_the_budget_and_in_the_trace() -> None:
    result = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=2), verifier=Judges(), budget=Budget(calls=4))
    assert result.score == 0.75 and result.usage.by_role["verifier"].calls == 2 and result.usage.calls == 4
    asked = [e for e in result.trace if e["kind"] == "request" and e["role"] == "verifier"]
    assert len(asked) == 2 and {result.trace.to_dict()["events"][e["parent"]]["kind"] for e in asked} == {"candidate"}
    short = await solve("2 + 2?", model=MODEL, strategy=BestOfN(n=2), verifier=Judges(), budget=Budget(calls=3))
    assert short.stopped == "budget" and short.usage.calls <= 3


def test_it_stalls_no_solve_of_another_thread() -> None:
    """Regression: one blocking verifier stopped the loop of all `solve_sync`, so that others missed their deadlines."""
    free = threading.Event()
    verifier = Blocks(lambda: free.wait(60), blocking=True)
    first = threading.Thread(
        target=solve_sync, args=("2 + 2?",), kwargs={"model": MODEL, "strategy": BestOfN(n=1), "verifier": verifier}
    )
    first.start()
    while not verifier.threads:
        time.sleep(0.01)
    result = solve_sync("2 + 2?", model=MODEL, strategy=SelfConsistency(n=4), budget=Budget(seconds=30))
    assert result.stopped == "complete" and first.is_alive()
    free.set()
    first.join()


@pytest.mark.parametrize(
    "error",
    [MemoryError("no more"), OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't start new thread")],
)
async def test_what_the_machine_lost_is_told(error: Exception) -> None:
    calls = 0

    def fails_at_times(content: object) -> str:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise error
        return "The answer is 4."

    result = await solve("2 + 2?", model=CallableModel(fails_at_times, concurrency=1), strategy=SelfConsistency(n=8))
    assert result.stopped == "complete" and len(result.candidates) == 4
    assert result.warnings[0].startswith("4 candidates failed, since this machine lacks something")
    assert str(error) in result.warnings[0]


async def test_what_the_model_lost_is_not() -> None:
    model = ScriptedModel(["The answer is 4.", ValueError("no")])
    result = await solve("2 + 2?", model=model, strategy=SelfConsistency(n=2))
    assert len(result.candidates) == 1 and result.warnings == ()
