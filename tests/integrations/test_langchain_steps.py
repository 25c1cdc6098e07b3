"""Search over steps through `ScaledChatModel`, over a real ChatOpenAI on servers that continue a text in their ways."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("aiohttp")

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling

from tests.imitations import STEPS, Body, asked, chatty, llama, vllm
from tts_plugins import DVTS, BeamSearch, Budget, ParticleFilter
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import StepSettings
from tts_plugins.testing.loopback import LoopbackServer, Reply

# langchain-openai's: connections that it leaves open
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
BEAM = BeamSearch(n=4, beam_width=2)


def even(problem: Any, candidate: Any) -> list[float]:
    return [0.5] * len(candidate.steps)


def scaled(server: LoopbackServer, **settings: Any) -> ScaledChatModel:
    model = ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_tokens=50, temperature=0.8, max_retries=0)
    return ScaledChatModel(model, **{"strategy": BEAM, "verifier": even, "seed": 1, **settings})


def lines(text: str) -> list[str]:
    return [re.sub(r"^Step \d: ", "", step) for step in text.split("\n\n")]


def probes(server: LoopbackServer) -> int:
    return sum("k7q2" in str(r.body) for r in server.requests)


@pytest.mark.parametrize(
    ("reply", "turn", "way", "count"),
    [
        (llama, "any", "plain", 1),
        (vllm, "any", "vllm", 2),
        (chatty, "refused", "prompt", 1),
        (chatty, "any", "prompt", 2),
    ],
    ids=["llama.cpp", "vllm", "refused", "new turn"],
)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_way_is_found_once_and_gives_clean_steps(
    reply: Callable[[Body, int], Reply], turn: Any, way: str, count: int, how: str
) -> None:
    with LoopbackServer(reply=reply, assistant_turn=turn) as server:
        model = scaled(server, budget=Budget(tokens=20_000))
        ask = model.invoke if how == "sync" else lambda value: asyncio.run(model.ainvoke(value))
        message = ask([SystemMessage("Be brief"), HumanMessage("Add 3, 4, 5")])
        assert lines(str(message.content)) == STEPS
        assert model._chain_model._way == way and probes(server) == count
        usage, counts = message.response_metadata["tts"]["usage"], server.wait()
        assert usage["exact"] and usage["tokens"] == counts.tokens == message.usage_metadata["total_tokens"]
        assert all(r.body["messages"][0]["content"] == "Be brief" for r in server.requests if "k7q2" not in str(r.body))
        if how == "sync":
            ask("Add 3, 4, 5")
            assert probes(server) == count, "what was found out is remembered"


@pytest.mark.parametrize(
    "strategy", [DVTS(n=4, beam_width=2), ParticleFilter(n=2), BeamSearch(n=4, beam_width=2, lookahead=1)]
)
def test_every_search_over_steps(strategy: Any) -> None:
    with LoopbackServer(reply=llama) as server:
        message = scaled(server, strategy=strategy).invoke("Add 3, 4, 5")
        assert lines(str(message.content)) == STEPS
        tried = [asked(r.body)[-1] for r in server.requests if "k7q2" not in str(r.body)]
        assert len({text for text in tried}) >= 4, "each level continues the one before"


def test_in_a_chain_and_as_a_stream() -> None:
    with LoopbackServer(reply=llama) as server:
        chain = ChatPromptTemplate.from_template("{q}") | scaled(server) | StrOutputParser()
        assert lines(chain.invoke({"q": "Add 3, 4, 5"})) == STEPS
        assert lines("".join(chain.stream({"q": "Add 3, 4, 5"}))) == STEPS


def test_a_one_argument_verifier_is_given_the_text_so_far() -> None:
    seen: list[str] = []

    def check(text: str) -> list[float]:
        seen.append(text)
        return [0.5] * len(text.split("\n\n"))

    with LoopbackServer(reply=llama) as server:
        scaled(server, verifier=check).invoke("Add 3, 4, 5")
    assert STEPS[0] in seen and "\n\n".join(STEPS) in seen


def test_a_known_way_is_not_probed_and_other_stops_stay() -> None:
    with LoopbackServer(reply=llama) as server:
        model = scaled(server, steps=StepSettings(way="plain"))
        assert lines(str(model.invoke("Add 3, 4, 5", stop=["END"]).content)) == STEPS
        assert not probes(server) and all(r.body["stop"] == ["END", "\n\n"] for r in server.requests)


def test_a_server_that_takes_no_stop_is_asked_without() -> None:
    with LoopbackServer(reply=llama, refuses=["stop"]) as server:
        assert lines(str(scaled(server).invoke("Add 3, 4, 5").content)) == STEPS


def test_what_cannot_be_searched_in_steps() -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    with LoopbackServer(reply=llama) as server:
        with pytest.raises(ConfigurationError, match="writes text, and tools is set; leave them out, or use BestOfN"):
            scaled(server).bind_tools([add]).invoke("Add 3, 4, 5")
        with pytest.raises(ConfigurationError, match="gives no step scores"):
            scaled(server, verifier=lambda problem, candidate: 0.5).invoke("Add 3, 4, 5")
        for way in ("prefix", "completions"):
            with pytest.raises(ConfigurationError, match=rf"way='{way}'.*use way='plain'"):
                scaled(server, steps=StepSettings(way=way))  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"BeamSearch searches over single steps.*create_agent\(Scaled"):
            TestTimeScaling(strategy=BEAM)
