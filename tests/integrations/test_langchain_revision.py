"""Revision of chains, chat models, graphs and agents: what each is shown of earlier attempts, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langgraph")

from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langgraph.graph import END, START, MessagesState, StateGraph
from pydantic import PrivateAttr
from tts_plugins_langchain import ScaledChatModel, scale

from tts_plugins import DVTS, BeamSearch, BestOfN, Budget, RecursiveAggregation, Revision, SelfConsistency
from tts_plugins.errors import ConfigurationError

ONE_CHAIN = Revision(chains=1, rounds=3, select="best")


class Learner(GenericFakeChatModel):
    """Says one number more for each attempt that it is shown, and keeps what it was asked."""

    messages: Any = ()
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self._asked.append(messages)
        shown = max((int(w) for m in messages for w in str(m.content).split() if w.isdigit()), default=0)
        self.messages = iter([AIMessage(f"It is {shown + 1}")])
        return super()._generate(messages, *args, **kwargs)

    @property
    def asked(self) -> list[list[str]]:
        return [[str(m.content) for m in messages] for messages in self._asked]


def judged(output: Any) -> tuple[float, str]:
    said = int(str(getattr(output, "content", output)).split()[-1])
    return said / 10, f"more than {said}, please"


def revised(runnable: Any, value: Any, strategy: Any = ONE_CHAIN, **settings: Any) -> Any:
    return scale(runnable, strategy=strategy, verifier=judged, **settings).invoke(value)


def test_a_placeholder_gets_turns() -> None:
    model = Learner()
    prompt = ChatPromptTemplate.from_messages([("system", "Count"), ("human", "{q}"), ("placeholder", "{attempts}")])
    assert revised(prompt | model | StrOutputParser(), {"q": "How many?"}) == "It is 3"
    assert [len(asked) for asked in model.asked] == [2, 4, 6]
    assert model.asked[2][:4:2] == ["Count", "It is 1"] and model.asked[2][4] == "It is 2"
    assert [type(m).__name__ for m in model._asked[1][2:]] == ["AIMessage", "HumanMessage"]
    assert "more than 1, please" in model.asked[1][3] and "scored 0.10 of 1" in model.asked[1][3]


def test_a_variable_gets_a_text_and_is_empty_at_first() -> None:
    model = Learner()
    chain = ChatPromptTemplate.from_template("{q}\n{feedback}") | model | StrOutputParser()
    assert revised(chain, {"q": "How many?"}) == "It is 3"
    assert model.asked[0] == ["How many?\n"]
    assert "It is 1" in model.asked[1][0] and "more than 1, please" in model.asked[1][0]
    assert "It is 1" in model.asked[2][0] and "It is 2" in model.asked[2][0]


async def test_asynchronously_too_and_with_what_passes_its_input_on() -> None:
    model = Learner()
    prompt = PromptTemplate.from_template("{q} {context} {attempts}")
    chain = RunnablePassthrough.assign(context=lambda x: "c") | prompt | model.with_retry() | StrOutputParser()
    scaled = scale(chain.with_config(tags=["t"]), strategy=ONE_CHAIN, verifier=judged, budget=Budget(calls=9))
    result = await scaled.asolve({"q": "How many?"})
    assert result.output == "It is 3" and result.usage.calls == 3
    first, second, third = result.candidates
    assert second.parent == first.id and third.parent == second.id


def test_a_placeholder_before_the_question_gets_one_message() -> None:
    model = Learner()
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{history}"), ("human", "{q}")])
    assert revised(prompt | model | StrOutputParser(), {"q": "How many?"}) == "It is 3"
    assert [len(asked) for asked in model.asked] == [1, 2, 2] and model.asked[1][1] == "How many?"


def test_what_the_input_gives_itself_is_left_alone_unless_it_is_named() -> None:
    chain = ChatPromptTemplate.from_template("Sum up: {feedback}") | Learner() | StrOutputParser()
    with pytest.raises(ConfigurationError, match=r"the input gives 'feedback' itself.*revision=function"):
        revised(chain, {"feedback": "I like it"})
    model = Learner()
    named = ChatPromptTemplate.from_template("Sum up: {feedback}") | model | StrOutputParser()
    assert revised(named, {"feedback": "I like it"}, revision="feedback") == "It is 3"
    assert model.asked[1][0].startswith("Sum up: I like it\n\nEarlier attempts")


def test_a_function_says_how() -> None:
    asked: list[Any] = []

    def count(value: dict[str, Any]) -> str:
        asked.append(value)
        return f"It is {len(value.get('tried', ())) + 1}"

    def again(problem: Any, attempts: Any) -> dict[str, Any]:
        return {**problem.metadata["input"], "tried": [attempt.text for attempt in attempts]}

    assert revised(RunnableLambda(count), {"q": 1}, revision=again) == "It is 3"
    assert asked == [{"q": 1}, {"q": 1, "tried": ["It is 1"]}, {"q": 1, "tried": ["It is 1", "It is 2"]}]


def test_a_graph_gets_messages() -> None:
    model = Learner()
    graph = StateGraph(MessagesState)
    graph.add_node("say", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "say")
    graph.add_edge("say", END)
    scaled = scale(graph.compile(), strategy=ONE_CHAIN, verifier=lambda state: judged(state["messages"][-1]))
    assert scaled.invoke({"messages": [("human", "How many?")]})["messages"][-1].content == "It is 3"
    assert [len(asked) for asked in model.asked] == [1, 3, 5]


@pytest.mark.parametrize("value", ["How many?", [HumanMessage("How many?")]])
def test_a_chat_model_gets_turns(value: Any) -> None:
    model = Learner()
    scaled = ScaledChatModel(model, strategy=ONE_CHAIN, verifier=judged)
    message = scaled.invoke(value)
    assert message.content == "It is 3" and message.response_metadata["tts"]["candidates"] == 3
    assert [len(asked) for asked in model.asked] == [1, 3, 5]
    bare = Learner()
    assert revised(bare | StrOutputParser(), value) == "It is 3" and bare.asked == model.asked


def test_a_chat_model_with_a_function_of_its_own() -> None:
    model = Learner()
    again = lambda problem, attempts: [HumanMessage(f"{problem.text} better than {attempts[-1].text}")]  # noqa: E731
    assert ScaledChatModel(model, strategy=ONE_CHAIN, verifier=judged, revision=again).invoke("?").content == "It is 3"
    assert model.asked[2] == ["? better than It is 2"]


def test_merging_shows_candidates_that_were_made_side_by_side() -> None:
    model = Learner()
    prompt = ChatPromptTemplate.from_messages([("human", "{q}"), ("placeholder", "{attempts}")])
    strategy = RecursiveAggregation(population=2, subset=2, loops=2)
    assert revised(prompt | model | StrOutputParser(), {"q": "?"}, strategy) == "It is 3"  # it reads «Candidate 2»
    assert any("--- Candidate 2 ---" in asked[-1] for asked in model.asked)


def test_revisions_are_replayed_from_the_cache() -> None:
    set_llm_cache(InMemoryCache())
    try:
        model = Learner()
        scaled = ScaledChatModel(model, strategy=Revision(chains=2, rounds=2, select="best"), verifier=judged)
        first = scaled.invoke("?")
        made = len(model.asked)
        again = scaled.invoke("?")
        assert made == 4 == len(model.asked) and again.content == first.content
    finally:
        set_llm_cache(None)


IMPOSSIBLE = [
    (
        ChatPromptTemplate.from_template("{q}") | Learner(),
        r"the variables \['q'\]; put \('placeholder', '\{attempts\}'",
    ),
    (RunnableLambda(lambda value: "4"), "begins with neither a prompt nor a chat model"),
]


@pytest.mark.parametrize(("chain", "said"), IMPOSSIBLE)
def test_what_has_no_place_for_attempts_is_refused_before_anything_is_spent(chain: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        scale(chain, strategy=Revision(), verifier=judged)
    scaled = scale(chain, strategy=BestOfN(n=2), verifier=lambda output: 0.5)
    with pytest.raises(ConfigurationError, match=said):
        scaled.invoke({"q": "?"}, {"configurable": {"tts_strategy": "revision"}})


def test_bad_settings() -> None:
    chain = ChatPromptTemplate.from_template("{q} {attempts}") | Learner()
    with pytest.raises(ConfigurationError, match=r"revision=3 is neither a prompt's variable nor a function"):
        scale(chain, revision=3)
    with pytest.raises(ConfigurationError, match=r"its prompt has the variables \['attempts', 'q'\]"):
        scale(chain, strategy=Revision(), verifier=judged, revision="tried")
    with pytest.raises(ConfigurationError, match="its input is a str"):
        revised(ChatPromptTemplate.from_template("{attempts}") | Learner(), "How many?")
    with pytest.raises(ConfigurationError, match=r"revision='attempts' names a prompt's variable.*has turns"):
        ScaledChatModel(Learner(), revision="attempts")
    with pytest.raises(ConfigurationError, match=r"BeamSearch searches over single steps.*prompt \| ScaledChatModel"):
        scale(chain, strategy=BeamSearch(n=4, beam_width=2))
    with pytest.raises(ConfigurationError, match=r"DVTS searches .*ScaledChatModel\(model, strategy=DVTS\("):
        scale(chain, strategy=DVTS(n=4, beam_width=2))


def test_the_budget_holds_and_failures_of_a_revision_leave_its_chain(capsys: Any) -> None:
    calls: list[int] = []

    def failing(value: dict[str, Any]) -> str:
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no")
        return "It is 1"

    again = lambda problem, attempts: {"q": 2}  # noqa: E731
    scaled = scale(failing, strategy=ONE_CHAIN, verifier=judged, revision=again)
    assert scaled.invoke({"q": 1}) == "It is 1" and len(calls) == 3
    with pytest.raises(ValueError, match="no"):
        scale(failing, strategy=SelfConsistency(n=1)).invoke({"q": 1})
    model = Learner()
    small = ScaledChatModel(model, strategy=ONE_CHAIN, verifier=judged, budget=Budget(calls=2))
    message = small.invoke("?")
    assert message.content == "It is 2" and message.response_metadata["tts"]["stopped"] == "budget"
