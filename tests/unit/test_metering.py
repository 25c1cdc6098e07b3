"""The meter of a framework's calls: what it holds, charges, refuses, and waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tts_plugins import Budget, Ledger, Limits, Problem, SelfConsistency, Usage, solve
from tts_plugins._calls.prompt_bound import PromptBound, Written
from tts_plugins.budget import Bound
from tts_plugins.errors import BudgetExhausted, ConfigurationError, UnboundedCallError, UnknownPriceError
from tts_plugins.metering import Call, Meter, MeterClosed
from tts_plugins.types import Generation, Reply

CALL = Call(model="m", prompt={"messages": ["hi"]}, max_tokens=10)


def end(meter: Meter, key: object, prompt: int | None = 5, completion: int | None = 3, **settings: Any) -> None:
    texts = settings.pop("texts", ["a text"])
    meter.end(
        key, prompt_tokens=prompt, completion_tokens=completion, texts=texts, truncated=[False] * len(texts), **settings
    )


def test_it_holds_the_worst_and_charges_the_count() -> None:
    account = Ledger(Budget(tokens=1000))
    meter = Meter(account, role="verifier")
    meter.start("a", CALL)
    assert account.held.calls == 1 and account.held.tokens >= 15
    end(meter, "a")
    assert account.spent.tokens == 8 and account.held.tokens == 0 and account.usage.by_role["verifier"].calls == 1
    assert meter.usage.tokens == 8 and meter.usage.exact


def test_a_call_without_a_limit_overshoots_nothing() -> None:
    account = Ledger(Budget(calls=3))
    meter = Meter(account)
    meter.start("a", Call(model="m", prompt={"messages": ["hi"]}, max_tokens=None))
    end(meter, "a", completion=5000)
    assert account.usage.tokens == 5005 and not any(account.overshoot)


def test_several_choices_are_several_calls() -> None:
    account = Ledger()
    meter = Meter(account)
    meter.start("a", Call(model="m", prompt={"messages": ["hi"]}, max_tokens=10, choices=3))
    end(meter, "a", completion=9, texts=["one", "two", "three"])
    assert account.usage.calls == 3 and account.usage.requests == 1 and account.usage.tokens == 14


@pytest.mark.parametrize(("prompt", "completion"), [(None, 3), (5, None), (-7, -7), (5, 10**15)])
def test_a_count_that_is_missing_or_impossible_is_a_bound(prompt: int | None, completion: int | None) -> None:
    account = Ledger()
    meter = Meter(account)
    meter.start("a", CALL)
    end(meter, "a", prompt, completion)
    assert not account.usage.exact and account.usage.tokens >= 8


def test_a_cache_hit_costs_nothing() -> None:
    account = Ledger()
    meter = Meter(account)
    meter.start("a", CALL)
    end(meter, "a", cached=True)
    assert account.usage == Usage() and account.open_holds == 0


@pytest.mark.parametrize(("charge", "calls", "completion"), [("reserve", 1, 10), ("call", 1, 0), ("nothing", 0, 0)])
def test_failures(charge: Any, calls: int, completion: int) -> None:
    account = Ledger()
    meter = Meter(account)
    meter.start("a", CALL)
    meter.fail("a", charge)
    meter.fail("a", charge)
    assert (account.usage.calls, account.usage.completion_tokens, account.open_holds) == (calls, completion, 0)


def test_closing_charges_what_is_open_and_lets_nothing_start() -> None:
    account = Ledger()
    meter = Meter(account)
    meter.start("a", CALL)
    assert meter.close().completion_tokens == 10
    end(meter, "a")
    with pytest.raises(MeterClosed):
        meter.start("b", CALL)
    assert account.usage.calls == 1 and account.open_holds == 0


def test_refusals() -> None:
    meter = Meter(Ledger(Budget(calls=1)))
    meter.start("a", CALL)
    with pytest.raises(BudgetExhausted) as caught:
        meter.start("b", CALL)
    assert meter.refusal is caught.value and meter.refused is not None
    with pytest.raises(UnboundedCallError, match="m: max_tokens"):
        Meter(Ledger(Budget(tokens=9))).start("a", Call(model="m", prompt={}))
    with pytest.raises(UnknownPriceError, match="m: its price"):
        Meter(Ledger(Budget(usd=1.0))).start("a", CALL)
    with pytest.raises(ConfigurationError, match="no solve is running here"):
        Meter.here()


def test_prices_by_model_or_for_all() -> None:
    for prices in ((1.0, 2.0), {"priced": (1.0, 2.0)}):
        account = Ledger(Budget(usd=1.0))
        meter = Meter(account, prices=prices)
        meter.start("a", Call(model="priced", prompt={"messages": ["long " * 1_000]}, max_tokens=10))
        end(meter, "a", 1_000, 2)
        assert account.usage.usd == pytest.approx(0.001004)


@pytest.mark.parametrize("prices", [([1.0], 2.0), (1.0,), ("1", 2.0), {"m": ({}, 2.0)}])
def test_a_price_that_is_none_is_an_error_of_the_settings(prices: Any) -> None:
    """Regression: one that cannot be hashed was a bare TypeError."""
    meter = Meter(Ledger(Budget(usd=1.0)), prices=prices)
    with pytest.raises(ConfigurationError, match="must be two prices"):
        meter.start("a", Call(model="m", prompt={"messages": []}, max_tokens=10))


async def test_room_is_waited_for_and_handed_to_the_next_attempt() -> None:
    account = Ledger(Budget(calls=1))
    first, second = Meter(account), Meter(account)
    first.start("a", CALL)
    with pytest.raises(BudgetExhausted):
        second.start("b", CALL)
    waiting = asyncio.create_task(second.room())
    await asyncio.sleep(0.02)
    first.fail("a", "nothing")
    again = Meter(account, prepaid=await waiting)
    again.start("b", CALL)
    assert account.held.calls == 1
    again.close()
    assert account.spent.calls == 1 and account.open_holds == 0


class Metered:
    """A model whose calls a meter reserves; each takes a moment, and much less than it might."""

    name, limits, batch, call = "metered", Limits(), 1, CALL

    async def bound(self, problem: Problem) -> None:
        return None

    async def generate(self, problem: Problem, seeds: Any) -> Reply:
        prepaid = None
        while True:
            meter = Meter.here(prepaid=prepaid)
            try:
                meter.start("a", self.call)
                await asyncio.sleep(0.001)
                end(meter, "a")
                return Reply(generations=(Generation(text="4"),), usage=meter.close())
            except BudgetExhausted:
                prepaid = await meter.room()
            finally:
                meter.close()


@pytest.mark.parametrize(("tokens", "candidates"), [(100, 8), (160, 16), (100_000, 16)])
async def test_solves_over_a_metered_model_use_all_that_fits(tokens: int, candidates: int) -> None:
    await solve("?", model=Metered(), strategy=SelfConsistency(n=1))  # what prompts take is known from then on
    result = await asyncio.wait_for(
        solve("?", model=Metered(), strategy=SelfConsistency(n=16), budget=Budget(tokens=tokens)), 60
    )
    assert result.usage.tokens == 8 * len(result.candidates) <= tokens and len(result.candidates) >= candidates // 2
    assert (result.stopped == "budget") is (len(result.candidates) < 16)


@pytest.mark.parametrize("way", ["metered", "priced"])
async def test_who_waits_takes_what_is_known_by_then_of_prompts(way: str) -> None:
    class Priced(Metered):
        """The same, where the engine reserves."""

        prompts = PromptBound()

        async def bound(self, problem: Problem) -> Any:
            return Bound(prompt_tokens=self.prompts.of(Written.of(asked.prompt)), completion_tokens=10)

        async def generate(self, problem: Problem, seeds: Any) -> Reply:
            await asyncio.sleep(0.001)
            self.prompts.saw(Written.of(asked.prompt), 5)
            usage = Usage(calls=1, requests=1, prompt_tokens=5, completion_tokens=3)
            return Reply(generations=(Generation(text="4"),), usage=usage)

    model = Metered() if way == "metered" else Priced()
    asked = model.call = Call(model="seen first here", prompt={"messages": ["hi" * 20]}, max_tokens=10)
    account = Ledger(Budget(tokens=400))
    results = await asyncio.gather(
        *(solve("?", model=model, strategy=SelfConsistency(n=1), budget=account) for _ in range(64)),
        return_exceptions=True,
    )
    done = [r for r in results if not isinstance(r, BaseException)]
    assert {type(r) for r in results if isinstance(r, BaseException)} == {BudgetExhausted}
    # 8 tokens each, of which 15 have to be held: the last that fits is the one before 400 - 15.
    assert account.spent.tokens == 8 * len(done) <= 400 and len(done) >= 48


def test_a_call_that_ends_after_its_meter_is_known_to_have_been_charged() -> None:
    account = Ledger(Budget(calls=1))
    meter = Meter(account)
    meter.start("a", CALL)
    meter.close()
    assert meter.knows("a") and not meter.knows("b")
    end(meter, "a")
    assert account.spent.calls == 1 and account.overshoot.calls == 0


async def test_too_small_a_budget_is_refused_at_once() -> None:
    with pytest.raises(BudgetExhausted):
        await asyncio.wait_for(solve("?", model=Metered(), budget=Budget(tokens=3)), 60)
