"""Attempts that fail: what the next one is shown, and what is raised when all have failed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pydantic
import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import BestOfN, Refine, Scaled, ScaledLM

from tests.dspy_models import aclose, program
from tests.imitations import said
from tests.waiting import until
from tts_plugins import SelfConsistency
from tts_plugins.errors import AllCandidatesFailed
from tts_plugins.testing.loopback import Fault, LoopbackServer


def test_refine_goes_on_after_an_attempt_that_cannot_be_parsed(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    dspy_server.configure(reply=lambda body, i: said(answer=i) if "hint_" in str(body) else "no fields here")
    refine = Refine(program(), N=2, reward_fn=lambda args, pred: float(pred.answer))
    assert len(refine.solve(question="q").candidates) == 1
    shown = dspy_server.requests[-1].body["messages"][-1]["content"]
    assert "no fields here" in shown and "AdapterParseError" in shown, "what it wrote, and why that failed"


def test_refine_goes_on_after_exceptions_of_the_program_and_of_the_reward(
    dspy_server: LoopbackServer, dspy_lm: Any
) -> None:
    class Picky(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            prediction = self.ask(question=question)
            if prediction.answer == 0:
                raise ValueError("zero will not do")
            return prediction

    def reward(args: dict[str, Any], pred: Any) -> float:
        if pred.answer == 1:
            raise RuntimeError("one is odd")
        return float(pred.answer)

    assert Refine(Picky(), N=4, reward_fn=reward)(question="q").answer == 3
    shown = [request.body["messages"][-1]["content"] for request in dspy_server.requests]
    assert "zero will not do" in shown[1] and "one is odd" in shown[2] and "answer: 1" in shown[2]
    assert "Its reward was 2" in shown[3]


async def test_what_all_candidates_raise_is_raised(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Overflow(ValueError):
        pass

    class Failing(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            raise Overflow("too long")

    with pytest.raises(Overflow, match="too long") as raised:
        Scaled(Failing(), n=3)(question="q")
    assert isinstance(raised.value.__cause__, AllCandidatesFailed)
    dspy_server.configure(reply="nothing that can be read")
    from dspy.utils.exceptions import AdapterParseError

    with pytest.raises(AdapterParseError):
        await Scaled(program(), n=2).acall(question="unread?")
    dspy_server.configure(faults=Fault.status(401))
    with pytest.raises(Exception, match="401") as refused:
        Scaled(program(), n=2)(question="key?")
    assert type(refused.value).__module__.split(".")[0] in ("dspy", "litellm")
    await aclose(dspy_lm)


_USED_UP = '{"error": {"message": "over", "code": "insufficient_quota", "type": "insufficient_quota"}}'


@pytest.mark.parametrize("fault", [Fault.status(401), Fault.status(402), Fault.status(429, body=_USED_UP)], ids=str)
def test_a_refused_key_or_a_used_up_account_is_raised_and_not_paid_around(
    dspy_server: LoopbackServer, fault: Fault
) -> None:
    """Regression: DSPy says the status otherwise, so that a larger LM was asked in the place of a wrong key."""
    with LoopbackServer(faults=fault) as refusing:
        small, large = (
            dspy.LM(f"openai/{name}", api_base=url, api_key="k", num_retries=0, max_tokens=20, cache=False)
            for name, url in (("small", refusing.base_url), ("large", dspy_server.base_url))
        )
        lm = ScaledLM(small, strategy=SelfConsistency(n=2), abstain_below=0.9, on_abstain="escalate", escalate=large)
        with pytest.raises(Exception, match=r"over|fault 40"):
            lm("q")
    assert not dspy_server.requests


@pytest.mark.parametrize("kind", [BestOfN, Refine])
def test_more_failures_than_fail_count_are_raised(dspy_server: LoopbackServer, dspy_lm: Any, kind: Any) -> None:
    class Failing(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask, self.calls = program(), []  # type: ignore[var-annotated]

        def forward(self, question: str) -> Any:
            self.calls.append(question)
            prediction = self.ask(question=question)
            if len(self.calls) < 3:
                raise ValueError(f"failure {len(self.calls)}")
            return prediction

    def reward(args: dict[str, Any], pred: Any) -> float:
        return float(pred.answer)

    settings: dict[str, Any] = {"copy": False} | ({} if kind is Refine else {"concurrency": 1})
    with pytest.raises(ValueError, match="failure 2"):
        kind(Failing(), 4, reward, None, 1, **settings)(question="q")
    assert kind(Failing(), 4, reward, None, 2, **settings)(question="r").answer >= 2
    assert kind(Failing(), 4, reward, **settings)(question="s").answer >= 2


async def test_values_of_the_wrong_type_are_shown_to_the_next_attempt(
    dspy_server: LoopbackServer, dspy_lm: Any
) -> None:
    def reply(body: dict[str, Any], index: int) -> str:
        if "hint_" in str(body):
            return said(things='[{"name": "a", "size": 3}]')
        return said(things='[{"name": "a", "size": "big"}]') if "JSON" not in str(body) else "neither in JSON"

    dspy_server.configure(reply=reply)
    typed = dspy.Signature({"question": (str, dspy.InputField()), "things": (list[Thing], dspy.OutputField())})
    refine = Refine(dspy.Predict(typed), N=3, reward_fn=lambda args, pred: float(pred.things[0].size), threshold=3.0)
    assert (await refine.acall(question="q")).things == [Thing(name="a", size=3)]
    assert "hint_" in str(dspy_server.requests[-1].body)
    assert len(dspy_server.requests) in (3, 4), "the JSON adapter of DSPy 3.0 may ask twice"
    await aclose(dspy_lm)


class Thing(pydantic.BaseModel):
    """What a typed signature asks for."""

    name: str
    size: int


def test_frozen_programs_are_refined(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Outer(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.compiled = program()
            self.compiled._compiled = True

        def forward(self, question: str) -> Any:
            return self.compiled(question=question)

    refined = Refine(Outer(), N=4, chains=2, reward_fn=lambda args, pred: float(pred.answer)).solve(question="q")
    assert sum("hint_" in str(request.body) for request in dspy_server.requests) == 2 and len(refined.candidates) == 4


class Overflow(KeyError):
    """An exception of the user's."""


class Overflowing(dspy.Module):  # type: ignore[misc]
    """Asks its model, and fails."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = program()

    def forward(self, question: str) -> Any:
        self.ask(question=question)
        raise Overflow(question)


def test_evaluation_and_threads_see_the_programs_own_exception(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    scaled, example = Scaled(Overflowing(), n=2), dspy.Example(question="q", answer=1).with_inputs("question")
    evaluate = dspy.Evaluate(
        devset=[example], metric=lambda *_: 1.0, num_threads=2, display_progress=False, failure_score=0.25
    )
    assert evaluate(scaled).score == 25.0
    parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True, return_failed_examples=True)
    *_, errors = parallel([(module, {"question": "r"}) for module in (Overflowing(), scaled)])
    assert [type(error) for error in errors] in ([Overflow] * 2, []), "as of the bare program; DSPy 3.0.0 keeps none"


def test_failed_parses_are_found_by_optimisers(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    trace = pytest.importorskip("dspy.teleprompt.bootstrap_trace", reason="DSPy 3.0.0 has it elsewhere")
    dspy_server.configure(reply="nothing that can be read")
    data = [dspy.Example(question="q", answer=1).with_inputs("question")]
    for module in (program(), Scaled(program(), n=1), Scaled(program(), n=2)):
        (found,) = trace.bootstrap_trace_data(
            module, data, metric=lambda *_, **__: 0.0, num_threads=1, capture_failed_parses=True, raise_on_error=False
        )
        assert isinstance(found["prediction"], trace.FailedPrediction)


@pytest.mark.parametrize("n", [None, 1, 2])
def test_an_agent_shortens_what_is_too_long(dspy_server: LoopbackServer, dspy_lm: Any, n: int | None) -> None:
    too_long = {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}

    def acting(body: dict[str, Any], index: int) -> str:
        if "next_tool_name" in str(body):
            return said(next_thought="on", next_tool_name="look", next_tool_args="{}")
        return said(reasoning="so", answer=1)

    def look() -> str:
        return "nothing new"

    third = {2: Fault.status(400, body=json.dumps({"error": too_long}))}
    dspy_server.configure(reply=acting, faults=third)
    agent = dspy.ReAct("question -> answer: int", tools=[look], max_iters=3)
    asked = agent if n is None else Scaled(agent, n=n, concurrency=1)
    assert asked(question="q").answer == 1
    shown = [str(request.body).count("[[ ## observation_") for request in dspy_server.requests]
    assert shown[2] > shown[3], "the longest turn was asked again, without its oldest part"


async def test_programs_that_cancel_themselves_have_failed_and_a_caller_who_cancels_is_cancelled() -> None:
    class Cancelling(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            raise asyncio.CancelledError("of its own")

        async def aforward(self, question: str) -> Any:
            raise asyncio.CancelledError("of its own")

    class Waiting(dspy.Module):  # type: ignore[misc]
        began = 0

        async def aforward(self, question: str) -> Any:
            Waiting.began += 1
            await asyncio.Event().wait()

    said = "all 3 candidates failed; the first because of .*CancelledError: of its own"
    with pytest.raises(AllCandidatesFailed, match=said):
        Scaled(Cancelling(), n=3)(question="q")
    with pytest.raises(AllCandidatesFailed, match=said):
        await Scaled(Cancelling(), n=3).acall(question="q")
    me = asyncio.current_task()
    assert me is not None and not me.cancelling(), "nobody has cancelled the caller"
    task = asyncio.create_task(Scaled(Waiting(), n=3).acall(question="q"))
    await until(lambda: Waiting.began == 3)
    task.cancel("of the caller")
    with pytest.raises(asyncio.CancelledError):
        await task
