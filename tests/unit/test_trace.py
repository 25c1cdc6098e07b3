"""The trace: every call an event, JSON at any moment, and nothing that a listener or a strategy can break."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, Budget, Ledger, Problem, SelfConsistency, solve
from tts_plugins.budget import FREE, Bound
from tts_plugins.engine import Trace
from tts_plugins.errors import ConfigurationError, RateLimited, ServerFailed
from tts_plugins.models import CallableModel
from tts_plugins.protocols import Run
from tts_plugins.stopping import Threshold
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.types import Candidate, Generation, Score, Scored
from tts_plugins.verifiers import CallableVerifier


def by_kind(trace: Any, kind: str) -> list[Mapping[str, Any]]:
    return [e for e in trace if e["kind"] == kind]


async def test_every_call_is_an_event_with_its_parent_candidate_score_usage_and_times() -> None:
    model = ScriptedModel(["#### 1", RateLimited("slow", retry_after=0.0), "#### 2"])
    result = await solve("q", model=model, verifier=TableVerifier({"1": 0.5, "2": 1.0}), strategy=BestOfN(n=2), seed=9)
    events = list(result.trace)
    assert [e["id"] for e in events] == list(range(len(events)))
    assert all(e["end"] >= e["at"] >= 0 for e in events)
    assert all(e["parent"] is None if i == 0 else e["parent"] < i for i, e in enumerate(events))
    (root,), (wave,) = by_kind(events, "solve"), by_kind(events, "wave")
    assert (root["problem"], root["model"], root["seed"], root["stopped"]) == ("q", "scripted", 9, "complete")
    assert root["usage"]["calls"] == 3 and root["usage"]["requests"] == 3
    assert (wave["parent"], wave["n"], wave["of"]) == (root["id"], 2, 2)
    requests = by_kind(events, "request")
    assert [r["parent"] for r in requests] == [wave["id"]] * 2
    assert all(r["usage"]["completion_tokens"] == 10 and r["role"] == "model" for r in requests)
    candidates = by_kind(events, "candidate")
    assert {c["parent"] for c in candidates} == {r["id"] for r in requests}
    assert {(c["candidate"], c["score"], c["answer"]) for c in candidates} == {
        (c.id, c.score, c.answer) for c in result.candidates
    }
    (failure,) = by_kind(events, "failure")
    assert failure["parent"] in {r["id"] for r in requests} and failure["retryable"]


async def test_it_is_json_at_any_moment_whatever_is_brought() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "odd"

    async def strategy(run: Run, problem: Problem) -> Scored:
        run.note("mine", nan=float("nan"), array=np.float32(0.5), odd=Odd(), nested={"a": {1, 2}, 3: (None, b"x")})
        return await anext(run.sample(problem, 1))

    class Feedback:
        name = "feedback"

        async def bound(self, problem: Problem, tokens: int | None) -> Bound:
            return FREE

        async def score(self, run: Run, candidate: Candidate) -> Score:
            return Score(value=0.5, feedback=Odd())  # type: ignore[arg-type]

    traces: list[str] = []
    kept: list[Trace] = []

    def listener(event: Mapping[str, Any]) -> None:
        json.dumps(event, allow_nan=False)
        traces.append(json.dumps(kept[0].to_dict(), allow_nan=False) if kept else "")

    text = "\ud800 lone, \x00 nul"
    model = ScriptedModel([Generation(text=text, finish_reason={"why": Odd()})])  # type: ignore[arg-type]
    result = await solve("q", model=model, verifier=Feedback(), strategy=strategy, listener=listener)
    again = json.loads(json.dumps(result.trace.to_dict(), allow_nan=False))
    (mine,) = by_kind(again["events"], "mine")
    assert (mine["nan"], mine["array"], mine["odd"]) == ("nan", 0.5, "odd")
    assert mine["nested"] == {"a": [1, 2], "3": [None, "b'x'"]}
    assert by_kind(again["events"], "candidate")[0]["feedback"] == "odd"
    assert again["version"] == 1
    assert len(traces) > 5


async def test_it_can_be_read_from_another_thread_while_it_grows() -> None:
    trace, errors, stop = Trace(), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                json.dumps(trace.to_dict())
                trace.tree()
            except Exception as error:  # noqa: BLE001 - it is what the test looks for
                errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    root = trace.open("solve", None, problem="q")
    for i in range(300):
        event = trace.open("request", root, n=i, model="m", role="model", seeds=[1])
        trace.close(event, usage={}, **{f"field{i}": i})
        await asyncio.sleep(0)
    trace.close(root)
    stop.set()
    thread.join(timeout=60)
    assert errors == [] and len(trace) == 301


@pytest.mark.parametrize("name", ["id", "parent", "at", "end"])
async def test_a_note_cannot_take_the_fields_of_every_event(name: str) -> None:
    async def strategy(run: Run, problem: Problem) -> Scored:
        run.note("mine", **{name: 3})
        return await anext(run.sample(problem, 1))

    with pytest.raises(ConfigurationError, match=f"{name}= is a field of every event"):
        await solve("q", model=ScriptedModel(["a"]), strategy=strategy)


async def test_a_listener_hears_every_start_and_end() -> None:
    reported: list[Mapping[str, Any]] = []
    result = await solve("q", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2), listener=reported.append)
    ended = [e["id"] for e in reported if e["end"] is not None]
    assert sorted(ended) == [e["id"] for e in result.trace]
    reported[0]["id"] = "changed"  # type: ignore[index]
    assert next(iter(result.trace))["id"] == 0


@pytest.mark.parametrize("at", ["solve", "wave", "request", "candidate", "stop"])
async def test_a_listener_that_fails_costs_no_answer(at: str, caplog: pytest.LogCaptureFixture) -> None:
    from tts_plugins.stopping import VoteDecided

    calls: list[str] = []

    def listener(event: Mapping[str, Any]) -> None:
        calls.append(event["kind"])
        if event["kind"] == at:
            raise ValueError("display broke")

    caplog.set_level(logging.CRITICAL)  # it is logged, with a traceback; here it would only be noise
    async with asyncio.timeout(60):
        result = await solve(
            "q", model=ScriptedModel(["#### 1"]), strategy=SelfConsistency(n=4, stop=VoteDecided()), listener=listener
        )
    assert (result.answer, result.stopped) == ("1", "stop_rule")
    (failed,) = by_kind(result.trace, "listener_failed")
    assert failed["error"] == "ValueError: display broke"
    assert calls[-1] == at  # it is not called again


async def test_requests_of_a_verifier_are_inside_their_candidate() -> None:
    judge = ScriptedModel(["0.5"], name="judge-model")

    class Judge:
        name = "judge"

        async def bound(self, problem: Problem, tokens: int | None) -> Bound:
            return await judge.bound(problem)

        async def score(self, run: Run, candidate: Candidate) -> Score:
            await run.generate(judge, Problem("rate"))
            return Score(value=0.5)

    result = await solve("q", model=ScriptedModel(["a"]), verifier=Judge(), strategy=BestOfN(n=2))
    asked = [e for e in by_kind(result.trace, "request") if e["model"] == "judge-model"]
    assert [e["role"] for e in asked] == ["verifier"] * 2
    assert {e["parent"] for e in asked} == {e["id"] for e in by_kind(result.trace, "candidate")}


async def test_requests_name_their_candidates_and_failures_what_they_were_charged() -> None:
    model = ScriptedModel(
        ["#### 1", RateLimited("slow", retry_after=0.0), ServerFailed("broken"), "#### 2"],
        prompt_tokens=20, completion_tokens=5, max_tokens=10,
    )  # fmt: skip
    result = await solve("q", model=model, strategy=SelfConsistency(n=3), seed=9, attempts=1)
    requests, failures = by_kind(result.trace, "request"), by_kind(result.trace, "failure")
    assert sorted(i for e in requests for i in e["indices"]) == [0, 1, 2]
    made = {c["parent"]: c["index"] for c in by_kind(result.trace, "candidate")}
    assert all(e["indices"] == [made[e["id"]]] for e in requests if e["id"] in made)
    bound = await model.bound(Problem("q"))
    charged = {f["error"][:5]: (f["usage"]["calls"], f["usage"]["tokens"], f["usage"]["exact"]) for f in failures}
    assert charged == {"RateL": (1, 0, True), "Serve": (1, bound.amount.tokens, False)}
    reported = sum(e["usage"]["tokens"] for e in [*requests, *failures] if "usage" in e)
    assert reported == result.usage.tokens
    assert f"charged 1 call, ≤{bound.amount.tokens} tokens" in result.trace.tree()
    assert f"charged 1 call, ≤{bound.amount.tokens} tokens" in result.trace.html()


async def test_a_cancelled_request_says_what_it_was_charged() -> None:
    asked = iter(range(2))

    async def speak(content: str) -> str:
        await asyncio.sleep(60.0 * next(asked))
        return "#### 1"

    result = await solve(
        "q", model=CallableModel(speak, max_tokens=10), verifier=TableVerifier({"1": 1.0}),
        strategy=BestOfN(n=2, stop=Threshold(0.5), wave=2),
    )  # fmt: skip
    reported = [e["usage"]["tokens"] for e in by_kind(result.trace, "request")]
    assert len(reported) == 2 and sum(reported) == result.usage.tokens > 0


async def test_the_limits_of_a_shared_account_are_shown() -> None:
    model, account = ScriptedModel(["#### 1"]), Ledger(Budget(calls=20))
    result = await solve("q", model=model, strategy=SelfConsistency(n=2), budget=account)
    (root,) = by_kind(result.trace, "solve")
    assert (root["budget"], root["shared"]) == ({"calls": 20}, True)
    assert "budget 20 calls (shared)" in result.trace.tree().replace("\xa0", " ")
    (root,) = by_kind((await solve("q", model=model, strategy=SelfConsistency(n=2), budget=Ledger())).trace, "solve")
    assert (root["budget"], root["shared"]) == (None, True)


async def test_an_inner_solve_has_a_trace_of_its_own() -> None:
    inner: list[Any] = []

    async def function(content: str) -> str:
        inner.append(await solve("inner", model=ScriptedModel(["a"]), strategy=SelfConsistency(n=2)))
        return "b"

    result = await solve("q", model=CallableModel(function), strategy=SelfConsistency(n=1))
    assert len(by_kind(result.trace, "request")) == 1
    assert len(by_kind(inner[0].trace, "request")) == 2
    assert by_kind(inner[0].trace, "wave")[0]["parent"] == 0


async def test_errors_stand_in_the_root() -> None:
    reported: list[Mapping[str, Any]] = []
    verifier = CallableVerifier(lambda p, c: 1 / 0)
    with pytest.raises(Exception, match="all 1 candidates failed"):
        await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=1), listener=reported.append)
    root = reported[-1]
    assert (root["kind"], root["error"], root["stopped"]) == ("solve", "AllCandidatesFailed", "complete")
    assert "ZeroDivisionError" in root["message"] and root["usage"]["calls"] == 1
    ends = {e["id"]: e["end"] for e in reported}
    assert all(end is not None for end in ends.values())


def test_the_first_end_counts() -> None:
    trace = Trace()
    root = trace.open("solve", None)
    event = trace.open("request", root)
    trace.abandon(root)
    trace.close(event, usage={"calls": 1})
    (_, ended) = trace
    assert ended["error"].startswith("abandoned") and "usage" not in ended
    assert next(iter(trace))["end"] is None


def test_a_trace_is_pickled_with_what_cannot_be_and_copied() -> None:
    trace = Trace()
    trace.open("solve", None, strategy=lambda: None)
    trace.close(trace.open("request", 0, seeds=range(2)), odd=lambda: None)
    for again in (
        pickle.loads(pickle.dumps(trace)),
        copy.deepcopy(trace),
        pickle.loads(pickle.dumps(copy.copy(trace))),
    ):
        assert again.to_dict() == trace.to_dict() and len(again) == 2
        again.note("more", 0)
        assert len(again) == 3 and len(trace) == 2
    with pytest.raises(AttributeError):
        trace.nothing  # noqa: B018
