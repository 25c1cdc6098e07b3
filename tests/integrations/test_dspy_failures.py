"""Attempts that fail: what the next one is shown, and what is raised when all have failed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import BestOfN, Refine, Scaled

from tests.dspy_models import aclose, program
from tests.imitations import said
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
