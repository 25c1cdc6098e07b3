"""The promises of a strategy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from tts_plugins.budget import Bound, Budget, Limits
from tts_plugins.engine import solve
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, DeadlineExceeded, RequestRefused
from tts_plugins.ledger import Ledger
from tts_plugins.protocols import Model, Run, SetVerifier, Strategy, Verifier
from tts_plugins.testing.contracts._shared import Contract
from tts_plugins.testing.scripted import ScriptedModel
from tts_plugins.types import Candidate, Problem, Reply, Result, Score, Scored


class StrategyContract(Contract):
    """Promises of a `Strategy` or a policy; override `make`.

    Attributes:
        needs: candidates that it needs at most for one solve, for budgets that do fit.
    """

    needs: int = 64

    def make(self) -> Strategy:
        """Return a fresh strategy."""
        raise NotImplementedError("StrategyContract: override make() to return the strategy to test")

    def verifier(self) -> Verifier | SetVerifier | None:
        """Return what scores; None for a strategy that needs none."""
        return _ByText()

    def solve(self, model: Model, budget: Budget | Ledger | None = None, strategy: Any = None) -> Result:
        """Return the problem, solved by the strategy."""
        return self.run(
            lambda: solve(
                self.problem, model=model, strategy=strategy or self.make(), verifier=self.verifier(), budget=budget,
                seed=7,
            )
        )  # fmt: skip

    def test_it_returns_a_candidate_that_was_made_through_the_run(self) -> None:
        """The chosen one is of the run, and no call went past it."""
        model = _answers()
        result = self.solve(model)
        assert isinstance(result.best, Scored)
        ids = {c.id for c in result.candidates}
        assert result.best.id in ids, "the chosen candidate is not one that the run made"
        assert result.usage.by_role["model"].calls == sum(map(len, model.requests)), "calls went past the run"
        json.dumps(result.trace.to_dict(), allow_nan=False)

    def test_it_ends_on_any_budget_and_never_overspends(self) -> None:
        """However small the budget, it returns the best that was seen, or there was nothing."""
        for calls in (1, 2, 3, 5, 8, 13):
            model, ledger = _answers(), Ledger(Budget(calls=calls))
            try:
                result = self.solve(model, ledger)
                assert result.best.id in {c.id for c in result.candidates}
            except BudgetExhausted:
                assert not model.requests, "with candidates at hand it raised instead of returning the best"
            assert ledger.spent.calls <= calls and ledger.open_holds == 0
            assert sum(map(len, model.requests)) <= calls

    def test_it_ends_at_the_deadline_with_what_was_seen(self) -> None:
        """A straggler does not hold it past its time."""
        start = time.monotonic()
        try:
            result = self.solve(_Straggling(), Budget(seconds=0.4))
            assert result.best.id in {c.id for c in result.candidates}
        except DeadlineExceeded:
            pass  # nothing had come yet
        assert time.monotonic() - start < 0.4 + self.prompt, "it ran past the deadline"

    def test_a_candidate_that_fails_costs_that_candidate_only(self) -> None:
        """One failure does not end a search that has others."""

        def said(problem: Problem, number: int) -> Any:
            return RequestRefused("400, refused") if number == 0 else f"#### {number % 3}"

        model = _Scripted(said)
        try:
            assert self.solve(model).best.text.startswith("####")
        except AllCandidatesFailed:
            assert len(model.requests) == 1, "one failed candidate ended a search that had others"

    def test_when_all_fail_the_error_says_so(self) -> None:
        """The first cause is named."""
        try:
            self.solve(_Scripted([RequestRefused("400, refused")]))
        except AllCandidatesFailed as error:
            assert isinstance(error.__cause__, RequestRefused), "the first cause is lost"
        else:
            raise AssertionError("it returned a candidate though every call failed")

    def test_the_same_seed_sends_the_same_requests(self) -> None:
        """Its randomness comes from the run alone."""
        first, second = _answers(), _answers()
        self.solve(first)
        self.solve(second)
        assert first.requests == second.requests, "requests differ: take randomness from run.seed only"

    def test_it_keeps_nothing_between_solves(self) -> None:
        """One object serves many solves, at once and one after the other."""
        strategy = self.make()
        alone = self.solve(_answers(), strategy=self.make())

        async def together() -> list[Result]:
            return await asyncio.gather(
                *(
                    solve(self.problem, model=_answers(), strategy=strategy, verifier=self.verifier(), seed=7)
                    for _ in range(4)
                )
            )

        results = [*self.run(together), self.solve(_answers(), strategy=strategy)]
        assert {r.text for r in results} == {alone.text}, "one object gives different results when it is used again"

    def test_cancelling_it_leaves_nothing(self) -> None:
        """No task and no reservation stays behind."""

        async def work() -> None:
            ledger, before = Ledger(Budget(calls=1000)), asyncio.all_tasks()
            task = asyncio.create_task(
                solve(
                    self.problem, model=_answers(latency=30), strategy=self.make(), verifier=self.verifier(),
                    budget=ledger,
                )
            )  # fmt: skip
            await asyncio.sleep(0.05)
            start = time.monotonic()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), "it swallowed its cancellation"
            assert time.monotonic() - start < self.prompt, "it took long to end"
            assert ledger.open_holds == 0 and asyncio.all_tasks() == before

        self.run(work)

    def test_its_configuration_survives_a_round_trip(self) -> None:
        """`to_dict` and `from_dict`, where it has them, are each other's inverse."""
        strategy: Any = self.make()
        if not hasattr(strategy, "to_dict"):
            return
        saved = json.loads(json.dumps(strategy.to_dict()))
        again = type(strategy).from_dict(saved)
        assert again == strategy and again.to_dict() == strategy.to_dict()


class _ByText:
    """Scores that follow from the text alone."""

    name = "by-text"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return Bound(calls=0)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        value = (sum(candidate.text.encode()) % 97) / 97
        return Score(value=value, steps=(value,) * len(candidate.steps), feedback="by its letters")


class _Scripted(ScriptedModel):
    """Goes on with its script when it is asked for a step or a revision: all strategies run on it.

    A line is a step that ends its solution.
    """

    separator = "\n\n"

    async def prepare(self, run: Run) -> None:
        pass

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound:
        return await self.bound(candidate.problem)

    async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Reply:
        return await self.generate(candidate.problem, seeds)

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Bound:
        return await self.bound(problem)

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        return await self.generate(problem, seeds)


class _Straggling(_Scripted):
    """Every third call never comes back."""

    def __init__(self) -> None:
        super().__init__(lambda problem, number: f"#### {number % 3}", limits=Limits(concurrency=64))

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        reply = await super().generate(problem, seeds)
        await asyncio.sleep(3600 if len(self.requests) % 3 == 0 else 0.001)
        return reply


def _answers(latency: float = 0.0) -> ScriptedModel:
    return _Scripted(lambda problem, number: f"so it is\n#### {(number * number) % 5}", latency=latency)
