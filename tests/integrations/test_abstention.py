"""Confidence, abstention and escalation in every adapter: real clients and frameworks over the loopback server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain")
pytest.importorskip("langchain_openai")
pytest.importorskip("dspy")
pytest.importorskip("openai")
pytest.importorskip("aiohttp")

import dspy
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from openai import OpenAI
from pydantic import BaseModel
from tts_plugins_dspy import Scaled, ScaledLM, Withheld, metadata_of
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling
from tts_plugins_langchain import scale as scale_chain
from tts_plugins_openai import result_of
from tts_plugins_openai import scale as scale_client

from tests.dspy_models import close, language_model
from tests.imitations import said
from tts_plugins import Budget, Escalation, SelfConsistency
from tts_plugins.errors import ConfigurationError, LowConfidence
from tts_plugins.models import CallableModel
from tts_plugins.testing.loopback import LoopbackServer, Reply

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # langchain-openai's connections

UNSURE: dict[str, Any] = {"strategy": SelfConsistency(n=2), "abstain_below": 0.9}
ASK: list[Any] = [{"role": "user", "content": "What is 6 * 7?"}]


def reply(body: dict[str, Any], index: int) -> str | Reply:
    """The small model answers differently each time, the large one always the same."""
    if body["model"] == "large":
        return "The answer is 42"
    return f"The answer is {index}"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=reply, indexing="arrival") as running:
        yield running


def chat(server: LoopbackServer, model: str = "small", **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=server.base_url, api_key="-", max_tokens=16, max_retries=0, **settings)  # type: ignore[arg-type]


def models_asked(server: LoopbackServer, since: int = 0) -> list[str]:
    return [request.body["model"] for request in server.requests][since:]


# LangChain


def test_langchain_tells_and_withholds(server: LoopbackServer) -> None:
    model = ScaledChatModel(chat(server), **UNSURE)
    message = model.invoke("What is 6 * 7?")
    reported = message.response_metadata["tts"]
    assert (reported["confidence"], reported["agreement"]) == (0.5, 0.5)
    assert message.content == "" and reported["abstained"]["below"] == 0.9 and not message.tool_calls
    assert "the confidence is 0.50, below 0.9" in message.additional_kwargs["refusal"]
    assert "withheld" not in reported and message.usage_metadata is not None
    streamed = list(ScaledChatModel(chat(server), **UNSURE).stream("What is 6 * 7?"))
    assert "".join(str(chunk.content) for chunk in streamed) == ""
    with pytest.raises(LowConfidence) as caught:
        ScaledChatModel(chat(server), on_abstain="raise", **UNSURE).invoke("What is 6 * 7?")
    assert caught.value.result.usage.calls == 2
    sure = ScaledChatModel(chat(server, "large"), **UNSURE).invoke("?")
    assert sure.content == "The answer is 42" and sure.response_metadata["tts"]["confidence"] == 1.0


async def test_langchain_chains_escalate_within_the_budget(server: LoopbackServer) -> None:
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    chain = prompt | chat(server)
    settings = {**UNSURE, "on_abstain": "escalate", "escalate": prompt | chat(server, "large")}
    scaled = scale_chain(chain, **settings)
    result = scaled.solve({"question": "What is 6 * 7?"})
    assert result.output.content == "The answer is 42" and result.escalated and result.usage.calls == 3
    assert models_asked(server) == ["small", "small", "large"]
    assert (await scaled.ainvoke({"question": "?"})).content == "The answer is 42"
    before = len(server.requests)
    short = scale_chain(chain, budget=Budget(calls=2), **settings).solve({"question": "What is 6 * 7?"})
    assert short.output is None and short.abstained is not None and "BudgetExhausted" in short.abstained.reason
    assert models_asked(server, before) == ["small", "small"]
    inside = scale_chain(chain, **{**settings, "escalate": chat(server, "large")})
    assert inside.invoke({"question": "?"}).content == "The answer is 42", "the chain, with another model in it"
    wide = ScaledChatModel(chat(server), on_abstain="escalate", escalate=chat(server, "large"), **UNSURE)
    message = wide.invoke("What is 6 * 7?")
    assert message.content == "The answer is 42" and message.response_metadata["tts"]["escalated"]


class Found(BaseModel):
    value: int


@pytest.mark.parametrize("include_raw", [False, True])
async def test_langchain_withholds_a_structured_output_in_its_own_form(include_raw: bool) -> None:
    with LoopbackServer(reply=lambda body, index: json.dumps({"value": index}), indexing="arrival") as server:
        model = ScaledChatModel(chat(server), concurrency=1, **UNSURE)
        structured = model.with_structured_output(Found, method="json_schema", include_raw=include_raw)
        outputs = [structured.invoke("?"), await structured.ainvoke("?"), *structured.stream("?")]
        outputs += structured.batch(["?", "?"])
        assert len(outputs) == 5
        for output in outputs:
            if not include_raw:
                assert output is None
                continue
            assert set(output) == {"raw", "parsed", "parsing_error"} and output["parsed"] is None
            assert isinstance(output["parsing_error"], LowConfidence) and output["parsing_error"].below == 0.9
            assert output["raw"].content == "" and "below 0.9" in output["raw"].additional_kwargs["refusal"]
            assert output["raw"].response_metadata["tts"]["abstained"]["below"] == 0.9
        sure = ScaledChatModel(chat(server), strategy=SelfConsistency(n=1), abstain_below=0)
        found = sure.with_structured_output(Found, method="json_schema", include_raw=include_raw).invoke("?")
        assert isinstance(found["parsed"] if include_raw else found, Found)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_escalates_a_structured_output_that_comes_with_its_raw_message(method: Any) -> None:
    def found(body: dict[str, Any], index: int) -> str | Reply:
        value = json.dumps({"value": 42 if body["model"] == "large" else index})
        if tools := body.get("tools"):
            return Reply(None, tool_calls=[{"name": tools[-1]["function"]["name"], "arguments": value}])
        return value

    with LoopbackServer(reply=found, indexing="arrival") as server:
        model = ScaledChatModel(chat(server), on_abstain="escalate", escalate=chat(server, "large"), **UNSURE)
        output = model.with_structured_output(Found, method=method, include_raw=True).invoke("?")
        assert output["parsed"] == Found(value=42) and output["parsing_error"] is None
        parts = {"found": chat(server).with_fallbacks([chat(server)]), "asked": RunnablePassthrough()}
        settings = {**UNSURE, "on_abstain": "escalate", "escalate": chat(server, "large")}
        assert "42" in scale_chain(RunnableParallel(parts), **settings).invoke("?")["found"].content
        nowhere = scale_chain(RunnableLambda(lambda _: chat(server).invoke("?").content), **settings)
        with pytest.raises(ConfigurationError, match=r"model='ChatOpenAI'.* no chat model can be seen in it"):
            nowhere.invoke("?")


def test_langchain_refuses_what_cannot_be_asked(server: LoopbackServer) -> None:
    core = CallableModel(lambda question: "42")
    for bad in (core, 7, Escalation(model=core)):
        with pytest.raises(ConfigurationError, match="escalate="):
            scale_chain(chat(server), on_abstain="escalate", escalate=bad, **UNSURE)
    with pytest.raises(ConfigurationError, match="pass escalate="):
        scale_chain(chat(server), on_abstain="escalate", **UNSURE)
    with pytest.raises(ConfigurationError, match="abstain_below=2 must be"):
        TestTimeScaling(abstain_below=2)
    with pytest.raises(ConfigurationError, match="on_abstain='x'"):
        ScaledChatModel(chat(server), abstain_below=0.5, on_abstain="x")  # type: ignore[arg-type]
    assert not server.requests


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_asks_a_person_and_pays_for_nothing_twice(server: LoopbackServer, asynchronous: bool) -> None:
    asking = TestTimeScaling(on_abstain="escalate", escalate="person", budget=Budget(calls=4), **UNSURE)
    agent = create_agent(chat(server), [], middleware=[asking], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": str(uuid.uuid4())}}
    question: Any = {"messages": [HumanMessage("What is 6 * 7?")]}
    resume: Any = Command(resume="It is 42.")
    first = await agent.ainvoke(question, config) if asynchronous else agent.invoke(question, config)
    (interrupted,) = first["__interrupt__"]
    assert interrupted.value["question"] == "What is 6 * 7?" and interrupted.value["confidence"] == 0.5
    assert interrupted.value["withheld"].startswith("The answer is")
    assert len(server.requests) == 2
    last = await agent.ainvoke(resume, config) if asynchronous else agent.invoke(resume, config)
    assert last["messages"][-1].content == "It is 42." and len(last["messages"]) == 2
    assert last["messages"][-1].response_metadata["tts"]["answered_by"] == "person"
    assert len(server.requests) == 2, "the model's node is not run again"


def test_an_agent_escalates_and_withholds(server: LoopbackServer) -> None:
    larger = TestTimeScaling(on_abstain="escalate", escalate=chat(server, "large"), **UNSURE)
    agent = create_agent(chat(server), [], middleware=[larger])
    done = agent.invoke({"messages": [HumanMessage("What is 6 * 7?")]})
    assert done["messages"][-1].content == "The answer is 42"
    silent = create_agent(chat(server), [], middleware=[TestTimeScaling(**UNSURE)])
    done = silent.invoke({"messages": [HumanMessage("What is 6 * 7?")]})
    message = done["messages"][-1]
    assert isinstance(message, AIMessage) and message.content == "" and "refusal" in message.additional_kwargs
    assert set(silent.get_graph().nodes) == {"__start__", "model", "__end__", "TestTimeScaling.before_agent"}


async def test_an_agent_resumed_with_something_else_says_so(server: LoopbackServer) -> None:
    asking = TestTimeScaling(on_abstain="escalate", escalate="person", **UNSURE)
    agent = create_agent(chat(server), [], middleware=[asking], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "one"}}
    agent.invoke({"messages": [HumanMessage("?")]}, config)
    with pytest.raises(ConfigurationError, match="resumed with 42"):
        agent.invoke(Command(resume=42), config)


# OpenAI


def test_openai_tells_withholds_and_escalates(server: LoopbackServer) -> None:
    with OpenAI(base_url=server.base_url, api_key="-") as bare:
        client = scale_client(bare, **UNSURE)
        completion = client.chat.completions.create(model="small", messages=ASK, max_tokens=16)
        (choice,) = completion.choices
        assert choice.message.content is None and choice.message.refusal is not None
        assert "below 0.9" in choice.message.refusal and choice.finish_reason == "stop"
        result = result_of(completion)
        assert result.confidence == 0.5 and result.abstained is not None and completion.usage is not None
        assert json.loads(completion.model_dump_json())["choices"][0]["message"]["refusal"]
        chunks = list(client.chat.completions.create(model="small", messages=ASK, max_tokens=16, stream=True))
        assert not any(c.choices and c.choices[0].delta.content for c in chunks)
        assert any(c.choices and c.choices[0].delta.refusal for c in chunks)
        before = len(server.requests)
        further = scale_client(bare, on_abstain="escalate", escalate="large", **UNSURE)
        completion = further.chat.completions.create(model="small", messages=ASK, max_tokens=16)
        assert completion.choices[0].message.content == "The answer is 42" and result_of(completion).escalated
        assert models_asked(server, before)[-1] == "large" and result_of(completion).usage.calls == 3
        short = further.chat.completions.create(
            model="small", messages=ASK, max_tokens=16, extra_body={"tts": {"budget": {"calls": 2}}}
        )
        assert short.choices[0].message.content is None and result_of(short).stopped == "budget"
        person = scale_client(bare, on_abstain="escalate", escalate="person", **UNSURE)
        found = result_of(person.chat.completions.create(model="small", messages=ASK, max_tokens=16)).abstained
        assert found is not None and found.person
        with pytest.raises(LowConfidence):
            scale_client(bare, on_abstain="raise", **UNSURE).chat.completions.create(
                model="small", messages=ASK, max_tokens=16
            )


class Number(BaseModel):
    number: int


def test_openai_parse_refuses_too() -> None:
    def numbers(body: dict[str, Any], index: int) -> str:
        return json.dumps({"number": index})

    with (
        LoopbackServer(reply=numbers, indexing="arrival") as server,
        OpenAI(base_url=server.base_url, api_key="-") as bare,
    ):
        client = scale_client(bare, **UNSURE)
        parsed = client.chat.completions.parse(model="small", messages=ASK, max_tokens=16, response_format=Number)
        assert parsed.choices[0].message.parsed is None and parsed.choices[0].message.refusal


def test_openai_refuses_what_cannot_be_asked_or_paid(server: LoopbackServer) -> None:
    with OpenAI(base_url=server.base_url, api_key="-") as bare:
        with pytest.raises(ConfigurationError, match=r"price=.* is that of one"):
            scale_client(bare, on_abstain="escalate", escalate="large", price=(1.0, 2.0), **UNSURE)
        with pytest.raises(ConfigurationError, match="whose answers are not the client's"):
            scale_client(bare, on_abstain="escalate", escalate=CallableModel(lambda q: "42"), **UNSURE)
        with pytest.raises(ConfigurationError, match="on_abstain='x'"):
            scale_client(bare, abstain_below=0.5, on_abstain="x")  # type: ignore[arg-type]


# DSPy


def dspy_reply(body: dict[str, Any], index: int) -> str | Reply:
    return said(answer=42 if body["model"] == "large" else index)


@pytest.fixture
def lm() -> Iterator[Any]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    with LoopbackServer(reply=dspy_reply, indexing="arrival") as running:
        made = language_model(running)
        made.server = running
        with dspy.context(lm=made):
            yield made
        close(made)


def program() -> Any:
    return dspy.Predict("question -> answer: int")


def test_dspy_tells_withholds_and_escalates(lm: Any) -> None:
    kept = Scaled(program(), **UNSURE)(question="What is 6 * 7?")
    assert isinstance(kept, Withheld) and isinstance(kept, dspy.Prediction) and not kept and kept.answer is None
    assert kept.abstained.confidence == 0.5 and metadata_of(kept)["abstained"]["below"] == 0.9
    assert metadata_of(kept)["agreement"] == 0.5 and metadata_of(kept)["usage"]["calls"] == 2
    person = Scaled(program(), on_abstain="escalate", escalate="person", **UNSURE)(question="?")
    assert person.abstained.person
    with pytest.raises(LowConfidence):
        Scaled(program(), on_abstain="raise", **UNSURE)(question="?!")
    with pytest.raises(ConfigurationError, match="did not come from a search"):
        metadata_of(program()(question="?"))
    large = language_model(lm.server, "openai/large")
    try:
        for further in (large, LargeProgram(large)):
            scaled = Scaled(program(), on_abstain="escalate", escalate=further, **UNSURE)
            answer = scaled(question=f"What is 6 * 7, {type(further).__name__}?")
            assert answer.answer == 42 and metadata_of(answer)["escalated"]
            assert metadata_of(answer)["usage"]["calls"] == 3
        asked = len(lm.server.requests)
        short = Scaled(program(), on_abstain="escalate", escalate=large, budget=Budget(calls=2), **UNSURE)
        assert isinstance(short(question="short"), Withheld) and len(lm.server.requests) == asked + 2
        with dspy.context(trace=[]):
            Scaled(program(), **UNSURE)(question="traced")
            assert dspy.settings.trace == [], "a withheld prediction leaves no trace for optimisers"
    finally:
        close(large)


class LargeProgram(dspy.Module):  # type: ignore[misc]
    def __init__(self, large: Any) -> None:
        super().__init__()
        self.answering, self.large = program(), large

    def forward(self, **inputs: Any) -> Any:
        with dspy.context(lm=self.large):
            return self.answering(**inputs)


def test_dspy_language_models_raise_and_escalate(lm: Any) -> None:
    large = language_model(lm.server, "openai/large")
    try:
        with dspy.context(lm=ScaledLM(lm, **UNSURE)), pytest.raises(Exception, match="no answer: the confidence"):
            program()(question="?")
        wide = ScaledLM(lm, on_abstain="escalate", escalate=large, **UNSURE)
        with dspy.context(lm=wide):
            assert program()(question="What is 6 * 7?").answer == 42
    finally:
        close(large)


def test_dspy_refuses_what_cannot_be_asked(lm: Any) -> None:
    for bad in (CallableModel(lambda q: "42"), 7):
        with pytest.raises(ConfigurationError, match="escalate="):
            Scaled(program(), on_abstain="escalate", escalate=bad, **UNSURE)
    own = program()
    own.lm = lm
    with pytest.raises(ConfigurationError, match="has one of its own"):
        Scaled(own, on_abstain="escalate", escalate=lm, **UNSURE)
    with pytest.raises(ConfigurationError, match="abstain_below=nan"):
        Scaled(program(), abstain_below=float("nan"))
