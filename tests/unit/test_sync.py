"""`solve_sync`: on any thread, inside running loops, nested in itself, interrupted; and the threads below it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from tests.waiting import block_until, until
from tts_plugins import BestOfN, Budget, Ledger, Problem, SelfConsistency, solve, solve_sync
from tts_plugins._concurrency.loop_threads import submit
from tts_plugins._concurrency.sync_calls import run_sync
from tts_plugins._internal.threads import call_user, in_thread, on_engine_loop
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, RequestRefused, SolveCancelled
from tts_plugins.models import CallableModel
from tts_plugins.stopping import Threshold
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Candidate, Reply
from tts_plugins.verifiers import CallableVerifier

MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")


def one(text: str = "q", **settings: Any) -> str:
    return solve_sync(text, model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), **settings).text


def test_from_a_plain_thread() -> None:
    assert one() == "a"


async def test_inside_a_running_loop() -> None:
    assert one() == "a"


def test_errors_come_through() -> None:
    with pytest.raises(AllCandidatesFailed, match="no"):
        solve_sync("q", model=ScriptedModel([RequestRefused("no")]), strategy=SelfConsistency(n=1))
    with pytest.raises(ConfigurationError):
        solve_sync("", model=ScriptedModel(["a"]))


def test_from_eight_threads_at_once() -> None:
    class Together(ScriptedModel):
        """Answers nothing before all are there."""

        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            arrived.append(seeds)
            await until(lambda: len(arrived) == 32)
            return await super().generate(problem, seeds)

    arrived: list[Any] = []
    model, ledger = Together(["a"]), Ledger(Budget(calls=32))
    ends: list[Any] = []

    def work() -> None:
        ends.append(solve_sync("q", model=model, strategy=SelfConsistency(n=4), budget=ledger))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [e.stopped for e in ends] == ["complete"] * 8
    assert (len(arrived), ledger.spent.calls, ledger.open_holds) == (32, 32, 0)


# Nested ---------------------------------------------------------------------------------------------------------------


def sync_check(problem: Problem, candidate: Candidate) -> float:
    return 1.0 if one("inner") == "a" else 0.0


async def blocking_check(problem: Problem, candidate: Candidate) -> float:
    return sync_check(problem, candidate)  # what one should not do, and what people do


async def deeply(problem: Problem, candidate: Candidate) -> float:
    def model_in_thread(content: str) -> str:
        async def innermost(content: str) -> str:
            await asyncio.sleep(0)
            return "a"

        return solve_sync("2", model=CallableModel(innermost), strategy=SelfConsistency(n=2)).text

    solve_sync("1", model=CallableModel(model_in_thread), strategy=SelfConsistency(n=2))
    return 1.0


@pytest.mark.parametrize("check", [sync_check, blocking_check, deeply])
@pytest.mark.parametrize("inside", ["thread", "loop"])
def test_nested_in_verifiers_it_ends(check: Any, inside: str) -> None:
    def work() -> None:
        settings: dict[str, Any] = {
            "model": ScriptedModel(["a"]), "verifier": CallableVerifier(check), "strategy": BestOfN(n=3),
            "budget": Budget(calls=200),
        }  # fmt: skip
        ends.append(solve_sync("q", **settings) if inside == "thread" else asyncio.run(solve("q", **settings)))

    ends: list[Any] = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=15)
    assert [e.score for e in ends] == [1.0]
    assert ends[0].usage.by_role["model"].calls == 3
    assert ends[0].usage.by_role["verifier"].calls in (6, 12)


def test_nested_in_models_on_a_budget_that_fits() -> None:
    def function(content: str) -> str:
        return solve_sync("inner", model=ScriptedModel(["#### 1"]), strategy=SelfConsistency(n=3)).text

    result = solve_sync("q", model=CallableModel(function), strategy=SelfConsistency(n=3), budget=Budget(calls=9))
    assert (result.answer, result.usage.calls, result.stopped) == ("1", 9, "complete")


def test_nothing_is_begun_inside_a_candidate_that_has_ended() -> None:
    ended, reported = threading.Event(), list[BaseException]()
    inner, ledger = ScriptedModel(["#### 1"]), Ledger(Budget(calls=20))

    def function(content: str, seed: int) -> str:
        if not started.acquire(blocking=False):
            ended.wait(60)  # the stop rule has ended the search by then
            try:
                solve_sync("inner", model=inner, strategy=SelfConsistency(n=2))
            except BaseException as error:
                reported.append(error)
                raise
        return "#### 1"

    started = threading.Semaphore(1)
    result = solve_sync(
        "q", model=CallableModel(function), strategy=BestOfN(n=3, stop=Threshold(0.9), wave=3),
        verifier=lambda text: 1.0,
        budget=ledger,
    )  # fmt: skip
    assert result.stopped == "stop_rule"
    before = ledger.spent
    ended.set()
    deadline = time.monotonic() + 60
    while len(reported) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [type(error) for error in reported] == [SolveCancelled] * 2 and "has ended" in str(reported[0])
    assert inner.requests == [] and ledger.spent == before


# Where code runs ------------------------------------------------------------------------------------------------------


def test_functions_of_the_user_do_not_run_on_the_engines_loop() -> None:
    where: dict[str, list[tuple[int, bool]]] = {}

    async def generate(content: str) -> str:
        where.setdefault("model", []).append((threading.get_ident(), on_engine_loop()))
        return "#### 1"

    async def check(problem: Problem, candidate: Candidate) -> float:
        where.setdefault("verifier", []).append((threading.get_ident(), on_engine_loop()))
        return 1.0

    def key(text: str) -> str:
        where.setdefault("answer", []).append((threading.get_ident(), False))
        return text

    class Engine(ScriptedModel):
        async def bound(self, problem: Problem) -> Any:
            where.setdefault("engine", []).append((threading.get_ident(), on_engine_loop()))
            return await super().bound(problem)

    solve_sync("q", model=Engine(["a"]), strategy=SelfConsistency(n=1))
    solve_sync("q", model=CallableModel(generate), verifier=CallableVerifier(check), strategy=BestOfN(n=2), answer=key)
    ((engine, on_it),) = where.pop("engine")
    assert on_it
    assert all(ident != engine and not on for places in where.values() for ident, on in places)
    assert threading.get_ident() not in {i for places in where.values() for i, _ in places}


def test_a_blocked_user_function_does_not_hold_up_others() -> None:
    entered, free = threading.Event(), threading.Event()

    async def blocked(content: str) -> str:
        entered.set()
        free.wait(60)  # what one should not do
        return "a"

    thread = threading.Thread(
        target=solve_sync, args=("q",), kwargs={"model": CallableModel(blocked), "strategy": SelfConsistency(n=1)}
    )
    thread.start()
    assert entered.wait(60)
    assert one() == "a"
    assert thread.is_alive() and not free.is_set()
    free.set()
    thread.join()


def test_context_variables_reach_what_runs_elsewhere() -> None:
    async def generate(content: str) -> str:
        return MARK.get()

    MARK.set("m1")
    assert solve_sync("q", model=CallableModel(generate), strategy=SelfConsistency(n=1)).text == "m1"
    assert solve_sync("q", model=CallableModel(lambda content: MARK.get()), strategy=SelfConsistency(n=1)).text == "m1"


async def test_a_thread_for_each_that_is_needed_and_the_idle_ones_again() -> None:
    for _ in range(3):  # later the threads are idle, and are woken one after the other
        together = threading.Barrier(40)
        idents = await asyncio.gather(
            *(in_thread(lambda: (together.wait(60), threading.get_ident())[1]) for _ in range(40))  # noqa: B023
        )
        assert len(set(idents)) == 40
    assert await in_thread(threading.get_ident) in idents


async def test_quick_functions_that_share_a_thread_do_not_keep_slow_ones_from_having_one_each() -> None:
    for _ in range(5):
        await asyncio.gather(*(in_thread(int) for _ in range(200)))
        together = threading.Barrier(40)
        await asyncio.gather(*(in_thread(together.wait, 60) for _ in range(40)))


def test_a_loop_that_ends_leaves_no_function_of_another_loop_in_the_queue() -> None:
    async def quick() -> None:
        await asyncio.gather(*(in_thread(int) for _ in range(200)))

    async def queued() -> list[asyncio.Task[bool]]:
        held = [asyncio.ensure_future(in_thread(go_on.wait, 60)) for _ in range(2)]
        await asyncio.sleep(0)
        return held

    asyncio.run(quick())
    go_on = threading.Event()
    first = asyncio.new_event_loop()
    try:
        held = first.run_until_complete(queued())  # this loop looks after the queue, and stands still from here on
        assert asyncio.run(in_thread(lambda: "not kept waiting")) == "not kept waiting"
        assert not go_on.is_set()
    finally:
        go_on.set()
        first.run_until_complete(asyncio.gather(*held))
        first.close()


def test_no_function_is_forgotten_that_comes_while_a_thread_becomes_idle() -> None:
    async def many() -> int:
        return sum([sum(await asyncio.gather(*(in_thread(int, i % 2) for i in range(2 * n)))) for n in range(60)])

    loops = [threading.Thread(target=lambda: counts.append(asyncio.run(many())), daemon=True) for _ in range(4)]
    counts: list[int] = []
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(60)
    assert counts == [sum(range(60))] * 4


async def test_any_kind_of_function_can_be_called() -> None:
    class Sync:
        def __call__(self, x: int) -> int:
            return x + 1

    class Async:
        async def __call__(self, x: int) -> int:
            return x + 1

    async def later(x: int) -> int:
        return x + 1

    import functools

    for function in (Sync(), Async(), later, functools.partial(later), lambda x: later(x), lambda x: x + 1):
        assert await call_user(function, 1) == 2


def test_what_a_thread_delivers_to_a_closed_loop_is_dropped() -> None:
    async def start() -> None:
        asyncio.ensure_future(in_thread(time.sleep, 0.2))  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0.01)

    asyncio.run(start())
    time.sleep(0.3)  # the thread ends; an error there would be a warning
    assert one() == "a"


def test_what_comes_late_keeps_no_closed_loop_alive() -> None:
    def loop_that_ends() -> weakref.ref[asyncio.AbstractEventLoop]:
        async def start() -> None:
            for _ in range(3):
                asyncio.ensure_future(in_thread(time.sleep, 0.1))  # noqa: RUF006 - left behind on purpose
            await asyncio.sleep(0.01)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(start())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        time.sleep(0.3)  # they have ended, and nobody was there to be told
        loop.close()
        return weakref.ref(loop)

    left = loop_that_ends()
    block_until(lambda: gc.collect() >= 0 and left() is None)


def test_a_coroutine_for_a_loop_that_ends_first_is_never_made() -> None:
    made: list[int] = []

    async def work() -> None: ...

    def making() -> Coroutine[Any, Any, None]:
        made.append(1)
        return work()

    loop = asyncio.new_event_loop()
    sent = submit(loop, making)
    loop.close()
    gc.collect()  # a coroutine that nobody awaited would be a warning, and so an error, here
    assert made == [] and not sent.done()
    with pytest.raises(RuntimeError, match="closed"):
        submit(loop, making)


def test_no_wake_up_is_lost() -> None:
    async def many(name: str) -> list[str]:
        return await asyncio.gather(*(in_thread(f"{name}{i}".upper) for i in range(500)))

    def work(name: str) -> None:
        ends[name] = [asyncio.run(many(name)) for _ in range(2)]

    ends: dict[str, Any] = {}
    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert ends == {name: [[f"{name.upper()}{i}" for i in range(500)]] * 2 for name in "abc"}


async def test_an_error_without_a_text_ends_who_waits_and_holds_up_nobody_else() -> None:
    class Untold(BaseException):
        def __str__(self) -> str:
            raise ValueError("no text")

    def fail() -> None:
        raise Untold

    first, second = await asyncio.wait_for(
        asyncio.gather(in_thread(fail), in_thread(lambda: "here"), return_exceptions=True), 60
    )
    assert second == "here" and isinstance(first, RuntimeError)
    assert str(first) == "the function raised Untold: (its text cannot be read: ValueError)"


# Interrupted ----------------------------------------------------------------------------------------------------------


def test_an_interrupt_stops_and_settles_what_runs() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    ledger, model = Ledger(Budget(calls=10)), ScriptedModel(["a"], latency=60)

    def interrupt() -> None:
        block_until(lambda: len(model.requests) == 3)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        solve_sync("q", model=model, strategy=SelfConsistency(n=3), budget=ledger)
    assert time.monotonic() - start < 30  # of the 60 that the model takes
    assert (ledger.open_holds, ledger.spent.calls) == (0, 3)
    interrupting.join()
    signal.signal(signal.SIGINT, before)


class Interrupting(ScriptedModel):
    """Interrupts the program once three are in flight: its main thread may not even have begun to wait by then."""

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        if len(self.requests) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return await super().generate(problem, seeds)


def test_an_interrupt_at_any_moment_stops_and_settles_what_runs() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(300):
        ledger = Ledger(Budget(calls=10))
        with pytest.raises(KeyboardInterrupt):
            solve_sync("q", model=Interrupting(["a"], latency=60), strategy=SelfConsistency(n=3), budget=ledger)
        assert ledger.open_holds == 0
    signal.signal(signal.SIGINT, before)


SCRIPT = """
import os, sys, time, threading
from tts_plugins import Budget, SelfConsistency, solve_sync
from tts_plugins.models import CallableModel
from tts_plugins.testing import ScriptedModel

async def later(content):
    return "a"

def one():
    settings = {"strategy": SelfConsistency(n=2), "budget": Budget(seconds=5)}
    first = solve_sync("q", model=CallableModel(lambda content: "a"), **settings)
    return first.text + solve_sync("q", model=CallableModel(later), strategy=SelfConsistency(n=2)).text
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + code], capture_output=True, text=True, timeout=200, check=False, env=os.environ
    )


def test_the_interpreter_ends_at_once_and_without_a_word_whatever_still_runs() -> None:
    ended = python(  # in far less than the code sleeps
        "assert one() == 'aa'\n"
        "hung = CallableModel(lambda content: time.sleep(600))\n"
        "try:\n    solve_sync('q', model=hung, strategy=SelfConsistency(n=2), budget=Budget(seconds=0.1))\n"
        "except TimeoutError:\n    print('ok')\n"
        "bg = {'model': ScriptedModel(['a'], latency=600), 'strategy': SelfConsistency(n=2)}\n"
        "threading.Thread(target=solve_sync, args=('q',), kwargs=bg, daemon=True).start()\n"
        "while len(bg['model'].requests) < 2: time.sleep(0.01)\n"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ok\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    ended = python(
        "import warnings; warnings.simplefilter('ignore')\n"
        "assert one() == 'aa'\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    os._exit(0 if one() == 'aa' else 1)\n"
        "for _ in range(400):\n"
        "    done, status = os.waitpid(pid, os.WNOHANG)\n"
        "    if done: print(os.waitstatus_to_exitcode(status)); break\n"
        "    time.sleep(0.1)\n"
        "else:\n    os.kill(pid, 9); print('hung')\n"
        "assert one() == 'aa'\n"
    )
    assert (ended.stdout, ended.stderr) == ("0\n", "")


def test_run_sync_from_a_thread_of_the_user_loop_gets_a_loop_of_its_own() -> None:
    async def outer(content: str) -> str:
        async def inner() -> bool:
            return on_engine_loop()

        return str(run_sync(inner))

    assert solve_sync("q", model=CallableModel(outer), strategy=SelfConsistency(n=1)).text == "False"


def test_the_table_verifier_serves_in_synchronous_use() -> None:
    result = solve_sync("q", model=ScriptedModel(["a"]), verifier=TableVerifier({}, default=0.3), strategy=BestOfN(n=1))
    assert result.score == 0.3


async def test_a_misspelt_argument_is_an_error_at_once() -> None:
    """Regression: nobody told the waiting thread, and it waited for ever."""
    wrong: Any = {"budgett": Budget(calls=1)}
    with pytest.raises(TypeError, match="budgett"):
        await asyncio.wait_for(in_thread(lambda: solve_sync("q", model=ScriptedModel(["4"]), **wrong)), 10)
