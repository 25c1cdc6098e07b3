"""Nothing of a search waits for the collector of cycles: a full collection costs more than many searches do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, SelfConsistency
from tts_plugins.testing.loopback import LoopbackServer

pytest.importorskip("aiohttp")
WAYS: list[dict[str, Any]] = [
    {"strategy": BestOfN(n=3), "verifier": lambda output: len(str(output)) % 7 / 7, "budget": Budget(calls=3)},
    {"strategy": SelfConsistency(n=3), "budget": Budget(tokens=100_000)},
]


def garbage_of(search: Callable[[], object]) -> list[str]:
    """What of ours only the collector can free after a search; the first one fills caches, and does not count."""
    search()
    gc.collect()
    gc.freeze()  # what other tests have left may come free at any moment
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        search()
        gc.collect()
        return sorted({type(o).__qualname__ for o in gc.garbage if type(o).__module__.startswith("tts_plugins")})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """It answers as DSPy's adapter wants it."""
    with LoopbackServer(reply="[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]", record=False) as server:
        yield server


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("settings", WAYS)
def test_a_search_of_dspy(server: LoopbackServer, settings: dict[str, Any], asynchronous: bool) -> None:
    dspy = pytest.importorskip("dspy")
    from tts_plugins_dspy import Scaled

    lm = dspy.LM("openai/m", api_base=server.base_url, api_key="-", max_tokens=64, num_retries=0, cache=False)
    scaled = Scaled(dspy.Predict("question -> answer"), **settings)

    def search() -> None:
        with dspy.context(lm=lm):
            asyncio.run(scaled.acall(question="?")) if asynchronous else scaled(question="?")

    assert garbage_of(search) == []
    getattr(lm, "close", lambda: None)()  # DSPy 3.4 has it


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("settings", WAYS)
def test_a_search_of_langchain(settings: dict[str, Any], asynchronous: bool) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from tts_plugins_langchain import scale

    class Endless(Iterator[Any]):
        def __next__(self) -> Any:
            return "4"

    class Fake(GenericFakeChatModel):
        max_tokens: int = 24

    chain = ChatPromptTemplate.from_template("What is {x}?") | Fake(messages=Endless()) | StrOutputParser()
    scaled = scale(chain, **settings)

    def search() -> None:
        asyncio.run(scaled.ainvoke({"x": 1})) if asynchronous else scaled.invoke({"x": 1})

    assert garbage_of(search) == []
