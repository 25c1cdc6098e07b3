"""The one search of adapters: candidates on threads and on the loop, their account, and what becomes of an error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Result, SelfConsistency
from tts_plugins.adapters import BaseSearch, MeteredModel, SearchSettings, meter_here, metered_verifier
from tts_plugins.errors import BudgetExhausted, UnboundedCallError
from tts_plugins.metering import Call
from tts_plugins.protocols import Run, Verifier
from tts_plugins.types import Candidate, Generation, Problem, Scored
from tts_plugins.verifiers import CallableVerifier


def ask(text: str = "4", *, tokens: int | None = 10) -> str:
    """A framework's model call, as its callbacks meter it."""
    meter, key = meter_here(), object()
    assert meter is not None
    meter.start(key, Call(model="small", prompt={"messages": ["?"]}, max_tokens=tokens))
    meter.end(key, prompt_tokens=5, completion_tokens=10, texts=[text], truncated=[False])
    return text


@dataclass
class Sample:
    seed: int | None


class Search(BaseSearch[Sample]):
    """Of a framework whose programs are functions."""

    def __init__(self, function: Callable[[], Any], **settings: Any) -> None:
        strategy = SelfConsistency(n=4) if settings.get("verifier") is None else BestOfN(n=4)
        asked = {"strategy": strategy, **settings}
        super().__init__(model=MeteredModel("it"), problem=Problem("2 + 2?"), settings=SearchSettings(**asked))
        self._function, self.reported = function, list[str]()

    def begin(self, problem: Problem, seed: int | None, attempts: Any) -> Sample:
        return Sample(seed)

    def call(self, sample: Sample) -> Any:
        return self._function()

    async def acall(self, sample: Sample) -> Any:
        return self._function()

    def read(self, sample: Sample, output: Any) -> Generation:
        return Generation(text=str(output), output=output)

    def verifier(self) -> Any:
        given = self.settings.verifier
        return None if given is None else metered_verifier(CallableVerifier(given), self)

    def failed(self, sample: Sample, error: BaseException) -> None:
        self.reported.append(type(error).__name__)

    async def afailed(self, sample: Sample, error: BaseException) -> None:
        self.reported.append(type(error).__name__)


def outcome(search: Search, how: str) -> Result:
    return search.run() if how == "sync" else asyncio.run(search.arun())


BOTH = pytest.mark.parametrize("how", ["sync", "async"])


@BOTH
def test_both_ways_are_on_the_account(how: str) -> None:
    result = outcome(Search(ask, budget=Budget(tokens=1000), verifier=lambda output: 1.0), how)
    assert result.output == "4" and result.usage.tokens == 4 * 15 and result.usage.exact


def with_fallback() -> str:
    try:
        return ask()
    except BudgetExhausted:
        return "a static text"


def with_a_second_call() -> str:
    ask()
    return with_fallback()


@BOTH
@pytest.mark.parametrize("program", [with_fallback, with_a_second_call])
def test_an_answer_after_a_swallowed_refusal_is_none(program: Callable[[], str], how: str) -> None:
    search = Search(program, budget=Budget(calls=3))
    result = outcome(search, how)
    assert {c.text for c in result.candidates} == {"4"} and result.usage.calls <= 3
    assert result.stopped == "budget" and set(search.reported) == {"BudgetExhausted"}


@BOTH
def test_a_verdict_after_a_swallowed_refusal_is_none(how: str) -> None:
    def judge(problem: Problem, candidate: Candidate) -> float:
        return 0.9 if with_fallback() == "a static text" else 0.5

    result = outcome(Search(ask, budget=Budget(calls=6), verifier=judge), how)
    assert {c.score for c in result.candidates} == {0.5} and result.stopped == "budget"


@BOTH
def test_a_swallowed_refusal_is_waited_for_where_there_will_be_room(how: str) -> None:
    result = outcome(Search(with_fallback, budget=Budget(tokens=150)), how)
    assert [c.text for c in result.candidates] == ["4"] * 4 and result.usage.tokens == 60


@BOTH
def test_a_limit_that_cannot_hold_is_an_error_whatever_the_program_makes_of_it(how: str) -> None:
    def program() -> str:
        try:
            return ask(tokens=None)
        except UnboundedCallError:
            return "a static text"

    with pytest.raises(UnboundedCallError, match="max_tokens"):
        outcome(Search(program, budget=Budget(tokens=500)), how)


@BOTH
def test_a_refusal_inside_a_search_inside_is_one_of_the_candidate_around_it(how: str) -> None:
    def program() -> str:
        try:
            return Search(ask).run().text
        except BudgetExhausted:
            return "a static text"

    result = outcome(Search(program, budget=Budget(calls=6), strategy=SelfConsistency(n=3)), "sync")
    assert {c.text for c in result.candidates} == {"4"} and result.usage.calls <= 6


def test_a_budget_of_the_search_inside_is_its_own_affair() -> None:
    def program() -> str:
        try:
            return Search(ask, budget=Budget(tokens=1)).run().text
        except BudgetExhausted:
            return "a static text"

    assert Search(program, budget=Budget(calls=6)).run().text == "a static text"


@BOTH
def test_interrupts_pass_and_failures_keep_their_type(how: str) -> None:
    def stops() -> str:
        raise KeyboardInterrupt

    def fails() -> str:
        raise KeyError("no")

    for program, error in ((stops, KeyboardInterrupt), (fails, KeyError)):
        with pytest.raises(error):
            outcome(Search(program), how)
        with pytest.raises(error):
            outcome(Search(ask, verifier=lambda output, program=program: program()), how)


async def test_verifications_of_one_scope_at_once_have_a_meter_each() -> None:
    async def judge(problem: Problem, candidate: Candidate) -> float:
        for _ in range(2):
            await asyncio.sleep(0)
            ask()
        return 0.5

    async def strategy(run: Run, problem: Problem) -> Scored:
        found = [candidate async for candidate in run.sample(problem, 2)]
        assert isinstance(run.verifier, Verifier)
        again = await asyncio.gather(*(run.verifier.score(run, candidate) for candidate in found))
        assert [score.value for score in again] == [0.5, 0.5]
        return found[0]

    result = await Search(ask, budget=Budget(calls=20), verifier=judge, strategy=strategy).arun()
    assert result.usage.calls == 2 + 2 * 2 + 2 * 2 and result.usage.exact


async def test_a_generator_exit_of_the_program_costs_its_candidate_alone() -> None:
    raised = iter([GeneratorExit("of the program")])

    def program() -> str:
        for error in raised:
            raise error
        return ask()

    result = await Search(program, budget=Budget(calls=20)).arun()
    assert len(result.candidates) == 3 and result.usage.calls == 3
