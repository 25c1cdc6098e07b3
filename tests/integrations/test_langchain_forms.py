"""Calls and answers that are not of the form that was asked for, through real clients of a real socket."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("langchain")
pytest.importorskip("langchain_openai")

from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from tts_plugins_langchain import ScaledChatModel, ScaledRunnable, TestTimeScaling, scale
from tts_plugins_langchain._io.asked_form import AskedForm

from tts_plugins import Budget
from tts_plugins.errors import LowConfidence, UnknownSettingError
from tts_plugins.testing.loopback import RawReply, RawRequest, RawServer


class Answer(BaseModel):
    """An answer."""

    value: int
    notes: list[str] = []
    kind: str | None = None


GOOD, BAD = {"value": 4}, {"value": "four"}
TOOL = {"name": "Answer", "parameters": Answer.model_json_schema()}


def _misfit(message: AIMessage, asked: dict[str, Any]) -> str | None:
    return AskedForm(asked).misfit(message)


@pytest.fixture
def model() -> Iterator[tuple[ChatOpenAI, RawServer]]:
    """A model of which one answer in three is of the form that was asked for, the second one."""

    def reply(request: RawRequest) -> RawReply:
        value = GOOD if request.number % 3 == 1 else BAD
        message: dict[str, Any] = {"role": "assistant", "content": json.dumps(value)}
        if tools := request.body.get("tools"):
            called = {"name": tools[-1]["function"]["name"], "arguments": json.dumps(value)}
            call = {"id": f"c{request.number}", "type": "function", "function": called}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        return RawReply({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                         "usage": usage})  # fmt: skip

    with RawServer(reply) as server:
        yield ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_retries=0, max_tokens=20), server


WAYS: list[Callable[[Any, Any], Any]] = [
    lambda model, form: create_agent(ScaledChatModel(model, n=3), tools=[], response_format=form),
    lambda model, form: create_agent(model, tools=[], response_format=form, middleware=[TestTimeScaling(n=3)]),
]


@pytest.mark.parametrize("way", WAYS, ids=["model", "middleware"])
@pytest.mark.parametrize("form", [ToolStrategy(Answer), ProviderStrategy(Answer)], ids=["tool", "provider"])
def test_two_malformed_replies_do_not_beat_a_valid_one(
    model: tuple[ChatOpenAI, RawServer], way: Callable[[Any, Any], Any], form: Any
) -> None:
    chat, server = model
    state = way(chat, form).invoke({"messages": [("human", "q")]}, {"recursion_limit": 6})
    assert state["structured_response"] == Answer(value=4) and len(server.requests) == 3


def test_an_agent_is_told_that_its_structured_answer_is_withheld(model: tuple[ChatOpenAI, RawServer]) -> None:
    """The agent would parse the empty message, and say that it is not JSON."""
    unsure: dict[str, Any] = {"n": 3, "abstain_below": 1.0}
    scaled = ScaledChatModel(model[0], verifier=lambda output: 0.3, **unsure)
    agent = create_agent(scaled, tools=[], response_format=ProviderStrategy(Answer))
    with pytest.raises(LowConfidence, match="below 1"):
        agent.invoke({"messages": [("human", "q")]})
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": Answer.model_json_schema()}}
    assert "below 1" in scaled.invoke("q", response_format=form).additional_kwargs["refusal"]
    ending = TestTimeScaling(n=3, abstain_below=1.0, verifier=lambda message: 0.3)
    state = create_agent(model[0], tools=[], response_format=ProviderStrategy(Answer), middleware=[ending]).invoke(
        {"messages": [("human", "q")]}
    )
    assert state.get("structured_response") is None and "below 1" in state["messages"][-1].additional_kwargs["refusal"]


@pytest.mark.parametrize("scaled", [lambda m: scale(m, n=3), lambda m: m], ids=["chain", "model"])
def test_a_call_that_its_tool_would_refuse_wins_no_vote(
    model: tuple[ChatOpenAI, RawServer], scaled: Callable[[Any], Any]
) -> None:
    chat = model[0]
    bound = (
        ScaledChatModel(chat, n=3).bind_tools([Answer]) if scaled(chat) is chat else scaled(chat.bind_tools([Answer]))
    )
    assert bound.invoke("q").tool_calls[0]["args"] == GOOD


@pytest.mark.parametrize(
    ("args", "fits"),
    [
        (GOOD, True),
        ({"value": "4"}, True),
        ({"value": 4.0, "notes": ["a"], "kind": None}, True),
        ({"value": 4, "more": 1}, True),
        ({}, False),
        ({"value": None}, False),
        ({"value": 4.5}, False),
        ({"value": 4, "notes": "a"}, False),
        ({"value": 4, "notes": [1]}, False),
        ({"value": 4, "kind": 3}, False),
    ],
)
def test_arguments_are_read_as_leniently_as_tools_do(args: dict[str, Any], fits: bool) -> None:
    message = AIMessage("", tool_calls=[{"name": "Answer", "args": args, "id": "1", "type": "tool_call"}])
    assert (_misfit(message, {"tools": [TOOL]}) is None) == fits
    assert _misfit(message, {"tools": [{"type": "web_search"}]}) is None, "a provider's own tool"
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": Answer.model_json_schema()}}
    assert (_misfit(AIMessage(json.dumps(args)), {"response_format": form}) is None) == fits


def test_schemas_refer_to_their_own_parts_and_may_be_wrong() -> None:
    node: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["v"]}
    schema = {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}
    asked = {"tools": [{"name": "f", "parameters": schema}]}

    def call(args: dict[str, Any]) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "f", "args": args, "id": "1", "type": "tool_call"}])

    assert _misfit(call({"v": 1, "next": {"v": 2}}), asked) is None
    assert "has no 'v'" in (_misfit(call({"v": 1, "next": {}}), asked) or "")
    for odd in (
        {"$ref": "#/nowhere"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": 3},
        [],
        None,
    ):
        assert _misfit(call({"v": 1}), {"tools": [{"name": "f", "parameters": odd}]}) is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
def test_a_scaled_model_is_copied_where_its_model_is(copied: Callable[[Any], Any]) -> None:
    for scaled in (
        scale(FakeListChatModel(responses=["4"]), n=2),
        ScaledChatModel(FakeListChatModel(responses=["4"]), n=2),
    ):
        assert copied(scaled).invoke("q").text == "4"
        assert copied(scaled).invoke("q").text == "4", "after a call too"


def test_a_setting_by_its_place_is_refused_with_the_call_to_write() -> None:
    with pytest.raises(UnknownSettingError, match=r"8 is given by its place.*write ScaledChatModel\(model, n=8\)"):
        ScaledChatModel(FakeListChatModel(responses=["a"]), 8)  # type: ignore[arg-type]


def test_a_setting_that_a_wrapper_does_not_know_is_refused_and_not_dropped() -> None:
    """Where pydantic would drop a limit that is misspelt, nothing would be limited."""
    wrapped: Any = ScaledRunnable
    with pytest.raises(UnknownSettingError, match=r"ScaledRunnable: 'budgt' is not a setting; did you mean 'budget'"):
        wrapped(bound=FakeListChatModel(responses=["a"]), budgt=Budget(calls=1))


async def test_where_nothing_has_the_form_that_is_bound_the_first_answer_comes_as_from_a_bare_model() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}

    def reply(request: RawRequest) -> RawReply:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "no JSON"}}
        return RawReply({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                         "usage": usage})  # fmt: skip

    asked = {"response_format": {"type": "json_object"}}
    with RawServer(reply) as server:
        bare = ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_retries=0, max_tokens=20)
        for model in (bare.bind(**asked), ScaledChatModel(bare, n=3).bind(**asked), scale(bare.bind(**asked), n=3)):
            assert model.invoke("q").content == (await model.ainvoke("q")).content == "no JSON"
        assert len(server.requests) == 14
        parsed = [m.with_structured_output(Answer, method="json_mode") for m in (bare, ScaledChatModel(bare, n=3))]
        kinds = set()
        for model in parsed:
            with pytest.raises(Exception, match="Invalid json output") as caught:
                model.invoke("q")
            kinds.add(type(caught.value))
        assert len(kinds) == 1, "the search raises what the bare chain raises"
