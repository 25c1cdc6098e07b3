"""An answer that says nothing is not chosen while another says something, whatever its score, in each adapter."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tts_plugins import BestOfN, RecursiveAggregation, Revision, SelfConsistency, TreeSearch, solve_sync
from tts_plugins.errors import AllCandidatesFailed
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.stopping import Threshold
from tts_plugins.testing.loopback import Fault, LoopbackServer, Reply
from tts_plugins.verifiers import CallableVerifier

STRATEGIES = [
    BestOfN(n=4), BestOfN(n=4, stop=Threshold(0.9)), Revision(chains=2, rounds=2), Revision(chains=1, rounds=3),
    RecursiveAggregation(population=4, loops=2, subset=2), TreeSearch(n=4), TreeSearch(n=4, stop=Threshold(0.9)),
]  # fmt: skip
RIGHT = "The answer is 4."
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}], "max_tokens": 16}
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def taken(answer: Any) -> float:
    """A verifier that takes whatever it sees."""
    return 0.9


def first_is(text: str, then: str = RIGHT) -> LoopbackServer:
    """A server whose first answer, and each second one after it, is this text."""
    return LoopbackServer(reply=lambda body, i: then if i % 2 else text, indexing="arrival")


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("blank", ["", " \n"])
def test_the_engine(strategy: Any, blank: str) -> None:
    with first_is(blank) as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=16, temperature=0.8)
        result = solve_sync("2 + 2?", model=model, strategy=strategy, verifier=CallableVerifier(lambda p, c: 0.9))
    assert result.text == RIGHT and any(not c.text.strip() for c in result.candidates)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("null", [False, True])
def test_langchain(strategy: Any, null: bool) -> None:
    pytest.importorskip("langchain_openai")
    from langchain_core.output_parsers import StrOutputParser
    from langchain_openai import ChatOpenAI
    from tts_plugins_langchain import ScaledChatModel, scale

    with first_is("") if not null else LoopbackServer(reply=RIGHT) as server:
        if null:
            server.configure(faults=[fault for _ in range(8) for fault in (Fault.null_content(), None)])
        model = ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_retries=0, max_tokens=16)
        assert scale(model, strategy=strategy, verifier=taken).invoke("2 + 2?").content == RIGHT
        assert ScaledChatModel(model, strategy=strategy, verifier=taken).invoke("2 + 2?").content == RIGHT
        if not isinstance(strategy, Revision | RecursiveAggregation):
            assert scale(model | StrOutputParser(), strategy=strategy, verifier=taken).invoke("2 + 2?") == RIGHT


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_openai(strategy: Any) -> None:
    from openai import OpenAI
    from tts_plugins_openai import scale

    with first_is("") as server, OpenAI(base_url=server.base_url, api_key="-") as client:
        completion = scale(client, strategy=strategy, verifier=taken).chat.completions.create(**ASKED)
    assert completion.choices[0].message.content == RIGHT


@pytest.mark.parametrize("kind", ["module", "model"])
@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if not isinstance(s, RecursiveAggregation)], ids=str)
def test_dspy(strategy: Any, kind: str) -> None:
    dspy = pytest.importorskip("dspy")
    from tts_plugins_dspy import Scaled, ScaledLM

    from tests.dspy_models import close, language_model
    from tests.imitations import said

    with first_is(said(answer=""), said(answer=RIGHT)) if kind == "module" else first_is("") as server:
        lm = language_model(server, cache=False)
        with contextlib.ExitStack() as stack:
            stack.callback(close, lm)
            if kind == "model":
                assert ScaledLM(lm, strategy=strategy, verifier=taken)("2 + 2?") == [RIGHT]
            else:
                with dspy.context(lm=lm):
                    program = Scaled(dspy.Predict("question -> answer"), strategy=strategy, verifier=taken)
                    assert program(question="2 + 2?").answer == RIGHT


def test_where_all_say_nothing_the_answer_is_what_the_bare_model_gives() -> None:
    from openai import OpenAI
    from tts_plugins_openai import scale

    with LoopbackServer(reply="") as server, OpenAI(base_url=server.base_url, api_key="-") as client:
        completion = scale(client, n=3, verifier=taken).chat.completions.create(**ASKED)
    assert completion.choices[0].message.content == ""


def test_a_tool_call_says_something() -> None:
    from openai import OpenAI
    from tts_plugins_openai import scale

    def best(message: Any) -> float:
        return 0.9 if message.tool_calls else 0.5

    replies = [Reply(text="", tool_calls=[CALL]), Reply(text=RIGHT)]
    with (
        LoopbackServer(reply=lambda body, i: replies[i % 2], indexing="arrival") as server,
        OpenAI(base_url=server.base_url, api_key="-") as client,
    ):
        completion = scale(client, n=2, verifier=best).chat.completions.create(**ASKED)
        model = OpenAICompatibleModel("m", base_url=server.base_url, api_key="-", max_tokens=16, temperature=0.8)
        judged = CallableVerifier(lambda problem, candidate: best(candidate.output))
        result = solve_sync("2 + 2?", model=model, strategy=BestOfN(n=2), verifier=judged)
    assert completion.choices[0].message.tool_calls and result.output.tool_calls


@pytest.mark.parametrize(
    "fault", [Fault.truncated_json(), Fault.html(), Fault.empty_choices(), Fault.missing_message()],
    ids=lambda fault: fault.kind,
)  # fmt: skip
@pytest.mark.parametrize("strategy", [SelfConsistency(n=2), TreeSearch(n=2), Revision(chains=2, rounds=2)], ids=str)
def test_the_chains_own_exception_has_a_note_and_a_cause(fault: Fault, strategy: Any) -> None:
    """Whatever a version of ChatOpenAI raises for such an answer, its callers get that class, and what happened."""
    pytest.importorskip("langchain_openai")
    from langchain_openai import ChatOpenAI
    from tts_plugins_langchain import scale

    with LoopbackServer(faults=fault) as server:
        model = ChatOpenAI(model="m", base_url=server.base_url, api_key="-", max_retries=0, max_tokens=16)
        with pytest.raises(Exception) as bare:
            model.invoke("2 + 2?")
        with pytest.raises(bare.type) as caught:
            scale(model, strategy=strategy, verifier=None if isinstance(strategy, SelfConsistency) else taken).invoke(
                "2 + 2?"
            )
    assert isinstance(caught.value.__cause__, AllCandidatesFailed)
    assert (
        str(caught.value.__cause__) in caught.value.__notes__[-1] and bare.type.__name__ in caught.value.__notes__[-1]
    )
