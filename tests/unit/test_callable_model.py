from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest

from tts_plugins import Budget, Ledger, SelfConsistency, solve, solve_sync
from tts_plugins.errors import ConfigurationError, MalformedResponse, TTSError
from tts_plugins.models import CallableModel
from tts_plugins.models.callable import as_generation
from tts_plugins.types import Generation, Problem, Usage

PROBLEM = Problem("hello")


async def made(function: Any, seeds: Any = (7,), **settings: Any) -> tuple[Generation, Usage | None]:
    reply = await CallableModel(function, **settings).generate(PROBLEM, seeds)
    assert len(reply.generations) == 1
    return reply.generations[0], reply.usage


@pytest.mark.parametrize(
    ("result", "text", "output"),
    [
        ("hi", "hi", None),
        ("", "", None),
        (Generation(text="g", output=3), "g", 3),
        (42, "42", 42),
        (SimpleNamespace(text="t", content="c"), "t", ...),
        (SimpleNamespace(text=lambda: "t", content="c"), "c", ...),  # regression: it was the object's repr
        (SimpleNamespace(text="", content="c"), "c", ...),
        (SimpleNamespace(content=""), "", ...),
        ({"a": [1, "é"]}, '{"a": [1, "é"]}', ...),  # regression: Python's repr, which is not JSON
        ([1, 2], "[1, 2]", ...),
        ({"a": {1, 2}}, "{'a': {1, 2}}", ...),
    ],
)
def test_results_become_generations(result: Any, text: str, output: Any) -> None:
    generation = as_generation(result)
    assert generation.text == text and generation.output == (result if output is ... else output)


async def test_seeds_go_where_they_are_asked_for() -> None:
    assert (await made(lambda content, seed: f"{content} {seed}"))[0].text == "hello 7"
    assert (await made(lambda content, *, seed=None: f"{content} {seed}"))[0].text == "hello 7"
    assert (await made(lambda content: content))[0].text == "hello"
    assert (await made(lambda seed: seed))[0].text == "hello"  # regression: two values for one parameter
    assert (await made(lambda content, seed=1, /: f"{seed}"))[0].text == "1"
    assert (await made(str.upper))[0].text == "HELLO"


async def test_asynchronous_functions() -> None:
    async def echo(content: str) -> str:
        return content

    assert (await made(echo))[0].text == "hello"
    assert (await made(lambda content: echo(content)))[0].text == "hello"


async def test_none_is_no_solution() -> None:
    with pytest.raises(MalformedResponse, match="chain: the function returned None"):
        await made(lambda content: None, name="chain")


async def test_what_it_reports_counts_as_a_call_and_costs_its_tokens() -> None:
    """Regression: Usage(prompt_tokens=…) without calls and usd was free of both limits."""
    said = Usage(prompt_tokens=1000, completion_tokens=2000)
    _, usage = await made(lambda c: ("x", said), price=(1.0, 10.0))
    assert usage is not None and (usage.calls, usage.usd) == (1, pytest.approx(0.021))
    _, usage = await made(lambda c: ("x", Usage(calls=3, usd=0.5)), price=(1.0, 10.0))
    assert usage is not None and (usage.calls, usage.usd) == (3, 0.5)
    result = await solve("x", model=CallableModel(lambda c: ("4", said)), strategy=SelfConsistency(n=6),
                         budget=Budget(calls=3))  # fmt: skip
    assert result.usage.calls == 3 and result.stopped == "budget" and len(result.candidates) == 3


@pytest.mark.parametrize("own", [Usage(), Usage(calls=1, prompt_tokens=400, completion_tokens=400, usd=0.5)])
async def test_what_solves_inside_have_paid_is_not_charged_again(own: Usage) -> None:
    """Regression: a function that ran solves, and returned what they cost, was charged twice."""
    inner = CallableModel(lambda c: ("4", Usage(prompt_tokens=10, completion_tokens=5, usd=0.25)), name="inner")

    def function(content: str) -> tuple[str, Usage]:
        results = [solve_sync(content, model=inner, strategy=SelfConsistency(n=3)) for _ in range(2)]
        return results[0].text, results[0].usage + results[1].usage + own

    ledger = Ledger(Budget(calls=20))
    await solve("x", model=CallableModel(function), strategy=SelfConsistency(n=2), budget=ledger)
    used = ledger.usage
    assert (used.calls, used.usd) == (2 * (6 + own.calls), 2 * (6 * 0.25 + (own.usd or 0.0)))
    assert (used.prompt_tokens, used.completion_tokens) == (
        2 * (60 + own.prompt_tokens),
        2 * (30 + own.completion_tokens),
    )
    assert ledger.spent.calls == used.calls and ledger.open_holds == 0


async def test_a_report_below_what_solves_inside_have_paid_is_of_its_own_part() -> None:
    inner = CallableModel(lambda c: ("4", Usage(prompt_tokens=10, completion_tokens=5)), name="inner")

    def function(content: str) -> tuple[str, Usage]:
        return solve_sync(content, model=inner, strategy=SelfConsistency(n=3)).text, Usage(prompt_tokens=7)

    ledger = Ledger()
    await solve("x", model=CallableModel(function), strategy=SelfConsistency(n=1), budget=ledger)
    assert (ledger.usage.calls, ledger.usage.prompt_tokens, ledger.usage.completion_tokens) == (4, 37, 15)


async def test_a_negative_report_is_an_error_and_leaves_nothing_held() -> None:
    with pytest.raises(TTSError, match="completion_tokens=-100"):
        await solve("x", model=CallableModel(lambda c: ("4", Usage(completion_tokens=-100)), max_tokens=5),
                    strategy=SelfConsistency(n=2), budget=Budget(tokens=1000))  # fmt: skip


async def test_bounds() -> None:
    assert (await CallableModel(str).bound(PROBLEM)).completion_tokens is None
    bound = await CallableModel(str, max_tokens=10, price=(1.0, 2.0)).bound(PROBLEM)
    assert bound.prompt_tokens >= len("hello") and bound.completion_tokens == 10
    assert bound.usd == pytest.approx((bound.prompt_tokens + 20) / 1e6)


@pytest.mark.parametrize(
    "settings",
    [{"function": 5}, {"max_tokens": 0}, {"concurrency": 0}, {"price": (1.0,)}, {"price": (-1.0, 1.0)},
     {"price": (math.inf, 1.0)}],
)  # fmt: skip
def test_wrong_settings_fail_at_construction(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        CallableModel(**{"function": str, **settings})


async def test_records_of_a_chain_reach_verifiers_as_json() -> None:
    generation, _ = await made(lambda c: {"id": 1})
    assert json.loads(generation.text) == generation.output
