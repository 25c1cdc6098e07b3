"""A ladder through the adapters: more effort, another model of the same server, and what the framework itself has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tts_plugins import Ladder, Ledger, SelfConsistency
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import Rung, calibrate
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.testing.synthetic import synthetic_pool

TWO = SelfConsistency(n=2)
EFFORT = Ladder([TWO, Rung(strategy=TWO, effort="high")])
NAMED = Ladder([TWO, Rung(strategy=TWO, model="large")])


def reply(body: dict[str, Any], index: int) -> str:
    sure = body["model"].endswith("large") or body.get("reasoning_effort") == "high"
    said = 9 if sure else index
    return f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]" if "[[ ##" in str(body) else f"#### {said}"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=reply, indexing="arrival") as running:
        yield running


def asked(server: LoopbackServer) -> list[tuple[str, str | None]]:
    return [(r.body["model"].removeprefix("openai/"), r.body.get("reasoning_effort")) for r in server.requests]


FIRST = [("small", None)] * 2
SEEN = {"effort": [*FIRST, *[("small", "high")] * 2], "named": [*FIRST, *[("large", None)] * 2]}
LADDERS = pytest.mark.parametrize(("kind", "ladder"), [("effort", EFFORT), ("named", NAMED)])


@LADDERS
def test_openai(server: LoopbackServer, kind: str, ladder: Ladder) -> None:
    openai, adapter = pytest.importorskip("openai"), pytest.importorskip("tts_plugins_openai")
    with openai.OpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
        ledger = Ledger(Budget(tokens=10_000))
        scaled = adapter.scale(client, strategy=ladder, budget=ledger)
        messages = [{"role": "user", "content": "?"}]
        made = scaled.chat.completions.create(model="small", messages=messages, max_tokens=20)
    assert made.choices[0].message.content == "#### 9"
    assert list(dict.fromkeys(asked(server))) == list(dict.fromkeys(SEEN[kind]))
    assert server.counts.tokens <= ledger.usage.tokens <= 10_000  # few tokens of n choices prove no count


def chat(server: LoopbackServer, name: str = "small") -> Any:
    return pytest.importorskip("langchain_openai").ChatOpenAI(
        model=name, base_url=server.base_url, api_key="-", max_retries=0, temperature=0.8
    )


@LADDERS
def test_a_chain(server: LoopbackServer, kind: str, ladder: Ladder) -> None:
    adapter, core = pytest.importorskip("tts_plugins_langchain"), pytest.importorskip("langchain_core")
    prompt = core.prompts.ChatPromptTemplate.from_template("{q}")
    chain = prompt | chat(server) | core.output_parsers.StrOutputParser()
    ledger = Ledger(Budget(calls=100))
    assert adapter.scale(chain, strategy=ladder, budget=ledger).invoke({"q": "?"}) == "#### 9"
    assert asked(server) == SEEN[kind] and ledger.usage.tokens == server.counts.tokens


async def test_a_chain_asks_another_chat_model_and_a_whole_chain(server: LoopbackServer) -> None:
    adapter, core = pytest.importorskip("tts_plugins_langchain"), pytest.importorskip("langchain_core")
    prompt, parser = core.prompts.ChatPromptTemplate.from_template("{q}"), core.output_parsers.StrOutputParser()
    for given in (chat(server, "large"), prompt | chat(server, "large") | parser):
        ladder = Ladder([TWO, Rung(strategy=TWO, model=given)])
        scaled = adapter.scale(prompt | chat(server) | parser, strategy=ladder)
        assert await scaled.ainvoke({"q": "?"}) == "#### 9"
        assert asked(server)[-4:] == SEEN["named"]
    hidden = core.runnables.RunnableLambda(lambda q: f"#### {len(server.requests)}{id(object())}")
    with pytest.raises(ConfigurationError, match="no chat model can be seen"):
        adapter.scale(hidden, strategy=Ladder([Rung(strategy=TWO, effort="high")])).invoke("?")


@LADDERS
def test_a_chat_model(server: LoopbackServer, kind: str, ladder: Ladder) -> None:
    adapter = pytest.importorskip("tts_plugins_langchain")
    assert adapter.ScaledChatModel(bound=chat(server), strategy=ladder).invoke("?").content == "#### 9"
    assert asked(server) == SEEN[kind]


def test_a_chat_model_whose_ladder_holds_another_one_runs_and_is_dumped(server: LoopbackServer) -> None:
    adapter, load = pytest.importorskip("tts_plugins_langchain"), pytest.importorskip("langchain_core.load")
    ladder = Ladder([TWO, Rung(strategy=TWO, model=chat(server, "large"))])
    scaled = adapter.ScaledChatModel(bound=chat(server), strategy=ladder)
    assert scaled.invoke("?").content == "#### 9" and asked(server) == SEEN["named"]
    assert load.dumpd(scaled)["kwargs"]["strategy"]["type"] == "not_implemented"


def test_where_the_first_model_is_down_the_next_one_answers_and_it_is_told(server: LoopbackServer) -> None:
    adapter = pytest.importorskip("tts_plugins_langchain")
    down = chat(server).__class__(model="small", base_url="http://127.0.0.1:9", api_key="-", max_retries=0)
    ladder = Ladder([TWO, Rung(strategy=TWO, model=chat(server, "large"))])
    result = adapter.ScaledChatModel(bound=down, strategy=ladder).invoke("?")
    assert result.content == "#### 9" and "another model was asked" in str(result.response_metadata["tts"]["warnings"])


@LADDERS
def test_an_agent(server: LoopbackServer, kind: str, ladder: Ladder) -> None:
    adapter, agents = pytest.importorskip("tts_plugins_langchain"), pytest.importorskip("langchain.agents")
    agent = agents.create_agent(chat(server), middleware=[adapter.TestTimeScaling(strategy=ladder)])
    made = agent.invoke({"messages": [("user", "?")]})
    assert made["messages"][-1].content == "#### 9" and asked(server) == SEEN[kind]


@pytest.fixture
def lm(server: LoopbackServer) -> Iterator[Any]:
    dspy, models = pytest.importorskip("dspy"), pytest.importorskip("tests.dspy_models")
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    made = models.language_model(server)
    yield made
    models.close(made)


@LADDERS
def test_a_dspy_program(server: LoopbackServer, lm: Any, kind: str, ladder: Ladder) -> None:
    dspy, adapter = pytest.importorskip("dspy"), pytest.importorskip("tts_plugins_dspy")
    ladder = ladder if kind == "effort" else Ladder([TWO, Rung(strategy=TWO, model="openai/large")])
    ledger = Ledger(Budget(calls=100))
    with dspy.context(lm=lm):
        made = adapter.Scaled(dspy.Predict("question -> answer: int"), strategy=ladder, budget=ledger)(question="?")
    assert made.answer == 9 and asked(server) == SEEN[kind]
    assert ledger.usage.tokens == server.counts.tokens


def test_a_dspy_model(server: LoopbackServer, lm: Any) -> None:
    dspy, adapter = pytest.importorskip("dspy"), pytest.importorskip("tts_plugins_dspy")
    with dspy.context(lm=adapter.ScaledLM(lm, strategy=EFFORT)):
        assert dspy.Predict("question -> answer: int")(question="?").answer == 9
    assert asked(server) == SEEN["effort"]


SWITCH = Ladder([TWO, Rung(strategy=TWO, effort={"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}})])


def switched(server: LoopbackServer) -> list[Any]:
    return [r.body.get("chat_template_kwargs") for r in server.requests]


def test_effort_that_a_server_wants_said_otherwise_reaches_it(server: LoopbackServer) -> None:
    openai = pytest.importorskip("openai")
    pytest.importorskip("langchain_openai")
    from tts_plugins_langchain import ScaledChatModel, scale
    from tts_plugins_openai import scale as scale_client

    with openai.OpenAI(base_url=server.base_url, api_key="-", max_retries=0) as client:
        scale_client(client, strategy=SWITCH).chat.completions.create(
            model="small", messages=[{"role": "user", "content": "?"}], max_tokens=20
        )
    scale(chat(server), strategy=SWITCH).invoke("?")
    ScaledChatModel(bound=chat(server), strategy=SWITCH).invoke("?")
    said = switched(server)
    thinking = [i for i, found in enumerate(said) if found == {"enable_thinking": True}]
    assert said[0] is None and said[-1] == {"enable_thinking": True}, "as the first rung asks, and as the last"
    assert len(thinking) >= 3 and not any(r.body.get("reasoning_effort") for r in server.requests)


def test_a_budget_of_thinking_reaches_a_chat_model_that_takes_one() -> None:
    core = pytest.importorskip("langchain_core")
    from tts_plugins_langchain import scale

    seen: list[Any] = []

    class Thinking(core.language_models.GenericFakeChatModel):  # type: ignore[misc, name-defined]
        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            seen.append(kwargs.get("thinking"))
            message = core.messages.AIMessage(f"#### {9 if kwargs.get('thinking') else len(seen)}")
            return core.outputs.ChatResult(generations=[core.outputs.ChatGeneration(message=message)])

    budget = {"type": "enabled", "budget_tokens": 2048}
    ladder = Ladder([TWO, Rung(strategy=TWO, effort={"thinking": budget})])
    assert scale(Thinking(messages=iter(())), strategy=ladder).invoke("?").content == "#### 9"
    assert seen == [None, None, budget, budget]


def test_a_policy_knows_the_language_model_inside_of_what_is_wrapped(server: LoopbackServer, lm: Any) -> None:
    """Regression: policies and rules that were fitted to a model refused it, since a chain goes by another name."""
    dspy, core = pytest.importorskip("dspy"), pytest.importorskip("langchain_core")
    pytest.importorskip("langchain_openai")
    from tts_plugins_dspy import Scaled, ScaledLM
    from tts_plugins_langchain import ScaledChatModel, scale

    pool = synthetic_pool(40, 4)
    bare = [replace(p, candidates=tuple(replace(c, step_scores=()) for c in p.candidates)) for p in pool.problems]
    header = replace(pool.header, model="small", verifier=None)
    policy = calibrate(replace(pool, header=header, problems=tuple(bare)), budgets=(4,), orders=2)
    chain = core.prompts.ChatPromptTemplate.from_template("{q}") | chat(server) | core.output_parsers.StrOutputParser()
    program = dspy.Predict("question -> answer: int")
    with dspy.context(lm=lm):
        ways: list[Any] = [
            lambda: scale(chain, strategy=policy).solve({"q": "?"}).warnings,
            lambda: ScaledChatModel(bound=chat(server), strategy=policy).invoke("?").content,
            lambda: Scaled(program, strategy=policy)(question="?").answer,
            lambda: ScaledLM(lm, strategy=policy)("?"),
        ]
        for way in ways:
            assert not any("fitted to model" in str(said) for said in [way()])
    larger = core.prompts.ChatPromptTemplate.from_template("{q}") | chat(server, "large")
    with pytest.raises(ConfigurationError, match="fitted to model 'small', and runs with 'large'"):
        scale(larger, strategy=policy).invoke({"q": "?"})
    hidden = core.runnables.RunnableLambda(lambda q: "#### 1")
    with pytest.raises(ConfigurationError, match=r"runs with 'RunnableLambda'.*any_model=True"):
        scale(hidden, strategy=policy).invoke("?")
