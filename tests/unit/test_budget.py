from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tts_plugins.budget import FREE, Amount, Bound, Budget, Limits, Need
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.ledger import Ledger
from tts_plugins.types import Usage


def test_a_budget_without_a_limit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no limit is given"):
        Budget()


@pytest.mark.parametrize("name", ["calls", "tokens", "usd", "seconds"])
@pytest.mark.parametrize("value", [0, -1, True, "5", math.nan, math.inf])
def test_a_limit_is_a_number_above_zero(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}".replace("'", ".")):
        Budget(**{name: value})


@pytest.mark.parametrize("name", ["calls", "tokens", "usd", "seconds"])
def test_a_limit_is_a_number_that_can_be_reckoned_with(name: str) -> None:
    """Regression: a whole number too large for a float was an OverflowError."""
    for value in (10**18, 10**400, 10**5000):
        with pytest.raises(ConfigurationError, match=rf"{name}=.* must be below 1e\+18"):
            Budget(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["calls", "tokens"])
def test_what_is_counted_is_whole(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=1.5 must be a whole number"):
        Budget(**{name: 1.5})  # type: ignore[arg-type]


def test_budgets_compare_and_tell_their_limits() -> None:
    budget = Budget(calls=3, usd=0.05)
    assert budget == Budget(usd=0.05, calls=3) and hash(budget) == hash(Budget(usd=0.05, calls=3))
    assert budget.to_dict() == {"calls": 3, "usd": 0.05}
    assert [budget.limit(d) for d in ("calls", "tokens", "picousd")] == [3, None, 50_000_000_000]


@pytest.mark.parametrize(("usd", "pico"), [(0.1 + 0.2, 300_000_000_000), (1e-12, 1), (0.07, 70_000_000_000), (0.0, 0)])
def test_money_is_whole_picodollars(usd: float, pico: int) -> None:
    assert Amount.of(usd=usd).picousd == pico


def test_money_held_is_rounded_up_and_an_unknown_price_holds_none() -> None:
    assert Amount.of(usd=1.5e-12).picousd == 2
    assert Amount.of(usd=None) == Amount()
    assert Amount.used(Usage(calls=2, prompt_tokens=3, completion_tokens=4, usd=1e-6)) == Amount(2, 7, 1_000_000)


@settings(max_examples=500)
@given(st.integers(1, 10**7), st.integers(0, 10**7), st.integers(1, 64))
@example(22, 2676683, 11)
def test_n_times_a_price_covers_the_price_of_n(into: int, out: int, count: int) -> None:
    one = (into * 0.15 + out * 0.6) / 1e6
    hold = Amount.of(usd=one).times(count)
    # Regression: it was 1e-12 dollars above, and reported as an overshoot.
    assert Amount.used(Usage(usd=one * count)).excess(hold).picousd == 0
    assert hold.usd == pytest.approx(one * count, abs=1e-10)


amounts = st.builds(Amount, st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))


@given(amounts, amounts)
def test_arithmetic(a: Amount, b: Amount) -> None:
    assert a.plus(b).minus(b) == a and a.times(3) == a.plus(a).plus(a)
    assert b.plus(a.excess(b)) == Amount(*map(max, a, b))


def test_amounts_in_words() -> None:
    assert str(Amount(2, 30)) == "2 calls, 30 tokens"
    assert str(Amount(2, 30, 1_500_000)) == "2 calls, 30 tokens, $0.000002"


def test_bounds() -> None:
    bound = Bound(prompt_tokens=10, completion_tokens=20, usd=0.5)
    assert bound.amount == Amount(1, 30, 500_000_000_000) and FREE.amount == Amount()
    assert bound.usage(3) == Usage(calls=3, requests=1, prompt_tokens=30, completion_tokens=60, usd=1.5, exact=False)
    assert bound.usage(tokens=False) == Usage(calls=1, requests=1, usd=0.0, exact=True)
    assert Bound(completion_tokens=None, usd=None).amount == Amount(1)
    assert Bound(usd=None).usage().usd is None


@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
@pytest.mark.parametrize("value", [0, -3, True, "7"])
def test_limits_are_above_zero(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: value})


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_request_for_several_choices_holds_its_prompt_once_and_is_charged_within_that(count: int) -> None:
    price = lambda prompt, completion: (prompt * 0.137 + completion * 0.611) / 1e6  # noqa: E731
    bound = Bound(
        prompt_tokens=1_003, completion_tokens=77, usd=price(1_003, 77), shared_tokens=1_003,
        shared_usd=price(1_003, 0),
    )  # fmt: skip
    held, worst = bound.need.times(count), bound.usage(count)
    assert held.tokens == 1_003 + 77 * count == worst.tokens and held.calls == count == worst.calls
    assert worst.usd == pytest.approx(price(1_003, 77 * count))
    assert Amount.used(worst).excess(held) == Amount()
    assert count > 1 or held == bound.amount


def test_what_is_not_said_to_be_shared_is_held_for_each_choice() -> None:
    bound = Bound(prompt_tokens=10, completion_tokens=5, usd=0.5)
    assert bound.need.times(3) == bound.amount.times(3) and bound.usage(3).tokens == 45


def test_as_many_as_fit_beside_what_is_taken_once() -> None:
    need = Need(Amount(1, 10), Amount(0, 50))
    ledger = Ledger(Budget(tokens=89, calls=9))
    assert ledger.fits(need, 8) == 3
    hold = ledger.reserve(need, at_most=8)
    assert (hold.units, hold.size) == (3, Amount(3, 80))
    with pytest.raises(BudgetExhausted, match="may take 1 call, 60 tokens"):
        ledger.reserve(need)
