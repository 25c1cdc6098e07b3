"""The promises of a model."""

from __future__ import annotations

import asyncio
import json
import threading

from tts_plugins.budget import Budget, Limits
from tts_plugins.engine import solve
from tts_plugins.ledger import Ledger
from tts_plugins.protocols import Model
from tts_plugins.strategies import SelfConsistency
from tts_plugins.testing.contracts._shared import (
    Contract,
    check_bound,
    check_reply,
    check_within,
)
from tts_plugins.types import Reply, Result


class ModelContract(Contract):
    """Promises of a `Model`; override `make`.

    Attributes:
        max_tokens_known: False for a model without `max_tokens`, whose bound is then open.
        waits: False if a call is over before it could be cancelled (replay, look-up).
    """

    max_tokens_known: bool = True
    waits: bool = True

    def make(self) -> Model:
        """Return a fresh model that answers `problem`."""
        raise NotImplementedError("ModelContract: override make() to return the model to test")

    def test_it_is_a_model(self) -> None:
        """It has the methods and properties of `protocols.Model`, with values that make sense."""
        model = self.make()
        assert isinstance(model, Model), f"{model!r} lacks a method or a property of protocols.Model"
        assert isinstance(model.name, str) and model.name, "name is empty"
        assert isinstance(model.limits, Limits), "limits must be a budget.Limits"
        assert isinstance(model.batch, int) and model.batch >= 1, "batch must be a whole number of at least 1"

    def test_its_bound_says_the_worst_that_a_call_can_cost(self) -> None:
        """The bound is of one call, and has no open part that could be closed."""
        bound = self.run(lambda: self.make().bound(self.problem))
        if bound is None:
            return  # metered: its framework reserves
        check_bound(bound)
        vectors = bool(getattr(self.make(), "embeds", False))
        assert bound.calls == (0 if vectors else 1), "a generation is one call, and vectors are none"
        if self.max_tokens_known:
            assert bound.completion_tokens is not None, "completion_tokens is open; set max_tokens on the model"

    def test_a_reply_has_a_generation_and_stays_within_the_bound(self) -> None:
        """One seed brings one generation, for no more than the bound."""

        async def work() -> None:
            model = self.make()
            bound, reply = await model.bound(self.problem), await model.generate(self.problem, [1])
            check_reply(reply, 1, vectors=bool(getattr(model, "embeds", False)))
            if bound is not None and reply.usage is not None:
                check_within(reply.usage, bound, len(reply.generations))

        self.run(work)

    def test_a_batch_brings_no_more_than_was_asked_for(self) -> None:
        """Several seeds bring at most as many generations."""

        async def work() -> None:
            model = self.make()
            count = min(model.batch, 3)
            bound, reply = await model.bound(self.problem), await model.generate(self.problem, list(range(count)))
            check_reply(reply, count, vectors=bool(getattr(model, "embeds", False)))
            if bound is not None and reply.usage is not None:
                check_within(reply.usage, bound, count)

        self.run(work)

    def test_a_call_without_a_seed_is_answered_too(self) -> None:
        """A seed may be None."""

        async def work() -> None:
            model = self.make()
            reply = await model.generate(self.problem, [None])
            check_reply(reply, 1, vectors=bool(getattr(model, "embeds", False)))

        self.run(work)

    def test_a_cancelled_call_ends_at_once(self) -> None:
        """CancelledError is not swallowed."""

        async def work() -> None:
            model = self.make()
            task = asyncio.create_task(model.generate(self.problem, [1]))
            await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=self.prompt)
            assert done, f"a cancelled call still ran after {self.prompt:g} s: it swallows CancelledError"
            assert task.cancelled() or not self.waits, "a cancelled call ended as if it had not been cancelled"

        self.run(work)

    def test_it_serves_two_event_loops_at_once(self) -> None:
        """Nothing is kept of one event loop that another one stumbles over."""
        model, ends = self.make(), list[object]()

        async def work() -> None:
            for seed in (1, 2):
                ends.append(await model.generate(self.problem, [seed]))

        def on_a_loop() -> None:
            try:
                self.run(work)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion below
                ends.append(error)

        threads = [threading.Thread(target=on_a_loop) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wrong = [end for end in ends if not isinstance(end, Reply)]
        assert not wrong and len(ends) == 4, f"on two event loops: {wrong}"

    def test_a_solve_over_it_balances(self) -> None:
        """A solve over it stays within its budget, and leaves nothing reserved."""

        async def work() -> tuple[Result, Ledger]:
            ledger = Ledger(Budget(calls=6))
            return await solve(self.problem, model=self.make(), strategy=SelfConsistency(n=4), budget=ledger), ledger

        result, ledger = self.run(work)
        assert 1 <= len(result.candidates) <= 4
        assert ledger.open_holds == 0 and ledger.spent.calls <= 6
        json.dumps(result.trace.to_dict(), allow_nan=False)
