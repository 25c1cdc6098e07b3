"""Right and wrong calls, for type checkers: every line marked with `wrong` has to be an error, and no other."""

from __future__ import annotations

from typing import Any

import dspy
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from openai import AsyncOpenAI, OpenAI
from tts_plugins_dspy import BestOfN as BestOfNProgram
from tts_plugins_dspy import Refine, Scaled, ScaledLM
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale
from tts_plugins_openai import scale as scale_client

from tts_plugins import BestOfN, Budget, Ledger, Result, solve, solve_events, solve_many, solve_sync
from tts_plugins.models import CallableModel

model = CallableModel(lambda problem: "4")
chat = FakeListChatModel(responses=["4"])
chain: RunnableLambda[str, str] = RunnableLambda(lambda value: "4")
client = OpenAI(api_key="no key")
aclient = AsyncOpenAI(api_key="no key")
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
    Scaled(program, strategy="best-of-n", profile="small", temperature=None, copy=True, budget={"calls": 3})
    ScaledLM(program, strategy=BestOfN(n=2), temperature=0.7, concurrency=4, on_exhausted="raise")
    BestOfNProgram(program, 3, lambda inputs, prediction: 1.0, 0.5, wave=3, seed=1)
    BestOfNProgram(program, n=3, verifier=lambda prediction: 1.0, price=(1.0, 2.0))
    Refine(program, N=3, reward_fn=lambda inputs, prediction: 1.0, chains=1, budget=Budget(calls=4))
    TestTimeScaling(n=3, strategy="best-of-n", budget=Ledger(), when_exhausted="end", name="mine", profile="small")
    TestTimeScaling(revision=lambda problem, attempts: [], on_exhausted="raise", seed=None)
    scaled: OpenAI = scale_client(client, n=3, strategy="best-of-n", profile="small", concurrency=None)
    ascaled: AsyncOpenAI = scale_client(aclient, verifier=lambda message: 1.0, answer=str, seed=1)
    assert scaled and ascaled


async def right_too() -> None:
    results: list[Result] = await solve_many(["q"], model=model, concurrency=2, attempts=1)
    assert results
    result: Result = await solve("2 + 2?", model=model, budget=Ledger(), on_exhausted="raise", listener=print)
    events = solve_events("2 + 2?", model=model, seed=None, answer=str)
    result = await events.wait()
    assert result


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
    Scaled(program, copy="no")  # wrong
    Scaled(program, 8)  # wrong
    ScaledLM(program, 8)  # wrong
    scale(chain, 8)  # wrong
    scale_client(client, 8)  # wrong
    TestTimeScaling(8)  # wrong
    ScaledLM(program, strateg="best-of-n")  # wrong
    ScaledLM(program, copy=True)  # wrong
    BestOfNProgram(program, 3, temprature=0.7)  # wrong
    BestOfNProgram(program, 3, strategy="best-of-n")  # wrong
    BestOfNProgram(program, 3, chains=1)  # wrong
    Refine(program, 3, treshold=0.7)  # wrong
    Refine(program, 3, budget=3)  # wrong
    TestTimeScaling(strateg="best-of-n")  # wrong
    TestTimeScaling(when_exhausted="never")  # wrong
    TestTimeScaling(revision="attempts")  # wrong
    scale_client(client, strateg="best-of-n")  # wrong
    scale_client(aclient, on_exhausted="never")  # wrong
    scale_client("client")  # wrong
    solve_events("2 + 2?", model=model, strateg=BestOfN(n=2))  # wrong
    solve_events("2 + 2?")  # wrong


async def wrong_too() -> None:
    await solve_many(["q"], model=model, strateg=BestOfN(n=2))  # wrong
    await solve_many(["q"], model=model, attempts="x")  # wrong
    await solve("2 + 2?", model=model, strateg=BestOfN(n=2))  # wrong
    await solve("2 + 2?", model=model, on_exhausted="never")  # wrong
    await solve("2 + 2?")  # wrong
