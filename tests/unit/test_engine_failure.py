"""What fails: one candidate costs that candidate, garbage is an error, and the time limit holds whatever hangs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.waiting import until
from tts_plugins import BestOfN, Budget, Ledger, Limits, Problem, Revision, SelfConsistency, Usage, solve, solve_sync
from tts_plugins.budget import FREE, Bound
from tts_plugins.engine._scoring import scored_by
from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    CallTimedOut,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidScore,
    ModelNotFound,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    ServerFailed,
    TTSError,
    VerifierError,
)
from tts_plugins.models import CallableModel
from tts_plugins.protocols import Run
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Candidate, Generation, Reply, Score, Scored, Step
from tts_plugins.verifiers import CallableVerifier

REFUSED = RequestRefused("400, no")


class Raw:
    """A verifier of somebody else, that gives whatever it is told to."""

    name = "raw"

    def __init__(self, *given: Any) -> None:
        self._given = given

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Any:
        given = self._given[candidate.index % len(self._given)]
        if isinstance(given, BaseException):
            raise given
        return given


class RawSet:
    """The same for all candidates at once."""

    name = "rawset"

    def __init__(self, given: Any) -> None:
        self._given = given

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Any:
        if isinstance(self._given, BaseException):
            raise self._given
        return self._given


# Candidates -------------------------------------------------------------------------------------------------------


async def test_one_failure_loses_one_candidate_and_stands_in_the_trace() -> None:
    model = ScriptedModel(["#### 1", REFUSED, "#### 1", "#### 2"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=4))
    assert (result.answer, len(result.candidates), result.stopped) == ("1", 3, "complete")
    failures = [e for e in result.trace if e["kind"] == "failure"]
    assert [e["error"] for e in failures] == ["RequestRefused: 400, no"]
    assert not failures[0]["retryable"]


async def test_all_failed_names_the_first_cause() -> None:
    model = ScriptedModel([REFUSED, RequestRefused("another")])
    with pytest.raises(AllCandidatesFailed, match=r"all 3 candidates failed.*RequestRefused: 400, no") as caught:
        await solve("q", model=model, strategy=SelfConsistency(n=3))
    assert caught.value.__cause__ is REFUSED
    assert len(caught.value.errors) == 3


@pytest.mark.parametrize("error", [AuthenticationFailed("401"), ModelNotFound("404"), ConfigurationError("no such")])
async def test_what_no_other_candidate_can_escape_ends_it_at_once(error: Exception) -> None:
    model = ScriptedModel([error, *["a"] * 7], latency=0.01, limits=Limits(concurrency=1))
    with pytest.raises(type(error), match=str(error)):
        await solve("q", model=model, strategy=SelfConsistency(n=8))
    assert len(model.requests) <= 2


async def test_a_fatal_error_after_a_candidate_costs_no_answer() -> None:
    model = ScriptedModel(["#### 5", AuthenticationFailed("401")], limits=Limits(concurrency=1))
    result = await solve("q", model=model, strategy=SelfConsistency(n=8))
    assert result.answer == "5" and len(model.requests) <= 3 and result.usage.calls <= 3
    assert (result.stopped, result.warnings) == ("error", ("it went no further: AuthenticationFailed: 401",))
    ends = [e["error"] for e in result.trace if e["kind"] == "search_ended"]
    assert ends == ["AuthenticationFailed: 401"] and "no further candidate could escape" in result.trace.tree()


@pytest.mark.parametrize("strategy", [Revision(chains=1, rounds=4), Revision(rounds=3, chains=2), BestOfN(n=8, wave=1)])
async def test_a_fatal_error_of_a_later_round_leaves_the_best_so_far(strategy: Any) -> None:
    asked = list[int]()

    async def answer(*_: Any) -> str:
        asked.append(1)
        if len(asked) > 2:
            raise QuotaExhausted("402")
        return f"Attempt {len(asked)}.\n#### 5"

    model = CallableModel(answer, revise=answer, concurrency=1)
    result = await solve("q", model=model, strategy=strategy, verifier=CallableVerifier(lambda c: 0.5))
    assert result.answer == "5" and result.stopped == "error" and len(asked) <= 4
    assert result.warnings == ("it went no further: QuotaExhausted: 402",)


async def test_a_model_that_failed_for_good_is_not_asked_by_a_later_sampling() -> None:
    class Twice(SelfConsistency):
        async def __call__(self, run: Any, problem: Any) -> Any:
            first = [c async for c in run.sample(problem, 4, wave=1)]
            with pytest.raises(AuthenticationFailed):
                [c async for c in run.sample(problem, 4)]
            other = [c async for c in run.sample(problem, 1, model=ScriptedModel(["#### 6"]))]
            return max([*first, *other], key=lambda c: c.answer)

    model = ScriptedModel(["#### 5", AuthenticationFailed("401"), "#### 5"], limits=Limits(concurrency=1))
    result = await solve("q", model=model, strategy=Twice(n=1))
    assert result.answer == "6" and len(model.requests) == 2 and result.stopped == "error"


async def test_a_judge_without_a_key_ends_the_search_with_what_was_scored() -> None:
    class Judge(TableVerifier):
        async def score(self, run: Any, candidate: Any) -> Any:
            if candidate.index:
                raise AuthenticationFailed("judge: 401")
            return await super().score(run, candidate)

    model = ScriptedModel(["#### 5"], limits=Limits(concurrency=1))
    result = await solve("q", model=model, strategy=BestOfN(n=8, wave=1), verifier=Judge({"#### 5": 0.5}))
    assert result.stopped == "error" and result.score == 0.5 and len(model.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "text",
        Reply(generations=("text",), usage=None),  # type: ignore[arg-type]
        Reply(generations=(Generation(text=None),), usage=None),  # type: ignore[arg-type]
    ],
)
async def test_a_model_that_returns_no_reply_is_named(reply: Any) -> None:
    class Broken(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
            return reply

    async with asyncio.timeout(60):
        with pytest.raises(AllCandidatesFailed, match=r"scripted returned .*a model returns a Reply of Generations"):
            await solve("q", model=Broken(["a"]), strategy=SelfConsistency(n=2))


async def test_empty_replies_do_not_go_round_forever() -> None:
    class Empty(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            await super().generate(problem, seeds)
            return Reply(generations=(), usage=Usage(calls=1))

    model = Empty(["a"])
    async with asyncio.timeout(60):
        with pytest.raises(AllCandidatesFailed, match="no generation for 1 seeds"):
            await solve("q", model=model, strategy=SelfConsistency(n=1), attempts=2)
    assert len(model.requests) == 2


async def test_models_that_are_neither_hashable_nor_weakly_referable_serve() -> None:
    @dataclass
    class Unhashable:
        name: str = "u"
        limits: Limits = field(default_factory=lambda: Limits(concurrency=2))
        batch: int = 1

        async def bound(self, problem: Problem) -> Bound:
            return Bound()

        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            return Reply(generations=(Generation(text="x"),), usage=None)

    class Slotted:
        __slots__ = ("batch", "limits", "name")
        bound, generate = Unhashable.bound, Unhashable.generate

        def __init__(self) -> None:
            self.name, self.limits, self.batch = "s", Limits(concurrency=2), 1

    for model in (Unhashable(), Slotted()):
        result = await solve("q", model=model, strategy=SelfConsistency(n=3))
        assert len(result.candidates) == 3


# Code of the user that goes its own ways -----------------------------------------------------------------------------


async def cancels(*_: Any) -> float:
    raise asyncio.CancelledError


async def cancels_within(*_: Any) -> float:
    task = asyncio.ensure_future(asyncio.sleep(1))
    task.cancel()
    await task
    return 1.0


async def leaves(*_: Any) -> float:
    raise GeneratorExit


def exits(*_: Any) -> float:
    sys.exit(3)


def stops(*_: Any) -> float:
    raise StopIteration


def raises(*_: Any) -> float:
    raise ValueError("bad\nluck")


class Outcome(BaseException):
    """As test frameworks have, for what no `except Exception` is to stop."""


def fails(*_: Any) -> float:
    raise Outcome("failed")


@pytest.mark.parametrize("code", [cancels, cancels_within, exits, stops, raises, fails, leaves])
async def test_whatever_a_verifier_raises_costs_its_candidate(code: Any) -> None:
    async def check(problem: Problem, candidate: Candidate) -> float:
        if candidate.index != 1:
            result = code()
            return float(await result if asyncio.iscoroutine(result) else result)
        return 0.9

    def check_in_thread(problem: Problem, candidate: Candidate) -> Any:
        return 0.9 if candidate.index == 1 else code()

    chosen = check_in_thread if code is exits else check
    async with asyncio.timeout(60):
        result = await solve("q", model=ScriptedModel(["a"]), verifier=CallableVerifier(chosen), strategy=BestOfN(n=3))
    assert [c.index for c in result.candidates] == [1]
    errors = [e["error"] for e in result.trace if e["kind"] == "candidate" and "error" in e]
    assert len(errors) == 2 and all(e.startswith("VerifierError: ") and "\n" not in e for e in errors)


@pytest.mark.parametrize("code", [cancels, cancels_within, exits, stops, raises, fails, leaves])
async def test_whatever_a_models_function_raises_costs_its_candidate(code: Any) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(AllCandidatesFailed, match="UserCodeFailed") as caught:
            await solve("q", model=CallableModel(code), strategy=SelfConsistency(n=2))
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize("code", [cancels, exits, leaves])
def test_the_same_in_synchronous_use_leaves_the_shared_loops_alive(code: Any) -> None:
    async def exits_async(*_: Any) -> float:
        sys.exit(4)

    for function in (code, exits_async):
        with pytest.raises(AllCandidatesFailed):
            solve_sync("q", model=CallableModel(function), strategy=SelfConsistency(n=2), budget=Budget(seconds=5))
    assert solve_sync("q", model=CallableModel(lambda content: "a"), strategy=SelfConsistency(n=2)).text == "a"


def test_a_model_class_that_exits_on_the_shared_loop_leaves_it_alive() -> None:
    class Exits(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            sys.exit(5)

    with pytest.raises(SystemExit):
        solve_sync("q", model=Exits(["a"]), strategy=SelfConsistency(n=2), budget=Budget(seconds=5))
    assert solve_sync("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2)).text == "a"


async def test_an_answer_key_that_fails_says_so() -> None:
    def key(text: str) -> str:
        raise KeyError("group")

    with pytest.raises(AllCandidatesFailed, match="answer: the key function failed, KeyError"):
        await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), answer=key)


# Scores -------------------------------------------------------------------------------------------------------------

GARBAGE = [float("nan"), float("inf"), -0.1, 1.1, "7/10", None, [], b"1", {}, object(), [0.5, float("nan")], [0.5, 2]]


@pytest.mark.parametrize("given", GARBAGE, ids=repr)
async def test_garbage_is_an_error_of_that_score_never_a_number(given: Any) -> None:
    verifier = CallableVerifier(lambda p, c: given if c.index == 0 else 0.25)
    result = await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=2))
    assert [(c.index, c.score) for c in result.candidates] == [(1, 0.25)]
    (error,) = [e["error"] for e in result.trace if e["kind"] == "candidate" and "error" in e]
    assert error.startswith("InvalidScore: ")


@pytest.mark.parametrize(
    ("given", "score"),
    [(True, 1.0), (False, 0.0), (np.float32(0.5), 0.5), (np.float64(0.25), 0.25), (1, 1.0), (np.bool_(True), 1.0)],
)
async def test_numbers_of_any_kind_are_scores(given: Any, score: float) -> None:
    verifier = CallableVerifier(lambda p, c: given)
    result = await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=1))
    assert result.score == score and type(result.score) is float


@pytest.mark.parametrize("given", [0.5, None, Score(value=True), Score(value="0.5"), Score(value=0.5, steps=(2.0,))])  # type: ignore[arg-type]
async def test_a_verifier_class_that_gives_no_score_is_an_error_of_that_score(given: Any) -> None:
    verifier = Raw(given, Score(value=np.float32(0.5)), VerifierError("none"))  # type: ignore[arg-type]
    result = await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=3))
    assert [(c.index, c.score) for c in result.candidates] == [(1, 0.5)]


def test_too_few_step_scores_are_an_error() -> None:
    candidate = Candidate(Problem("q"), steps=(Step("a"), Step("b")))
    with pytest.raises(InvalidScore, match="1 step scores for 2 steps"):
        scored_by("v", candidate, Score(value=0.5, steps=(0.5,)))
    assert scored_by("v", candidate, Score(value=0.5, steps=(0.5, 1.0))).step_scores == (0.5, 1.0)


async def test_no_score_for_any_candidate_is_one_clear_error() -> None:
    verifier = CallableVerifier(raises)
    with pytest.raises(AllCandidatesFailed, match=r"VerifierError: raises: ValueError: bad luck") as caught:
        await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=2))
    assert isinstance(caught.value.__cause__, VerifierError)
    assert isinstance(caught.value.__cause__.__cause__, ValueError)


async def test_one_bad_score_of_a_set_loses_one_candidate() -> None:
    given = [Score(value=0.5), Score(value=float("nan")), Score(value=0.75)]
    result = await solve("q", model=ScriptedModel(["a"]), verifier=RawSet(given), strategy=BestOfN(n=3))
    assert [(c.index, c.score) for c in result.candidates] == [(0, 0.5), (2, 0.75)]
    assert [e["candidate"] for e in result.trace if e["kind"] == "failure"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([Score(value=0.5)], InvalidScore, "1 scores for 3"),
        (ZeroDivisionError("x"), VerifierError, "rawset: ZeroDivisionError: x"),
        (asyncio.CancelledError(), VerifierError, "cancelled from inside"),
        (None, VerifierError, "rawset: TypeError"),
        ([Score(value=2.0)] * 3, AllCandidatesFailed, "all 3 candidates failed"),
    ],
)
async def test_a_set_without_scores_is_a_clear_error(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        await solve("q", model=ScriptedModel(["a"]), verifier=RawSet(given), strategy=BestOfN(n=3))


# Retries --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ServerFailed, ConnectionFailed, CallTimedOut, RateLimited])
async def test_what_may_succeed_later_is_tried_again_with_the_same_seed(error: Any) -> None:
    model = ScriptedModel([error("x", **({} if error is ConnectionFailed else {"retry_after": 0.01})), "a"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=1))
    assert result.text == "a"
    assert len(model.requests) == 2 and model.requests[0] == model.requests[1]
    assert result.usage.requests == 2


async def test_attempts_are_limited_and_the_last_error_is_raised() -> None:
    model = ScriptedModel([RateLimited("one", retry_after=0.0), RateLimited("two", retry_after=0.0)])
    with pytest.raises(AllCandidatesFailed, match="RateLimited: two"):
        await solve("q", model=model, strategy=SelfConsistency(n=1), attempts=2)
    assert len(model.requests) == 2


async def test_a_wait_that_is_asked_for_is_kept_to() -> None:
    model, start = ScriptedModel([RateLimited("x", retry_after=0.3), "a"]), time.monotonic()
    await solve("q", model=model, strategy=SelfConsistency(n=1))
    assert 0.29 <= time.monotonic() - start < 20


@pytest.mark.parametrize("wait", [90.0, 3600.0])
async def test_a_wait_beyond_the_deadline_is_not_begun(wait: float) -> None:
    model, start = ScriptedModel([RateLimited("429, slow down", retry_after=wait)]), time.monotonic()
    with pytest.raises(AllCandidatesFailed, match="429, slow down"):
        await solve("q", model=model, strategy=SelfConsistency(n=2), budget=Budget(seconds=60))
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), -5.0])
async def test_a_wait_that_is_no_time_is_not_kept_to(wait: float) -> None:
    model = ScriptedModel([RateLimited("x", retry_after=wait), "a"])
    async with asyncio.timeout(60):
        assert (await solve("q", model=model, strategy=SelfConsistency(n=1))).text == "a"


# Deadlines ------------------------------------------------------------------------------------------------------------

LIMIT, SEEN = 0.3, 2.0  # of a test in which something has to come in time, the second
SLACK, LATE = 20.0, 60.0  # the code below takes so long, if it is not released


class Late:
    """Code that takes far too long, until a test that has ended lets go of it."""

    def __init__(self) -> None:
        self.released, self.running = threading.Event(), 0

    async def swallows(self, *_: Any) -> str:
        self.running += 1
        end = time.monotonic() + LATE
        while not self.released.is_set() and time.monotonic() < end:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)
        self.running -= 1
        return "late"

    def blocks(self, *_: Any) -> str:
        self.released.wait(LATE)
        return "late"

    async def hangs(self, *_: Any) -> str:
        await asyncio.sleep(LATE)
        return "late"


@pytest.fixture
async def late() -> AsyncIterator[Late]:
    made = Late()
    yield made
    made.released.set()
    await until(lambda: not made.running)


@pytest.mark.parametrize("name", ["swallows", "blocks", "hangs"])
@pytest.mark.parametrize("sync", [False, True])
async def test_the_deadline_holds_whatever_the_model_does(late: Late, name: str, sync: bool) -> None:
    code = getattr(late, name)

    def one(content: str) -> Any:
        return code()

    async def one_async(content: str) -> Any:
        return await code()

    model, start = CallableModel(one if name == "blocks" else one_async), time.monotonic()
    settings: dict[str, Any] = {"model": model, "strategy": SelfConsistency(n=3), "budget": Budget(seconds=LIMIT)}
    with pytest.raises(DeadlineExceeded):
        if sync:
            await asyncio.to_thread(solve_sync, "q", **settings)
        else:
            await solve("q", **settings)
    assert LIMIT <= time.monotonic() - start < LIMIT + SLACK


@pytest.mark.parametrize("name", ["swallows", "blocks", "hangs"])
async def test_the_deadline_holds_whatever_the_verifier_does_and_what_was_seen_is_returned(
    late: Late, name: str
) -> None:
    code = getattr(late, name)

    def check(problem: Problem, candidate: Candidate) -> Any:
        return 0.7 if candidate.index == 1 else code()

    async def check_async(problem: Problem, candidate: Candidate) -> Any:
        return 0.7 if candidate.index == 1 else await code()

    verifier = CallableVerifier(check if name == "blocks" else check_async)
    start, ledger = time.monotonic(), Ledger(Budget(seconds=SEEN))
    result = await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=3), budget=ledger)
    assert SEEN <= time.monotonic() - start < SEEN + SLACK
    assert (result.stopped, result.score, len(result.candidates)) == ("deadline", 0.7, 1)
    assert ledger.open_holds == 0
    assert all(e["end"] is not None for e in result.trace)


@pytest.mark.parametrize("name", ["swallows", "hangs"])
async def test_the_deadline_holds_whatever_the_strategy_does(late: Late, name: str) -> None:
    async def strategy(run: Run, problem: Problem) -> Scored:
        async for candidate in run.sample(problem, 2):
            assert candidate.text == "a"
        return await getattr(late, name)()  # type: ignore[no-any-return]

    start = time.monotonic()
    result = await solve("q", model=ScriptedModel(["a"]), strategy=strategy, budget=Budget(seconds=SEEN))
    assert SEEN <= time.monotonic() - start < SEEN + SLACK
    assert (result.stopped, result.text, len(result.candidates)) == ("deadline", "a", 2)


async def test_a_set_that_takes_too_long_leaves_the_vote() -> None:
    class Slow(RawSet):
        async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Any:
            await asyncio.sleep(LATE)

    model, start = ScriptedModel(["#### 1", "#### 2", "#### 2"]), time.monotonic()
    result = await solve("q", model=model, verifier=Slow(None), strategy=BestOfN(n=3), budget=Budget(seconds=SEEN))
    assert time.monotonic() - start < SEEN + SLACK
    assert (result.stopped, result.answer, result.score) == ("deadline", "2", None)


async def test_agreement_is_still_counted_over_what_arrived_in_time() -> None:
    from tts_plugins.verifiers import AnswerAgreement

    def said(problem: Problem, number: int) -> str:
        return "#### 1" if number == 0 else "#### 2"

    class Straggling(ScriptedModel):
        async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
            reply = await super().generate(problem, seeds)
            await asyncio.sleep(60 if len(self.requests) == 4 and self.requests[-1] == tuple(seeds) else 0)
            return reply

    result = await solve(
        "q", model=Straggling(said), verifier=AnswerAgreement(), strategy=BestOfN(n=4), budget=Budget(seconds=SEEN)
    )
    assert (result.stopped, result.answer, len(result.candidates)) == ("deadline", "2", 3)
    assert result.score == pytest.approx(2 / 3)


async def test_no_time_at_all_sends_nothing() -> None:
    model = ScriptedModel(["a"])

    async def outer(run: Run, problem: Problem) -> Scored:
        await asyncio.sleep(0.1)  # past the deadline, within the grace
        return (await solve("inner", model=model, strategy=SelfConsistency(n=1))).best

    with pytest.raises(DeadlineExceeded):
        await solve("q", model=model, strategy=outer, budget=Budget(seconds=0.01))
    assert model.requests == []


async def test_the_strategys_own_errors_come_through() -> None:
    async def broken(run: Run, problem: Problem) -> Scored:
        raise LookupError("mine")

    async def nothing(run: Run, problem: Problem) -> Any:
        return None

    async def cancelled(run: Run, problem: Problem) -> Scored:
        raise asyncio.CancelledError

    with pytest.raises(LookupError, match="mine"):
        await solve("q", model=ScriptedModel(["a"]), strategy=broken)
    with pytest.raises(TTSError, match="returned None; it must return a Scored"):
        await solve("q", model=ScriptedModel(["a"]), strategy=nothing)
    with pytest.raises(TTSError, match="cancellation from inside"):
        await solve("q", model=ScriptedModel(["a"]), strategy=cancelled)


@pytest.mark.parametrize("n", [0, -1, True, 1.5])
async def test_sampling_nothing_is_an_error_of_the_strategy(n: Any) -> None:
    async def strategy(run: Run, problem: Problem) -> Scored:
        return await anext(run.sample(problem, n))

    with pytest.raises(ConfigurationError, match=r"n=.* must be a whole number of at least 1"):
        await solve("q", model=ScriptedModel(["a"]), strategy=strategy)


async def test_scores_of_the_table_come_through() -> None:
    verifier = TableVerifier({"1": 0.1, "2": 0.9, "3": VerifierError("none")})
    result = await solve(
        "q", model=ScriptedModel(["#### 1", "#### 2", "#### 3"]), verifier=verifier, strategy=BestOfN(n=3)
    )
    assert (result.answer, len(result.candidates)) == ("2", 2)


CIRCLE = """
from openai import AsyncOpenAI
from tts_plugins import BestOfN, solve_sync
from tts_plugins.errors import RequestNotSent, TTSError
from tts_plugins.models import CallableModel, OpenAICompatibleModel
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import CallableVerifier

def circle(inner):
    outer = RuntimeError("outer")
    outer.__cause__, inner.__cause__ = inner, outer
    return outer

class Client(AsyncOpenAI):
    async def post(self, *args, **keywords):
        raise circle(fault)

def fails(*arguments):
    raise circle(ValueError("inner"))

fine = CallableVerifier(lambda problem, candidate: 1.0)
for fault in (ValueError("inner"), RequestNotSent("ours")):
    client = OpenAICompatibleModel("m", client=Client(api_key="-"), max_tokens=8)
    pairs = (CallableModel(fails), fine), (ScriptedModel(["a"]), CallableVerifier(fails)), (client, fine)
    for model, verifier in pairs:
        try:
            solve_sync("q", model=model, strategy=BestOfN(n=2), verifier=verifier)
        except TTSError as error:
            seen = set()
            while error is not None and id(error) not in seen:
                seen.add(id(error))
                error = error.__cause__
            print(len(seen))
"""


def test_errors_whose_causes_go_round_in_circles_end_a_solve() -> None:
    done = subprocess.run([sys.executable, "-c", CIRCLE], capture_output=True, text=True, timeout=120, check=False)
    assert len(done.stdout.split()) == 6, done.stderr


class Opaque(Exception):
    """An error whose own code fails when it is asked for what it has not."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def test_an_error_that_cannot_be_asked_for_more_costs_its_candidate_only() -> None:
    """Regression: the search ended with a KeyError of the error's own."""

    def answers(prompt: str) -> str:
        if len(asked) > 1:
            return "4"
        asked.append(prompt)
        raise Opaque("no answer")

    asked: list[str] = []
    model = CallableModel(answers, concurrency=1)
    result = solve_sync("q", model=model, strategy=SelfConsistency(n=3), seed=1)
    assert result.answer == "4" and len(result.candidates) == 1
    with pytest.raises(AllCandidatesFailed, match="Opaque: no answer"):
        asked.clear()
        solve_sync("q", model=model, strategy=SelfConsistency(n=2), seed=1)
