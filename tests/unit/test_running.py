"""A solve that runs is held by the engine, ends with its account in order, and says what it runs on."""

from __future__ import annotations

import asyncio
import gc
import importlib
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency, solve, solve_events, solve_many, solve_sync
from tts_plugins._calls.running_solves import is_any_on
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import CallableModel


class Slow:
    """A function whose calls wait for futures that nothing else refers to, such as those of a foreign thread."""

    def __init__(self) -> None:
        self.waiting: list[weakref.ref[asyncio.Future[str]]] = []

    async def __call__(self, content: object) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append(weakref.ref(future))
        return await future

    def answer(self) -> int:
        """Answer all calls; returns how many were still there."""
        futures = [future for ref in self.waiting if (future := ref()) is not None]
        for future in futures:
            future.set_result("The answer is 4.")
        return len(futures)


def dropped_by_a_future(make: Callable[[], Any]) -> None:
    asyncio.ensure_future(make())  # noqa: RUF006 - nobody holds it, as is tried here


def dropped_in_a_group(make: Callable[[], Any]) -> None:
    """Its limit is never reached: a collection takes seconds in a process that has run thousands of tests."""
    asyncio.ensure_future(asyncio.wait_for(asyncio.gather(make()), 24 * 3600))  # noqa: RUF006


@pytest.fixture
def _small_heap() -> Iterator[None]:
    """Have the collector look only at what this test makes, and not at all that the tests before it left loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_small_heap")
@pytest.mark.parametrize("drop", [dropped_by_a_future, dropped_in_a_group])
async def test_a_solve_that_nobody_holds_runs_to_its_end(drop: Callable[[Callable[[], Any]], None]) -> None:
    """Regression: 80 of 96 solves behind dropped futures were collected in mid-run, after their calls were paid."""
    slow, ledger = Slow(), Ledger(Budget(calls=1000))
    for _ in range(24):
        drop(lambda: solve("2 + 2?", model=CallableModel(slow), strategy=SelfConsistency(n=4), budget=ledger))
    for _ in range(20):
        await asyncio.sleep(0)
        gc.collect()
    assert len(slow.waiting) == 96 and slow.answer() == 96
    for _ in range(100):
        await asyncio.sleep(0)
    assert ledger.spent.calls == 96 and ledger.open_holds == 0
    assert not is_any_on(asyncio.get_running_loop())


@pytest.mark.usefixtures("_small_heap")
async def test_events_that_nobody_reads_any_more_do_not_end_the_solve() -> None:
    slow, ledger = Slow(), Ledger(Budget(calls=10))
    events = solve_events("2 + 2?", model=CallableModel(slow), strategy=SelfConsistency(n=2), budget=ledger)
    async for _ in events:
        break
    del events
    for _ in range(10):
        await asyncio.sleep(0)
        gc.collect()
    assert slow.answer() == 2
    for _ in range(20):
        await asyncio.sleep(0)
    assert ledger.spent.calls == 2 and ledger.open_holds == 0


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_what_is_cancelled_from_outside_is_settled(times: int) -> None:
    """However often, and wherever the second one hits it."""
    ledger, slow = Ledger(Budget(calls=100)), Slow()
    task = asyncio.ensure_future(
        solve("2 + 2?", model=CallableModel(slow), strategy=SelfConsistency(n=80), budget=ledger)
    )
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(slow.waiting) == 80
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(200):
        await asyncio.sleep(0)
    assert ledger.open_holds == 0 and ledger.spent.calls == 80  # what was sent may have been worked on


async def test_a_coroutine_that_is_closed_in_mid_run_is_settled() -> None:
    """What a framework does that drops a task for good; nothing can be awaited any more."""
    ledger, slow = Ledger(Budget(calls=100)), Slow()
    coroutine = solve("2 + 2?", model=CallableModel(slow), strategy=BestOfN(n=4), verifier=lambda o: 1, budget=ledger)

    async def drive() -> None:
        coroutine.send(None)

    await asyncio.ensure_future(drive())
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(slow.waiting) == 4
    coroutine.close()
    assert ledger.spent.calls == 4
    await asyncio.sleep(0.05)
    assert ledger.open_holds == 0


_CLOSED = """
import asyncio, logging
from tts_plugins import SelfConsistency, solve
from tts_plugins._calls.running_solves import is_any_on
from tts_plugins.models import CallableModel
logging.disable()  # asyncio says of each task that it is destroyed while it waits, as it should

async def never(content):
    await asyncio.Event().wait()

loop = asyncio.new_event_loop()
loop.create_task(solve("2 + 2?", model=CallableModel(never), strategy=SelfConsistency(n=2)))
loop.call_later(0.05, loop.stop)
loop.run_forever()
print(is_any_on(loop))
loop.close()
asyncio.run(solve("2 + 2?", model=CallableModel(lambda content: "4"), strategy=SelfConsistency(n=1)))
print(is_any_on(loop))
"""


def test_a_closed_loop_s_solves_are_let_go() -> None:
    done = subprocess.run([sys.executable, "-c", _CLOSED], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["True", "False"])


_CLOSED_AT_A_REPLY = """
import asyncio, logging
from tts_plugins import Budget, Ledger, SelfConsistency, solve
from tts_plugins.models import CallableModel
logging.disable()
waiting, ledger = [], Ledger(Budget(tokens=100_000))

async def answers(content):
    waiting.append(asyncio.get_running_loop().create_future())
    return await waiting[-1]

def reply_and_stop():
    if len(waiting) < 4:
        loop.call_later(0.01, reply_and_stop)
        return
    for future in waiting:
        future.set_result("4")  # what waits for it is to run, and never does
    loop.stop()

loop = asyncio.new_event_loop()
model = CallableModel(answers, max_tokens=500)
solves = [loop.create_task(solve("?", model=model, strategy=SelfConsistency(n=n), budget=ledger)) for n in (1, 3)]
loop.call_soon(reply_and_stop)
loop.run_forever()
loop.close()
asyncio.run(solve("?", model=CallableModel(lambda content: "4"), strategy=SelfConsistency(n=1)))
print(ledger.spent.calls, ledger.spent.tokens >= 4 * 500, ledger.open_holds)
"""


def test_a_loop_that_closes_as_replies_come_is_charged_for_them() -> None:
    """Regression: the next solve failed ("a hold is settled once"), nothing was charged, and the rest stayed held."""
    done = subprocess.run([sys.executable, "-c", _CLOSED_AT_A_REPLY], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["4", "True", "0"]), done.stderr


MODEL = CallableModel(lambda content: "The answer is 4.")


@pytest.mark.parametrize(
    "make",
    [
        lambda: solve("2 + 2?", model=MODEL),
        lambda: solve_many(["2 + 2?"], model=MODEL),
        lambda: solve_events("2 + 2?", model=MODEL).wait(),
    ],
    ids=["solve", "solve_many", "solve_events"],
)
def test_without_a_loop_of_asyncio_there_is_a_sentence(make: Callable[[], Any]) -> None:
    """Driven by hand, as trio or curio would."""
    coroutine = make()
    with pytest.raises(ConfigurationError, match=r"asyncio event loop.*trio.*solve_sync"):
        coroutine.send(None)


def test_under_trio_solve_sync_works_and_solve_says_so() -> None:
    trio: Any = pytest.importorskip("trio")

    async def main() -> str:
        with pytest.raises(ConfigurationError, match="trio"):
            await solve("2 + 2?", model=MODEL)
        result = await importlib.import_module("trio").to_thread.run_sync(lambda: solve_sync("2 + 2?", model=MODEL))
        return str(result.answer)

    assert trio.run(main) == "4"
