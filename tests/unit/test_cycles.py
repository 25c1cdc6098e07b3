"""Nothing of a solve waits for the collector of cycles: it is freed with its last use, and what it holds with it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Ledger, Problem, SelfConsistency, solve_sync
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConnectionFailed, DeadlineExceeded
from tts_plugins.models import CallableModel
from tts_plugins.stopping import Threshold
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier

COUNT = itertools.count(1)
HALF = CallableVerifier(lambda problem, candidate: 0.5, name="half")


def said(problem: Problem) -> str:
    return "The answer is 4."


async def said_later(problem: Problem) -> str:
    return "The answer is 4."


@pytest.fixture
def uncollected() -> Iterator[Callable[[], list[Any]]]:
    """Ours of what only the collector would free, of all since the test's last look."""

    def found() -> list[Any]:
        time.sleep(0.1)  # the loop's thread lets go of its task a moment after who waits has the result
        gc.collect()
        ours = [o for o in gc.garbage if type(o).__module__.startswith("tts_plugins")]
        gc.garbage.clear()
        return ours

    gc.collect()
    gc.freeze()  # what other tests have left is not looked at: it may come free at any moment
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


@pytest.mark.parametrize(
    "settings",
    [
        {"model": CallableModel(said)},
        {"model": CallableModel(said_later)},
        {"model": CallableModel(said), "budget": Budget(calls=100), "verifier": HALF},
        {"model": CallableModel(said), "budget": Ledger(Budget(calls=1000))},
        {"model": CallableModel(said), "strategy": BestOfN(n=8, stop=Threshold(0.4)), "verifier": HALF},
        {"model": CallableModel(said), "strategy": BestOfN(n=4), "verifier": AnswerAgreement()},
        {"model": CallableModel(lambda p: solve_sync(p, model=CallableModel(said)).text),
         "strategy": SelfConsistency(n=2)},
    ],
    ids=["threads", "coroutines", "verified", "shared", "stopped", "together", "nested"],
)  # fmt: skip
def test_a_solve_leaves_no_circle(uncollected: Callable[[], list[Any]], settings: dict[str, Any]) -> None:
    solve_sync("2 + 2?", **settings)  # what is made once, such as the loop
    uncollected()
    solve_sync("2 + 2?", **settings)
    assert uncollected() == []


def fails(problem: Problem) -> str:
    raise ValueError("no")


def fails_at_times(problem: Problem) -> str:
    if next(COUNT) % 3 == 0:
        raise ValueError("no")
    return "The answer is 4."


def is_away_at_times(problem: Problem) -> str:
    if next(COUNT) % 5 == 0:
        raise ConnectionFailed("away")
    return "The answer is 4."


def is_late(problem: Problem) -> str:
    time.sleep(0.05 * (next(COUNT) % 4))
    return "The answer is 4."


def is_too_late(problem: Problem) -> str:
    time.sleep(0.1)
    return "The answer is 4."


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"model": CallableModel(said), "budget": Budget(calls=3)}, None),
        ({"model": CallableModel(said), "budget": Budget(calls=3), "on_exhausted": "raise"}, BudgetExhausted),
        ({"model": CallableModel(fails_at_times)}, None),
        ({"model": CallableModel(fails)}, AllCandidatesFailed),
        ({"model": CallableModel(is_away_at_times)}, None),
        ({"model": CallableModel(is_late), "budget": Budget(seconds=0.08)}, None),
        ({"model": CallableModel(is_too_late), "budget": Budget(seconds=0.03)}, DeadlineExceeded),
    ],
    ids=["budget", "budget raised", "some fail", "all fail", "retried", "deadline", "too late"],
)
def test_nor_does_one_that_was_cut_or_failed(
    uncollected: Callable[[], list[Any]], settings: dict[str, Any], error: type[BaseException] | None
) -> None:
    """Errors refer to the frames that they passed, which must not refer to them."""

    def ended() -> None:
        # On a busy machine not even the first is in time.
        with pytest.raises(error) if error else contextlib.suppress(DeadlineExceeded):
            solve_sync("2 + 2?", **settings)

    ended()
    uncollected()
    ended()
    assert uncollected() == []


def test_an_account_is_freed_with_its_last_use(uncollected: Callable[[], list[Any]]) -> None:
    ledger = Ledger(Budget(calls=1))
    inside = Ledger(inside=ledger)
    assert inside.root is ledger and ledger.root is ledger and Ledger(inside=inside).root is ledger
    gone = [weakref.ref(ledger), weakref.ref(inside)]
    del ledger, inside
    assert [ref() for ref in gone] == [None, None]
