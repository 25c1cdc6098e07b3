"""Revision of DSPy programs by a hint field, `Refine` with DSPy's arguments, and a language model's by turns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import Refine, Scaled, ScaledLM

from tests.dspy_models import aclose, close, language_model
from tests.imitations import said
from tts_plugins import BeamSearch, Budget, RecursiveAggregation, Revision
from tts_plugins.errors import ConfigurationError
from tts_plugins.testing.loopback import LoopbackServer

ONE_CHAIN = Revision(chains=1, rounds=3, select="best")


def shown(body: dict[str, Any]) -> list[int]:
    """The answers of the attempts that a request shows."""
    return [int(found) for found in re.findall(r"^answer: (\d+)$", body["messages"][-1]["content"], re.MULTILINE)]


def learn(body: dict[str, Any], index: int) -> str:
    """One more than the best attempt that is shown."""
    return said(answer=max(shown(body), default=0) + 1)


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    yield


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=learn) as running:
        yield running


@pytest.fixture
def lm(server: LoopbackServer) -> Iterator[Any]:
    made = language_model(server)
    with dspy.context(lm=made):
        yield made
    close(made)


def program() -> Any:
    return dspy.Predict("question -> answer: int")


def metric(example: Any, prediction: Any, trace: Any = None) -> tuple[float, str]:
    return prediction.answer / 10, f"more than {prediction.answer}, please"


def reward(args: dict[str, Any], prediction: Any) -> Any:
    return dspy.Prediction(score=prediction.answer, feedback=f"more than {prediction.answer}, please")


def test_each_attempt_sees_those_before_and_what_was_said_of_them(server: LoopbackServer, lm: Any) -> None:
    module = program()
    with dspy.context(trace=[]):
        prediction = Scaled(module, strategy=ONE_CHAIN, verifier=metric)(question="How far?")
        ((predictor, inputs, output),) = dspy.settings.trace
    assert prediction.answer == 3 and [shown(r.body) for r in server.requests] == [[], [1], [1, 2]]
    last = server.requests[2].body["messages"]
    assert "hint_" in last[0]["content"] and "scored 0.20 of 1" in last[-1]["content"]
    assert "more than 2, please" in last[-1]["content"]
    assert "hint_" not in str(server.requests[0].body)
    assert predictor is module and output.answer == 3 and inputs == {"question": "How far?"}, "no hint in the trace"
    assert list(module.signature.input_fields) == ["question"], "nothing is changed"


async def test_asynchronously_in_parallel_chains_and_again_from_the_cache(server: LoopbackServer, lm: Any) -> None:
    scaled = Scaled(program(), strategy=Revision(chains=3, rounds=2), verifier=metric, budget=Budget(calls=6))
    result = await scaled.asolve(question="How far?")
    assert result.output.answer == 2 and result.usage.calls == 6 == server.counts.requests
    again = await scaled.asolve(question="How far?")
    assert again.output.answer == 2 and again.usage.calls == 0 and server.counts.requests == 6
    await aclose(lm)


def test_every_predictor_of_a_program_is_hinted_and_searches_inside_others_too(server: LoopbackServer, lm: Any) -> None:
    class Twice(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = program(), program()

        def forward(self, question: str) -> Any:
            self.first(question=question)
            return self.second(question=f"{question} Again.")

    strategy = Revision(chains=1, rounds=2, select="best")
    assert Scaled(Twice(), strategy=strategy, verifier=metric)(question="?").answer == 2
    assert [shown(r.body) for r in server.requests] == [[], [], [1], [1]]
    server.reset()
    inner = Scaled(program(), strategy=strategy, verifier=metric)
    assert Scaled(inner, strategy=strategy, verifier=metric)(question="Deep?").answer == 4
    assert [shown(r.body) for r in server.requests] == [[], [1], [2], [2, 3]]


def test_merging(server: LoopbackServer, lm: Any) -> None:
    strategy = RecursiveAggregation(population=2, subset=2, loops=2)
    assert Scaled(program(), strategy=strategy)(question="?").answer == 2
    assert "--- Candidate 2 ---" in server.requests[-1].body["messages"][-1]["content"]


def test_refine_takes_dspys_arguments(server: LoopbackServer, lm: Any) -> None:
    refine = Refine(program(), N=5, reward_fn=reward, threshold=3)
    result = refine.solve(question="How far?")
    assert result.output.answer == 3 and server.counts.requests == 3 and result.stopped == "stop_rule"
    assert result.best.details["reward"] == 3
    assert "Its reward was 2 (higher is better)" in server.requests[2].body["messages"][-1]["content"]
    assert "scored" not in str(server.requests[2].body)


async def test_refine_in_chains_side_by_side(server: LoopbackServer, lm: Any) -> None:
    server.configure(latency=0.1)
    prediction = await Refine(program(), n=6, reward_fn=reward, chains=3).acall(question="How far?")
    assert prediction.answer == 2 and server.counts.requests == 6 and server.counts.peak == 3
    await aclose(lm)


def test_refine_compiles_where_dspys_own_finds_no_demos(server: LoopbackServer, lm: Any) -> None:
    refine = Refine(program(), N=2, reward_fn=reward)
    optimiser = dspy.BootstrapFewShot(
        metric=lambda example, prediction, trace=None: prediction.answer == 2, max_bootstrapped_demos=1
    )
    compiled = optimiser.compile(refine, trainset=[dspy.Example(question="q", answer=2).with_inputs("question")])
    assert [demo.answer for demo in compiled.module.demos] == [2] and "hint_" not in compiled.module.demos[0]


def test_a_language_model_revises_by_turns(server: LoopbackServer, lm: Any) -> None:
    def count(body: dict[str, Any], index: int) -> str:
        return said(answer=sum(m["role"] == "assistant" for m in body["messages"]) + 1)

    def longest(text: str) -> float:
        return int(re.findall(r"\d+", text)[0]) / 10

    server.configure(reply=count)
    with dspy.context(lm=ScaledLM(lm, strategy=ONE_CHAIN, verifier=longest)):
        assert program()(question="How far?").answer == 3
    assert [len(r.body["messages"]) for r in server.requests] == [2, 4, 6]
    assert ScaledLM(lm, strategy=ONE_CHAIN, verifier=longest)("How far?")[0].count("3") == 1


def test_what_cannot_be_revised_or_searched(lm: Any) -> None:
    class Bare(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=1)

    with pytest.raises(ConfigurationError, match=r"Scaled: Bare has no predictor .*'hint_'.*give it a dspy.Predict"):
        Scaled(Bare(), strategy=ONE_CHAIN, verifier=metric)
    with pytest.raises(ConfigurationError, match="Refine: Bare has no predictor"):
        Refine(Bare(), N=2, reward_fn=reward)
    with pytest.raises(ConfigurationError, match=r"writes no single steps.*use BestOfN or Revision"):
        Scaled(program(), strategy=BeamSearch(n=4, beam_width=2), verifier=metric)(question="?")
    with pytest.raises(ConfigurationError, match="N=5 attempts cannot be shared evenly by chains=2"):
        Refine(program(), N=5, reward_fn=reward, chains=2)
    with pytest.raises(ConfigurationError, match="Refine: reward_fn=1 is not a function"):
        Refine(program(), N=5, reward_fn=1)  # type: ignore[arg-type]
