"""The promises of a verifier."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from tts_plugins.budget import Bound, Budget
from tts_plugins.engine import solve
from tts_plugins.ledger import Ledger
from tts_plugins.protocols import Model, SetVerifier, Verifier
from tts_plugins.strategies import BestOfN
from tts_plugins.testing.contracts._shared import (
    Contract,
    check_bound,
    check_within,
    draws_elsewhere,
)
from tts_plugins.testing.scripted import ScriptedModel
from tts_plugins.types import Result, Usage


class VerifierContract(Contract):
    """Promises of a `Verifier` or a `SetVerifier`; override `make`, and `texts` if yours needs others.

    Attributes:
        texts: solutions to score; at least one of them must get a score.
    """

    texts: Sequence[str] = ("17 * 23 = 391\n#### 391", "17 * 20 + 17 * 3 = 340 + 51\n#### 391", "#### 400")

    def make(self) -> Verifier | SetVerifier:
        """Return a fresh verifier."""
        raise NotImplementedError("VerifierContract: override make() to return the verifier to test")

    def model(self) -> Model:
        """Return what writes the solutions that are scored: `texts`, over and over."""
        return ScriptedModel(list(self.texts), max_tokens=64, completion_tokens=32)

    def solve(self, verifier: Verifier | SetVerifier, budget: Budget | Ledger | None = None) -> Result:
        """Return the texts, scored in a solve."""
        strategy = BestOfN(n=len(self.texts))
        return self.run(
            lambda: solve(self.problem, model=self.model(), verifier=verifier, strategy=strategy, budget=budget, seed=1)
        )

    def test_it_is_a_verifier(self) -> None:
        """It has the methods and properties of `protocols.Verifier` or `SetVerifier`."""
        verifier = self.make()
        assert isinstance(verifier, Verifier | SetVerifier), f"{verifier!r} has neither score nor score_set"
        assert isinstance(verifier.name, str) and verifier.name, "name is empty"

    def test_its_bound_says_the_worst_that_a_score_can_cost(self) -> None:
        """The bound is one, for candidates of known and of unknown length."""
        for tokens in (None, 0, 64):
            check_bound(self.run(lambda tokens=tokens: self.make().bound(self.problem, tokens)))  # type: ignore[misc]

    def test_scores_are_finite_and_between_0_and_1(self) -> None:
        """What is not a score is raised as `VerifierError`, never returned."""
        result = self.solve(self.make())
        assert result.candidates, "no candidate got a score"
        for candidate in result.candidates:
            assert candidate.score is not None and 0 <= candidate.score <= 1, f"score {candidate.score!r}"
            assert all(0 <= s <= 1 for s in candidate.step_scores)
            assert isinstance(candidate.feedback, str)
        failed = [e["error"] for e in result.trace if e["kind"] == "candidate" and "error" in e]
        garbage = [e for e in failed if e.startswith("InvalidScore")]
        assert not garbage, f"it returned what is not a score: {garbage[0] if garbage else ''}"
        json.dumps(result.trace.to_dict(), allow_nan=False)

    def test_it_leaves_the_candidate_as_it_was(self) -> None:
        """It scores, and changes nothing."""
        result = self.solve(self.make())
        assert {c.text for c in result.candidates} <= set(self.texts), "the text of a candidate was changed"

    def test_it_spends_no_more_than_its_bound(self) -> None:
        """Its calls go through `run.generate`, and cost no more than was reserved."""

        async def worst() -> Bound:
            return await self.make().bound(self.problem, 64)

        bound, ledger = self.run(worst), Ledger()
        result = self.solve(self.make(), ledger)
        spent = result.usage.by_role.get("verifier", Usage())
        if not draws_elsewhere(bound):
            check_within(spent, bound, len(self.texts))
        assert ledger.open_holds == 0, "it left a reservation open"

    def test_a_budget_that_fits_its_bound_is_enough(self) -> None:
        """A budget of exactly its bound lets every candidate be scored."""

        async def worst() -> tuple[Bound, Bound]:
            generation = await self.model().bound(self.problem)
            return generation or Bound(), await self.make().bound(self.problem, 64)

        generation, bound = self.run(worst)
        calls = (generation.calls + bound.calls) * len(self.texts)
        ledger = Ledger(Budget(calls=calls))
        if draws_elsewhere(bound):
            return
        result = self.solve(self.make(), ledger)
        assert ledger.spent.calls <= calls
        assert result.stopped == "complete", f"with {calls} calls it ended by {result.stopped}: its bound is too low"

    def test_a_cancelled_score_ends_at_once(self) -> None:
        """CancelledError is not swallowed."""

        async def work() -> None:
            before = asyncio.all_tasks()
            task = asyncio.create_task(
                solve(self.problem, model=self.model(), verifier=self.make(), strategy=BestOfN(n=len(self.texts)))
            )
            for _ in range(100):  # the solutions are there, and are being scored, however busy the machine
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            left = {other for other in asyncio.all_tasks() - before if other.cancelling()}
            if left:
                _, left = await asyncio.wait(left, timeout=self.prompt)
            assert not left, "a cancelled score still ran: it swallows CancelledError"

        self.run(work)
