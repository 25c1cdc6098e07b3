"""What candidates give: votes by meaning, outputs that do not parse, objects that JSON cannot hold."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse
from langchain.agents.structured_output import StructuredOutputError, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.types import Command
from pydantic import BaseModel
from tts_plugins_langchain import ScaledChatModel, TestTimeScaling, scale
from tts_plugins_langchain._io.values import vote_of

from tts_plugins import BestOfN, Revision, SelfConsistency, TreeSearch
from tts_plugins.errors import AllCandidatesFailed


class Saying(BaseChatModel):
    """Gives these messages in turn; it keeps its place in a field, as fake models do."""

    said: list[Any]
    at: int = 0
    seen: list[Any] = []  # noqa: RUF012 - pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "saying"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = self.said[len(self.seen) % len(self.said)]  # a list is shared by shallow copies
        self.seen.append(messages)
        self.at += 1
        made = AIMessage(message) if isinstance(message, str) else message.model_copy()
        return ChatResult(generations=[ChatGeneration(message=made)])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[getattr(tool, "name", str(tool)) for tool in tools])


class Copying(Saying):
    """`bind_tools` gives a copy that shares what is said."""

    tools: list[Any] = []  # noqa: RUF012

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.model_copy(update={"tools": list(tools)})


class Itself(Saying):
    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def calling(*calls: tuple[str, dict[str, Any]], text: str = "") -> AIMessage:
    made = [{"name": name, "args": args, "id": f"c{i}", "type": "tool_call"} for i, (name, args) in enumerate(calls)]
    return AIMessage(text, tool_calls=made)


def broken(text: str = "") -> AIMessage:
    call = {"name": "add", "args": '{"a": 1,', "id": "c", "error": "not JSON", "type": "invalid_tool_call"}
    return AIMessage(text, invalid_tool_calls=[call])


class Point(BaseModel):
    x: float
    note: str = ""


class Reasoned(BaseModel):
    reasoning: str
    answer: int


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (calling(("add", {"a": 1, "b": 2})), calling(("add", {"b": 2.0, "a": 1}), text="Let me see.")),
        (calling(("f", {"x": 1}), ("g", {"y": 2})), calling(("g", {"y": 2}), ("f", {"x": 1.0}))),
        (calling(("run", {"code": "```json\n[1]\n```"})), calling(("run", {"code": "```json\n[1]\n```"}), text="so")),
        (Point(x=1), Point(x=1.0)),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1.0}),
        (
            {"raw": AIMessage("a"), "parsed": Point(x=1), "parsing_error": None},
            {"raw": AIMessage("b"), "parsed": Point(x=1), "parsing_error": None},
        ),
        ('{"a": 1}', 'Here it is: {"a": 1.0}'),
        (AIMessage('{"a": 1}'), AIMessage('```json\n{"a": 1}\n```\nAs you see.')),
        ([1, 2], (1.0, 2)),
        ({1, 2}, {2, 1}),
        ({(1, 2): "x"}, {(1, 2): "x"}),
        ("The answer is 4.", "Answer: 4"),
        (Reasoned(reasoning="2 and 2", answer=4), Reasoned(reasoning="twice two", answer=4)),
        (calling(("buy", {"thought": "It is cheap.", "id": 1})), calling(("buy", {"thought": "Why not?", "id": 1}))),
    ],
)
def test_outputs_that_mean_the_same_vote_the_same(one: Any, other: Any) -> None:
    assert vote_of(one) == vote_of(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (calling(("run", {"code": "```json\n[1]\n```"})), calling(("run", {"code": "```json\n[1]\n```; drop()"}))),
        (calling(("f", {"x": 1})), calling(("f", {"x": 1}), ("f", {"x": 1}))),
        (calling(("f", {"x": "1"})), calling(("f", {"x": 1}))),
        (calling(("f", {"x": True})), calling(("f", {"x": 1}))),
        (calling(("think", {"thought": "a"})), calling(("think", {"thought": "b"}))),
        (Reasoned(reasoning="2 and 2", answer=4), Reasoned(reasoning="2 and 2", answer=5)),
        (
            {"raw": "a", "parsed": Point(x=1), "parsing_error": None},
            {"raw": "a", "parsed": Point(x=2), "parsing_error": None},
        ),
        ("The set is [1, 2], so the answer is 5", "The set is [1, 2], so the answer is 6"),
    ],
)
def test_outputs_that_differ_vote_apart(one: Any, other: Any) -> None:
    assert vote_of(one) != vote_of(other)


@dataclasses.dataclass
class Holder:
    answer: int
    lock: Any = dataclasses.field(default_factory=threading.Lock)


class Array:
    def __init__(self, *values: int) -> None:
        self.values = values

    def tolist(self) -> list[int]:
        return list(self.values)


LOOP: list[Any] = [1]
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [Holder(4), {"lock": threading.Lock(), 4: 5}, {(1, 2): b"\xff"}, b"\xff\xfe", Array(1, 2), {"a": Array(3)}, LOOP,
     {"n": float("nan")}, object(), {"s": {1, "a"}}],
)  # fmt: skip
def test_objects_that_json_cannot_hold_are_candidates(value: Any) -> None:
    by_vote = scale(RunnableLambda(lambda _: value), n=3).solve("q")
    assert by_vote.output is value and len(by_vote.candidates) == 3
    scored = scale(RunnableLambda(lambda _: value), n=3, verifier=lambda output: output is value).solve("q")
    assert scored.output is value and scored.score == 1.0
    assert scale(RunnableLambda(lambda _: value), n=3, answer=lambda output: "same").solve("q").answer == "same"


def test_a_call_that_cannot_be_read_wins_no_vote() -> None:
    said = [broken(), broken(), calling(("add", {"a": 1}))]
    message = ScaledChatModel(Saying(said=said), strategy=SelfConsistency(n=3), concurrency=1).invoke("q")
    assert message.tool_calls[0]["args"] == {"a": 1}
    chain = scale(Saying(said=said), n=3, concurrency=1)
    assert chain.invoke("q").tool_calls


def test_where_none_can_be_read_the_first_is_given_as_the_bare_model_does() -> None:
    message = ScaledChatModel(Saying(said=[broken("one"), broken("two")]), n=2, concurrency=1).invoke("q")
    assert message.content == "one" and message.invalid_tool_calls
    assert "all 2 candidates failed" in message.response_metadata["tts"]["warnings"][0]


def test_what_did_not_parse_is_what_a_revision_is_shown() -> None:
    model = Saying(said=[broken("I call add"), calling(("add", {"a": 1}))])
    strategy = Revision(chains=1, rounds=2, select="majority")
    message = ScaledChatModel(model, strategy=strategy).invoke("q")
    assert message.tool_calls
    shown = str(model.seen[1])
    assert "I call add" in shown and "cannot be read" in shown


@pytest.mark.parametrize("batch", [1, 2])
def test_a_tree_goes_on_after_what_did_not_parse(batch: int) -> None:
    model = Saying(said=[broken("I call add"), broken("again"), calling(("add", {"a": 1}))])
    strategy = TreeSearch(n=4, batch=batch)
    scaled = ScaledChatModel(model, strategy=strategy, verifier=lambda message: 0.5, seed=1, concurrency=1)
    message = scaled.invoke("q")
    assert message.tool_calls and message.response_metadata["tts"]["usage"]["calls"] == 4


class Answer(BaseModel):
    value: int


@pytest.mark.parametrize("how", ["some", "none"])
def test_include_raw_where_something_or_nothing_parses(how: str) -> None:
    good = {"raw": AIMessage("4"), "parsed": Answer(value=4), "parsing_error": None}
    bad = {"raw": AIMessage("?"), "parsed": None, "parsing_error": ValueError("no number")}
    outputs = iter([bad, bad, good] if how == "some" else [bad, bad, bad])
    found = scale(RunnableLambda(lambda _: next(outputs)), n=3, concurrency=1).invoke("q")
    assert found is (good if how == "some" else bad)


def agent_of(model: Any, middleware: list[Any], **settings: Any) -> Any:
    return create_agent(model, [], middleware=middleware, **settings)


def test_a_valid_structured_reply_beats_two_malformed_ones() -> None:
    bad = calling(("Answer", {"value": "many"}))
    model = Saying(said=[bad, bad, calling(("Answer", {"value": 4}))])
    agent = agent_of(model, [TestTimeScaling(n=3, concurrency=1)], response_format=ToolStrategy(Answer))
    assert agent.invoke({"messages": [("user", "q")]})["structured_response"] == Answer(value=4)


def test_where_no_structured_reply_parses_the_agent_asks_again_as_it_would() -> None:
    bad, good = calling(("Answer", {"value": "many"})), calling(("Answer", {"value": 4}))
    model = Saying(said=[bad, bad, good, good])
    agent = agent_of(model, [TestTimeScaling(n=2, concurrency=1)], response_format=ToolStrategy(Answer))
    state = agent.invoke({"messages": [("user", "q")]})
    assert state["structured_response"] == Answer(value=4) and model.at == 4
    strict = ToolStrategy(Answer, handle_errors=False)
    with pytest.raises(StructuredOutputError) as caught:
        agent_of(Saying(said=[bad]), [TestTimeScaling(n=2)], response_format=strict).invoke(
            {"messages": [("user", "q")]}
        )
    assert isinstance(caught.value.__cause__, AllCandidatesFailed) and caught.value.ai_message.tool_calls


def test_a_scaled_model_with_a_response_format() -> None:
    for strategy in (Answer, ToolStrategy(Answer)):
        model = Saying(said=[calling(("Answer", {"value": 4}))])
        agent = agent_of(ScaledChatModel(model, n=2), [], response_format=strategy)
        assert agent.invoke({"messages": [("user", "q")]})["structured_response"] == Answer(value=4)


@pytest.mark.parametrize("kind", [Saying, Copying, Itself])
def test_tools_are_bound_in_any_way_a_model_has(kind: Callable[..., Any]) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    model = kind(said=[calling(("add", {"a": 1, "b": 2}))] * 2 + ["It is 3"] * 2)
    agent = create_agent(ScaledChatModel(model, n=2, concurrency=1), [add])
    assert agent.invoke({"messages": [("user", "q")]})["messages"][-1].content == "It is 3"


def test_a_models_state_is_its_own() -> None:
    model = Saying(said=["one", "two", "three"])
    scaled = ScaledChatModel(model, n=1)
    assert [scaled.invoke("q").content for _ in range(3)] == ["one", "two", "three"] and model.at == 3
    result = scale(model, n=3, concurrency=1).solve("q")
    assert {str(c.text) for c in result.candidates} == {"one", "two", "three"}


BLOCKS = [
    {"type": "video", "url": "https://example.org/a.mp4"},
    {"type": "file", "file_id": "f1", "mime_type": "application/pdf"},
    {"type": "text-plain", "text": "plain", "mime_type": "text/plain"},
    {"cachePoint": {"type": "default"}},
]


@pytest.mark.parametrize("block", BLOCKS)
def test_input_blocks_of_any_kind_reach_the_model_as_they_are(block: dict[str, Any]) -> None:
    message = HumanMessage(content=[{"type": "text", "text": "What is it?"}, block])
    model = Saying(said=["4"])
    assert ScaledChatModel(model, n=2).invoke([message]).content == "4"
    assert scale(model, n=2, verifier=lambda output: 1.0).invoke([message]).content == "4"
    assert all(seen[0].content[1] == block for seen in model.seen)


def test_a_judge_sees_the_tools_and_what_was_called_before() -> None:
    from tts_plugins.prompts import problem_text

    def weather(city: str) -> str:
        """The weather of a city."""
        return "rain"

    texts: list[str] = []

    def judge(problem: Any, candidate: Any) -> float:
        texts.append(problem_text(problem))
        return 1.0

    said = [calling(("weather", {"city": "Oslo"})), "It rains"]
    agent = create_agent(Saying(said=said), [weather], middleware=[TestTimeScaling(n=1, verifier=judge)])
    agent.invoke({"messages": [("user", "And in Oslo?")]})
    for part in ("weather(", "The weather of a city", "And in Oslo?"):
        assert part in texts[0]
    assert 'calls weather({"city": "Oslo"})' in texts[1] and "rain" in texts[1]
    texts.clear()
    history = [HumanMessage("Oslo?"), calling(("weather", {"city": "Oslo"})), ToolMessage("rain", tool_call_id="c0")]
    tools = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {}}}]
    model = ScaledChatModel(Saying(said=["It rains"]), strategy=BestOfN(n=1), verifier=judge)
    model.bind(tools=tools).invoke(history)
    assert "weather" in texts[0] and "rain" in texts[0] and "of a city" in texts[0]


@pytest.fixture
def said() -> Iterator[str]:
    yield "x"


def test_the_inner_models_name_and_counts(said: str) -> None:
    from langchain_core.messages import trim_messages

    class Named(Saying):
        model_name: str = "small-1"
        temperature: float = 0.3
        max_tokens: int = 77

        def get_num_tokens(self, text: str) -> int:
            return 7

        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            return 3 * len(messages)

    scaled = ScaledChatModel(Named(said=[said], profile={"max_input_tokens": 9}), n=2)
    assert (scaled.model, scaled.model_name, scaled.temperature, scaled.max_tokens) == ("small-1", "small-1", 0.3, 77)
    assert scaled.profile == {"max_input_tokens": 9} and scaled.get_num_tokens("a b") == 7
    kept = trim_messages([HumanMessage(str(i)) for i in range(9)], max_tokens=6, token_counter=scaled)
    assert len(kept) == 2 and scaled.get_num_tokens_from_messages(kept) == 6
    assert ScaledChatModel(Named(said=[said]), n=2, max_tokens=5, temperature=0.9).max_tokens == 5


class NoteState(AgentState[Any]):
    note: str


class Noting(AgentMiddleware[Any, Any, Any]):
    """Updates the state with what each reply says."""

    state_schema = NoteState

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        response = handler(request)
        return ExtendedModelResponse(
            model_response=response, command=Command(update={"note": str(response.result[0].content)})
        )

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        response = await handler(request)
        return ExtendedModelResponse(
            model_response=response, command=Command(update={"note": str(response.result[0].content)})
        )


class Passing(AgentMiddleware[Any, Any, Any]):
    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request)


class First(Passing):
    """Another class, since an agent takes one of each name."""


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("behind", [[Noting()], [Passing(), Noting()], [TestTimeScaling(n=1, name="inner"), Noting()]])
@pytest.mark.parametrize("before", [[], [First()]])
def test_only_the_winners_commands_are_applied(how: str, behind: list[Any], before: list[Any]) -> None:
    model = Saying(said=["loses", "wins", "loses too"])
    scaling = TestTimeScaling(strategy=BestOfN(n=3), verifier=lambda message: message.content == "wins", concurrency=1)
    agent = create_agent(model, [], middleware=[*before, scaling, *behind])
    asked = {"messages": [("user", "q")]}
    state = agent.invoke(asked) if how == "sync" else asyncio.run(agent.ainvoke(asked))
    assert state["messages"][-1].content == "wins" and state["note"] == "wins"
