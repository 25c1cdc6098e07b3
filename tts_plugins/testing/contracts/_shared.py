"""What the contracts share: a loop for each test, and what bounds, replies and usages have to be."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tts_plugins.budget import Bound
from tts_plugins.types import Generation, Problem, Reply, Usage

T = TypeVar("T")


class Contract:
    """What the three share."""

    problem: Problem = Problem("What is 17 * 23? Show your work, then give the answer after ####.")
    """What is asked; override it if yours needs another form."""
    prompt: float = 10.0
    """Seconds within which what is cancelled has to end, and what has a deadline after it; busy machines are slow."""

    def run(self, function: Callable[[], Coroutine[Any, Any, T]], seconds: float = 60.0) -> T:
        """Return the result of a coroutine on a loop of its own; a hang is a failure."""

        async def limited() -> T:
            async with asyncio.timeout(seconds):
                return await function()

        return asyncio.run(limited())


def draws_elsewhere(bound: Bound) -> bool:
    """Return whether a local function may run solves: those draw on the account around it, beyond its own bound."""
    return bound.calls == 0


def check_bound(bound: Any) -> None:
    """Check that it is a bound, and that no part is negative."""
    assert isinstance(bound, Bound), f"bound returned {bound!r}, which is not a budget.Bound"
    assert bound.calls >= 0 and bound.prompt_tokens >= 0, f"{bound}: negative"
    assert bound.completion_tokens is None or bound.completion_tokens >= 0, f"{bound}: negative"
    assert bound.usd is None or (math.isfinite(bound.usd) and bound.usd >= 0), f"{bound}: usd is not an amount of money"


def check_reply(reply: Any, asked: int, *, vectors: bool = False) -> None:
    """Check that it is a reply of at most so many generations; `vectors` are no generations, and count no calls."""
    assert isinstance(reply, Reply), f"generate returned {reply!r}, which is not a types.Reply"
    assert 1 <= len(reply.generations) <= asked, f"{len(reply.generations)} generations for {asked} seeds"
    for generation in reply.generations:
        assert isinstance(generation, Generation), f"{generation!r} is not a types.Generation"
        assert isinstance(generation.text, str), f"its text is {generation.text!r}; give a str, empty for a tool call"
        assert isinstance(generation.finish_reason, str), f"finish_reason is {generation.finish_reason!r}"
    if reply.usage is not None:
        least = 0 if vectors else len(reply.generations)
        assert reply.usage.calls >= least, "usage.calls counts generations, and is too low"


def check_within(usage: Usage, bound: Bound, count: int) -> None:
    """Check that the usage is at most so many calls at their bound."""
    assert usage.calls <= bound.calls * count, f"{usage.calls} calls are more than its bound of {bound.calls} each"
    if bound.completion_tokens is None:
        return
    most = (bound.prompt_tokens + bound.completion_tokens) * count
    assert usage.tokens <= most, f"{usage.tokens} tokens are more than its bound of {most}"
    if usage.usd is not None and bound.usd is not None:
        assert usage.usd <= bound.usd * count + 1e-12, f"{usage.usd} dollars are more than its bound"
