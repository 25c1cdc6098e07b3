"""Right and wrong calls, for type checkers: every line marked with `wrong` has to be an error, and no other."""

from __future__ import annotations

from typing import Any

import dspy
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from tts_plugins_dspy import Scaled
from tts_plugins_langchain import ScaledChatModel, scale

from tts_plugins import BestOfN, Budget, Ledger, Result, solve_many, solve_sync
from tts_plugins.models import CallableModel

model = CallableModel(lambda problem: "4")
chat = FakeListChatModel(responses=["4"])
chain: RunnableLambda[str, str] = RunnableLambda(lambda value: "4")
program: Any = dspy.Predict("question -> answer")


def right() -> None:
    result: Result = solve_sync("2 + 2?", model=model, strategy=BestOfN(n=2), verifier=lambda p, c: 1.0, seed=1)
    assert result.text
    text: str = scale(chain, n=3, strategy="best-of-n", verifier=lambda output: 1.0, budget=Budget(calls=4)).invoke("q")
    assert text
    scale(chain, verifier=chain, profile="small", revision="attempts", name="mine", price=(1.0, 2.0))
    ScaledChatModel(chat, n=3, temperature=0.7, budget=Ledger(), on_exhausted="raise").invoke("q")
    ScaledChatModel(model=chat, tts_profile="small")
    Scaled(program, n=3, verifier=lambda prediction: 1.0)


async def right_too() -> None:
    results: list[Result] = await solve_many(["q"], model=model, concurrency=2, attempts=1)
    assert results


def wrong_ones() -> None:
    solve_sync("2 + 2?", model=model, strateg=BestOfN(n=2))  # wrong
    solve_sync("2 + 2?", model=model, seed="x")  # wrong
    solve_sync("2 + 2?", strategy=BestOfN(n=2))  # wrong
    scale(chain, n="x")  # wrong
    scale(chain, strateg="best-of-n")  # wrong
    scale(chain, on_exhausted="maybe")  # wrong
    scale(chain, budget=3)  # wrong
    ScaledChatModel(chat, n="x")  # wrong
    ScaledChatModel(chat, temprature=0.7)  # wrong
    Scaled(program, strateg="best-of-n")  # wrong
    Scaled(program, n="x")  # wrong


async def wrong_too() -> None:
    await solve_many(["q"], model=model, strateg=BestOfN(n=2))  # wrong
    await solve_many(["q"], model=model, attempts="x")  # wrong
