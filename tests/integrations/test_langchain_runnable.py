"""`scale` over real LangChain chains: every way in, every kind of candidate, and what must not change."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda, RunnablePassthrough
from langchain_core.tracers.base import BaseTracer
from pydantic import BaseModel
from tts_plugins_langchain import ScaledRunnable, scale

from tests.waiting import block_until, until
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError, DeadlineExceeded
from tts_plugins.stopping import Threshold
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier


class Counter:
    """A chain's step that counts: the k-th call says k."""

    def __init__(self, *, sleep: float = 0.0) -> None:
        self.calls = 0
        self.active = self.peak = 0
        self.threads: set[int] = set()
        self.sleep = sleep
        self._lock = threading.Lock()

    def _take(self) -> int:
        with self._lock:
            self.calls += 1
            self.active += 1
            self.peak = max(self.peak, self.active)
            self.threads.add(threading.get_ident())
            return self.calls - 1

    def _give(self) -> None:
        with self._lock:
            self.active -= 1

    def sync(self, value: Any) -> str:
        k = self._take()
        time.sleep(self.sleep)
        self._give()
        return f"answer {k}"

    async def on_loop(self, value: Any) -> str:
        k = self._take()
        await asyncio.sleep(self.sleep)
        self._give()
        return f"answer {k}"

    @property
    def chain(self) -> RunnableLambda[Any, str]:
        return RunnableLambda(self.sync, afunc=self.on_loop)


def number(output: str) -> float:
    return int(output.split()[-1]) / 100


def best(chain: Any, n: int = 4, **settings: Any) -> ScaledRunnable[Any, Any]:
    return scale(chain, strategy=BestOfN(n=n), verifier=settings.pop("verifier", number), **settings)


class Recorder(BaseTracer):
    """Keeps whole runs, as a tracer sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)


# every way in


def test_invoke_and_batch_take_n_samples_each() -> None:
    counter = Counter()
    scaled = best(counter.chain)
    assert scaled.invoke("?") == "answer 3" and counter.calls == 4
    assert len(scaled.batch(["a", "b", "c"])) == 3 and counter.calls == 16
    assert scaled.batch([]) == []


async def test_async_ways_take_n_samples_each() -> None:
    counter = Counter()
    scaled = best(counter.chain)
    assert await scaled.ainvoke("?") == "answer 3"
    assert len(await scaled.abatch(["a", "b"])) == 2 and counter.calls == 12
    assert counter.threads == {threading.get_ident()}, "the async ways drive the chain's own coroutine"


async def test_streams_give_the_chosen_answer_once() -> None:
    counter = Counter()
    scaled = best(counter.chain)
    assert list(scaled.stream("?")) == ["answer 3"]
    assert [chunk async for chunk in scaled.astream("?")] == ["answer 7"]
    assert counter.calls == 8


async def test_astream_events_shows_the_answer_and_candidates_where_they_are_asked_for() -> None:
    search = best(Counter().chain, name="search")
    hidden = [event async for event in search.astream_events("?", version="v2")]
    names = [event["name"] for event in hidden if event["event"] == "on_chain_end"]
    assert len(names) == 2 and names[-1] == "search" and not names[0].startswith("candidate"), "the chosen one alone"
    show: Any = {"configurable": {"tts_show_candidates": True}}
    events = [event async for event in best(Counter().chain, name="search").astream_events("?", show, version="v2")]
    ends = {event["name"]: event for event in events if event["event"] == "on_chain_end"}
    assert ends["search"]["data"]["output"] == "answer 3"
    assert {f"candidate {i}" for i in range(4)} <= set(ends)
    assert ends["candidate 2"]["data"]["output"]["score"] == 0.02


def test_it_composes_like_any_runnable() -> None:
    chain = {"x": RunnablePassthrough()} | best(Counter().chain) | RunnableLambda(str.upper)
    assert chain.invoke("?") == "ANSWER 3"


def test_kwargs_reach_the_chain() -> None:
    scaled = scale(RunnableLambda(lambda x, **kw: f"{x} {kw['suffix']}"), n=2, verifier=lambda out: 1.0)
    assert scaled.invoke("a", suffix="b") == "a b"
    assert scaled.bind(suffix="c").invoke("a") == "a c"


def test_with_retry_and_with_fallbacks() -> None:
    tries = Counter()

    def flaky(value: str) -> str:
        if tries._take() < 2:
            raise RuntimeError("not yet")
        return "answer 1"

    retried = best(RunnableLambda(flaky), 2).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    assert retried.invoke("?") == "answer 1"

    def broken(value: str) -> str:
        raise RuntimeError("never")

    rescued = best(RunnableLambda(broken)).with_fallbacks([RunnableLambda(lambda x: "plan b")])
    assert rescued.invoke("?") == "plan b"


def test_schemas_graph_and_name_are_the_chains() -> None:
    chain = ChatPromptTemplate.from_template("What is {x}?") | RunnableLambda(lambda p: "4") | StrOutputParser()
    scaled = best(chain)
    assert scaled.get_input_schema().model_json_schema() == chain.get_input_schema().model_json_schema()
    assert scaled.get_output_jsonschema() == chain.get_output_jsonschema()
    assert len(scaled.get_graph().nodes) == len(chain.get_graph().nodes)
    assert scaled.InputType == chain.InputType and scaled.get_name() == "scaled(RunnableSequence)"
    assert scaled.OutputType == chain.OutputType is str
    assert scale(chain, name="mine").get_name() == "mine"


def test_what_is_configurable_in_the_chain_stays_so() -> None:
    prompt = PromptTemplate.from_template("What is {x}?").configurable_fields(template=ConfigurableField(id="wording"))
    scaled = best(prompt | RunnableLambda(lambda p: f"{p.text} 1"), 2)
    assert {"wording", "tts_n"} <= {spec.id for spec in scaled.config_specs}
    asked: RunnableConfig = {"configurable": {"wording": "Say {x}!", "tts_n": 1}}
    assert scaled.invoke({"x": "it"}, asked) == "Say it! 1" and scaled.invoke({"x": "it"}) == "What is it? 1"


def test_solve_gives_the_whole_result() -> None:
    result = best(Counter().chain).solve("?")
    assert result.output == "answer 3" and result.score == 0.03 and len(result.candidates) == 4
    assert result.stopped == "complete" and "candidate" in result.trace.tree()


# sync in odd places


async def test_sync_invoke_inside_a_running_loop() -> None:
    assert best(Counter().chain, 8).invoke("?") == "answer 7"


async def test_sync_invoke_from_eight_threads_inside_a_running_loop() -> None:
    counters = [Counter(sleep=0.02) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(best(c.chain, 8).invoke, "?") for c in counters]
        found = [f.result(timeout=60) for f in futures]
    assert found == ["answer 7"] * 8 and [c.calls for c in counters] == [8] * 8


def test_sync_candidates_run_at_once_on_threads() -> None:
    together, threads = threading.Barrier(8, timeout=60), set[int]()

    def step(value: Any) -> str:
        threads.add(threading.get_ident())
        return f"answer {together.wait()}"

    assert best(RunnableLambda(step), 8).invoke("?") == "answer 7" and len(threads) == 8


def test_callback_handlers_do_not_wait_for_the_few_threads_of_the_default_pool() -> None:
    together = threading.Barrier(40, timeout=60)  # the default pool has 32 threads at most, and joins them at exit

    class Slow(BaseCallbackHandler):
        raise_error = True

        def on_chain_end(self, outputs: Any, *, parent_run_id: Any = None, **kwargs: Any) -> None:
            if isinstance(outputs, dict) and "score" in outputs:
                together.wait()

    best(Counter().chain, 40).invoke("?", {"callbacks": [Slow()]})
    assert not together.broken


def test_batch_does_not_wait_for_the_few_threads_of_the_default_pool() -> None:
    counter = Counter(sleep=0.2)
    best(counter.chain, 2).batch(["?"] * 12)
    assert counter.peak > 14, "six threads would have twelve candidates in flight"


# candidates of every kind


class Label(BaseModel):
    category: str
    reason: str = ""


def test_messages_vote_by_their_text() -> None:
    said = iter(["4", "5", "4"])
    chain = RunnableLambda(lambda x: AIMessage(next(said)))
    output = scale(chain, strategy=SelfConsistency(n=3)).invoke("2 + 2?")
    assert isinstance(output, AIMessage) and output.content == "4"


def test_tool_calls_vote_by_name_and_arguments() -> None:
    calls = iter(
        AIMessage(chatter, tool_calls=[{"name": "add", "args": args, "id": str(i)}])
        for i, (chatter, args) in enumerate(
            [("hm", {"a": 2, "b": 3}), ("", {"a": 1, "b": 2}), ("so, I add", {"b": 2, "a": 1})]
        )
    )
    chosen = scale(RunnableLambda(lambda x: next(calls)), strategy=SelfConsistency(n=3), concurrency=1).invoke("?")
    assert chosen.tool_calls[0]["args"] == {"a": 1, "b": 2}


def test_dicts_and_pydantic_objects_come_back_as_they_are() -> None:
    given = iter([Label(category="a"), Label(category="b"), Label(category="b")])
    chosen = scale(RunnableLambda(lambda x: next(given)), strategy=SelfConsistency(n=3)).invoke("?")
    assert chosen == Label(category="b")
    dicts = iter([{"x": 1}, {"x": 2}, {"x": 2}])
    assert scale(RunnableLambda(lambda x: next(dicts)), strategy=SelfConsistency(n=3)).invoke("?") == {"x": 2}


def test_answer_reads_the_output_itself() -> None:
    given = iter([Label(category="a", reason="1"), Label(category="b", reason="2"), Label(category="b", reason="3")])
    scaled = scale(RunnableLambda(lambda x: next(given)), strategy=SelfConsistency(n=3), answer=lambda o: o.category)
    assert scaled.invoke("?").category == "b"


@pytest.mark.parametrize("value", ["", None, {}, [], [1, 2], ("a", "b"), AIMessage("hi"), [AIMessage("hi")], 7])
def test_any_input_of_a_chain_will_do(value: Any) -> None:
    seen: list[Any] = []
    scaled = scale(RunnableLambda(lambda x: seen.append(x) or "ok"), n=2, verifier=lambda out: 1.0)
    assert scaled.invoke(value) == "ok" and seen == [value, value]


# verifiers of every kind


async def test_verifiers_of_every_kind() -> None:
    judge = RunnableLambda(lambda asked: {"score": number(asked["output"]), "feedback": asked["text"]})
    text_judge = RunnableLambda(lambda asked: AIMessage(str(number(asked["output"]))))

    async def slow(output: str) -> float:
        await asyncio.sleep(0)
        return number(output)

    def both(problem: Any, candidate: Any) -> float:
        assert problem.metadata["input"] == {"q": "?"}
        return number(candidate.output)

    def reported(asked: dict[str, Any], config: RunnableConfig) -> float:
        assert config["callbacks"] is not None
        return number(asked["output"])

    kinds = [number, both, slow, judge, text_judge, RunnableLambda(reported), CallableVerifier(both)]
    for verifier in kinds:
        assert best(Counter().chain, verifier=verifier).invoke({"q": "?"}) == "answer 3"
        assert await best(Counter().chain, verifier=verifier).ainvoke({"q": "?"}) == "answer 3"
    assert best(Counter().chain, verifier=AnswerAgreement()).invoke("?").startswith("answer")


def test_a_verifier_that_gives_no_number_is_an_error_that_says_so() -> None:
    judge = RunnableLambda(lambda asked: "quite good")
    with pytest.raises(AllCandidatesFailed, match="number from 0 to 1"):
        best(Counter().chain, verifier=judge).invoke("?")


@pytest.mark.parametrize("verifier", [lambda m: len(m.content) / 9, lambda p, c: c.output["score"]])
def test_an_output_that_the_verifier_cannot_read_is_shown_with_what_to_change(verifier: Any) -> None:
    with pytest.raises((AttributeError, TypeError)) as caught:
        best(Counter().chain, verifier=verifier, concurrency=1).invoke("?")
    (note,) = caught.value.__notes__
    assert re.search(r"VerifierError: <lambda>, .*output is a str, 'answer \d': read that", note)


def test_a_verifier_that_fails_costs_one_candidate() -> None:
    def strict(output: str) -> float:
        if output.endswith("3"):
            raise ValueError("cannot read this one")
        return number(output)

    result = best(Counter().chain, verifier=strict).solve("?")
    assert result.output == "answer 2" and len(result.candidates) == 3


# failures


def test_one_candidate_that_fails_costs_that_one() -> None:
    counter = Counter()

    def chain(value: str) -> str:
        if (said := counter.sync(value)) == "answer 3":
            raise ValueError("could not parse")
        return said

    assert best(RunnableLambda(chain)).invoke("?") == "answer 2"


def test_all_failing_names_the_first_cause() -> None:
    def chain(value: str) -> str:
        raise KeyError("missing")

    with pytest.raises(KeyError, match="missing") as caught:
        best(RunnableLambda(chain)).invoke("?")
    assert isinstance(caught.value.__cause__, AllCandidatesFailed)
    assert "all 4 candidates failed" in caught.value.__notes__[0]


def test_none_is_a_lost_candidate_and_not_tried_again() -> None:
    calls: list[int] = []
    with pytest.raises(AllCandidatesFailed, match="gave None"):
        best(RunnableLambda(lambda x: calls.append(1))).invoke("?")
    assert len(calls) == 4


async def test_cancelled_inside_a_chain_is_a_failure_and_not_a_hang() -> None:
    async def chain(value: str) -> str:
        raise asyncio.CancelledError

    with pytest.raises(AllCandidatesFailed, match="CancelledError"):
        await asyncio.wait_for(best(RunnableLambda(lambda x: x, afunc=chain)).ainvoke("?"), 60)


def test_the_users_interrupt_passes_through() -> None:
    def chain(value: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        best(RunnableLambda(chain)).invoke("?")


@pytest.mark.parametrize("how", ["sync", "async"])
def test_interrupts_of_langgraph_pass_through(how: str) -> None:
    errors = pytest.importorskip("langgraph.errors")

    def chain(value: str) -> str:
        raise errors.GraphInterrupt(("wait for a human",))

    with pytest.raises(errors.GraphInterrupt):
        scaled = best(RunnableLambda(chain))
        scaled.invoke("?") if how == "sync" else asyncio.run(scaled.ainvoke("?"))


def test_an_interrupt_resumes_inside_a_graph() -> None:
    pytest.importorskip("langgraph")
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import Command, interrupt

    scaled = scale(RunnableLambda(lambda x: AIMessage(interrupt("which?"))), n=1)
    graph = StateGraph(MessagesState).add_node("ask", lambda state: {"messages": [scaled.invoke("?")]})
    app = graph.add_edge(START, "ask").compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "1"}}
    assert app.invoke({"messages": []}, config)["__interrupt__"]
    assert app.invoke(Command(resume="this"), config)["messages"][-1].content == "this"


def test_inside_a_graph_no_candidate_shows_in_the_message_stream() -> None:
    pytest.importorskip("langgraph")
    from langgraph.graph import START, MessagesState, StateGraph

    model = GenericFakeChatModel(messages=(AIMessage(f"says {i}") for i in range(9)))
    scaled = scale(model, strategy=SelfConsistency(n=3), seed=1)
    graph = StateGraph(MessagesState).add_node("ask", lambda state: {"messages": [scaled.invoke(state["messages"])]})
    app = graph.add_edge(START, "ask").compile()
    streamed = [m for m, _ in app.stream({"messages": [("human", "hi")]}, stream_mode="messages")]
    assert len([m for m in streamed if m.type != "human"]) == 1, "the chosen one, whole"


# settings


def test_configurable_of_one_call() -> None:
    counter = Counter()
    scaled = best(counter.chain)
    scaled.invoke("?", {"configurable": {"tts_n": 2}})
    assert counter.calls == 2
    result = scaled.solve("?", {"configurable": {"tts_strategy": "self_consistency", "tts_n": 3, "tts_seed": 7}})
    assert len(result.candidates) == 3 and result.seed == 7
    named = scaled.solve("?", {"configurable": {"tts_strategy": "self-consistency"}})
    assert len(named.candidates) == 4 != SelfConsistency().n, "the n that stands"
    with pytest.raises(ConfigurationError, match="BeamSearch searches over single steps"):
        best(counter.chain, 3).solve("?", {"configurable": {"tts_strategy": "beam-search"}})
    assert "tts_n" in {spec.id for spec in scaled.config_specs}
    with pytest.raises(ConfigurationError, match="tts_m"):
        scaled.invoke("?", {"configurable": {"tts_m": 2}})
    with pytest.raises(ConfigurationError, match="type='nope' is not known"):
        scaled.invoke("?", {"configurable": {"tts_strategy": "nope"}})


def test_what_the_budget_has_no_room_for_is_not_called_lost() -> None:
    """Regression: eight candidates that were never asked for stood as «8 lost», though nothing failed."""
    model = GenericFakeChatModel(messages=(AIMessage(str(i)) for i in range(20)))
    result = scale(model, strategy=SelfConsistency(n=12), budget=Budget(calls=4)).solve("?")
    text, page = result.trace.tree(), result.trace.html()
    assert "4 candidates · 8 out of budget" in text and "failed" not in text and "✗" not in text
    assert text.count("(out of budget)") == 8 and "8 out of budget" in page and 'class="cause"' not in page


def test_configurable_does_not_reach_searches_inside() -> None:
    counter = Counter()
    inner = scale(counter.chain, n=2, verifier=number)
    scale(inner, n=3, verifier=number).invoke("?", {"configurable": {"tts_n": 1}})
    assert counter.calls == 2


def test_langchains_own_configurable_fields() -> None:
    counter = Counter()
    scaled = best(counter.chain).configurable_fields(n=ConfigurableField(id="how_many"))
    scaled.invoke("?", {"configurable": {"how_many": 2}})
    assert counter.calls == 2
    scaled.invoke("?")
    assert counter.calls == 6
    whole = best(counter.chain).configurable_fields(
        strategy=ConfigurableField(id="how"),
        budget=ConfigurableField(id="limits"),
        profile=ConfigurableField(id="kind"),
    )
    with pytest.raises(BudgetExhausted):
        model = GenericFakeChatModel(messages=iter([AIMessage("1")]))
        twice = RunnableLambda(lambda x: model.invoke(x) and model.invoke(x))
        scale(twice).configurable_fields(budget=ConfigurableField(id="limits")).invoke(
            "?", {"configurable": {"limits": Budget(calls=1)}}
        )
    assert (
        whole.invoke("?", {"configurable": {"how": SelfConsistency(n=3)}}).startswith("answer") and counter.calls == 9
    )
    with pytest.raises(ConfigurationError, match="profile='nope' is not known"):
        whole.invoke("?", {"configurable": {"kind": "nope"}})


def test_profiles_in_code_and_for_one_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.tts-plugins.profiles.careful]\nstrategy = "self_consistency"\n')
    (tmp_path / "tts-plugins.toml").write_text("[profiles.careful]\nstrategy = { n = 6 }\n[profiles.quick]\nseed = 4\n")
    counter = Counter()
    assert len(scale(counter.chain, profile="careful").solve("?").candidates) == 6
    monkeypatch.setenv("TTS_PLUGINS_PROFILES__CAREFUL__STRATEGY__N", "2")
    assert len(scale(counter.chain, profile="careful").solve("?").candidates) == 2, "the environment has the last word"
    assert len(scale(counter.chain, profile="careful", n=3).solve("?").candidates) == 3, "but for what is said in code"
    result = best(counter.chain).solve("?", {"configurable": {"tts_profile": "quick"}})
    assert (len(result.candidates), result.seed) == (4, 4)


def test_a_time_limit_from_the_config() -> None:
    with pytest.raises(DeadlineExceeded):
        best(Counter(sleep=5).chain).invoke("?", {"configurable": {"tts_budget_seconds": 0.1}})


def test_a_stop_rule_ends_it_early() -> None:
    counter = Counter()
    scaled = scale(counter.chain, strategy=BestOfN(n=8, stop=Threshold(0.01)), verifier=number)
    assert scaled.solve("?").stopped == "stop_rule" and counter.calls < 8


def test_concurrency_is_one_limit_over_all_calls() -> None:
    counter = Counter(sleep=0.01)
    best(counter.chain, 4, concurrency=3).batch(["a", "b", "c"])
    assert counter.peak == 3
    leveled = Counter(sleep=0.01)
    best(leveled.chain, 4).batch(["a", "b", "c"], {"max_concurrency": 2})
    assert leveled.peak <= 4, "LangChain's own limit is one for each level"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "nope"}, "type='nope' is not known"),
        ({"strategy": BestOfN}, "is not a strategy"),
        ({"verifier": 3}, "verifier=3 is not a verifier"),
        ({"verifier": lambda: 1.0}, r"verifier <lambda>\(\): it must take \(problem, candidate\), or the candidate's"),
        (
            {"verifier": RunnableLambda(lambda a, b: 1.0)},
            r"its function\(a, b\) must take one argument, a dict with input",
        ),
        ({"budget": 3}, "budget=3 must be a Budget or a Ledger"),
        ({"budget": {"cals": 3}}, "budget 'cals' is not known"),
        ({"n": 0}, "n=0"),
        ({"nn": 3}, "'nn' is not a setting"),
        ({"profile": "nope"}, "profile='nope' is not known"),
    ],
)
def test_bad_settings_fail_when_wrapping(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scale(RunnableLambda(lambda x: x), **settings)
    with pytest.raises(ConfigurationError, match=r"missing a required argument: 'runnable'; write scale\(chain, n=8\)"):
        scale(**settings)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="is not a runnable"):
        scale(3)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")  # LangChain's, of every release so far
def test_it_survives_serialisation() -> None:
    chain = ChatPromptTemplate.from_template("What is {x}?") | StrOutputParser()
    scaled = scale(chain, strategy=BestOfN(n=3, stop=Threshold(0.5)), budget=Budget(calls=3), seed=1)
    assert ScaledRunnable.is_lc_serializable()
    back = loads(
        dumps(scaled),
        valid_namespaces=["tts_plugins_langchain"],
        allowed_objects=[ScaledRunnable, type(chain), ChatPromptTemplate, StrOutputParser, *_parts()],
    )
    assert isinstance(back, ScaledRunnable)
    assert (back.strategy, back.budget, back.seed) == (scaled.strategy, scaled.budget, 1)


def _parts() -> list[Any]:
    from langchain_core.prompts import HumanMessagePromptTemplate, PromptTemplate

    return [HumanMessagePromptTemplate, PromptTemplate]


# budgets without a model


def test_a_ledger_is_shared_by_calls_of_searches_inside() -> None:
    account = Ledger()
    scaled = scale(best(Counter().chain, 2), n=2, verifier=number, budget=account)
    scaled.invoke("?")
    assert account.spent.calls == 0, "a chain without a model costs nothing"


# what traces show


def walk(run: Any) -> Iterator[Any]:
    yield run
    for child in run.child_runs:
        yield from walk(child)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_candidate_is_a_child_run_with_index_and_score(how: str) -> None:
    recorder, judge = Recorder(), RunnableLambda(lambda asked: number(asked["output"])).with_config(run_name="judge")
    scaled = best(Counter().chain.with_config(run_name="step"), 3, verifier=judge)
    config: RunnableConfig = {"callbacks": [recorder], "run_name": "mine", "tags": ["t"], "metadata": {"m": 1}}
    scaled.invoke("?", config) if how == "sync" else asyncio.run(scaled.ainvoke("?", config))
    (root,) = recorder.roots
    runs = sorted(root.child_runs, key=lambda run: run.name)  # threads may begin in any order
    assert root.name == "mine" and [run.name for run in runs] == [f"candidate {i}" for i in range(3)]
    for i, run in enumerate(runs):
        assert run.extra["metadata"]["tts_candidate"] == i
        added = {key for key in run.extra["metadata"] if key.startswith("tts_")}
        assert added == {"tts_candidate", "tts_score"}, "metadata goes to LangSmith: the settings are not part of it"
        score = run.outputs["score"]
        assert run.extra["metadata"]["tts_score"] == score == number(run.outputs["output"])
        assert [c.name for c in run.child_runs] == ["step", "verifier"]
        assert all(inner.extra["metadata"]["tts_candidate"] == i for inner in walk(run))
        assert all(inner.end_time is not None for inner in walk(run))


@pytest.mark.parametrize("how", ["sync", "async"])
def test_runs_of_failed_and_cancelled_candidates_end_too(how: str) -> None:
    counter, over, recorder = Counter(), threading.Event(), Recorder()

    def lost() -> bool:
        """Whether the run of the first one has ended."""
        roots = [run for run in list(recorder.run_map.values()) if run.parent_run_id is None]
        return any(child.error for root in roots for child in root.child_runs)

    def step(value: str) -> str:
        k = counter._take()
        if k == 0:
            raise ValueError("lost")
        over.wait(60) if k == 2 else block_until(lost)
        return f"answer {k}"

    async def astep(value: str) -> str:
        k = counter._take()
        if k == 0:
            raise ValueError("lost")
        await (asyncio.sleep(60) if k == 2 else until(lost))
        return f"answer {k}"

    strategy = BestOfN(n=3, stop=Threshold(0.01), wave=3)
    scaled = scale(RunnableLambda(step, afunc=astep), strategy=strategy, verifier=number)
    config: RunnableConfig = {"callbacks": [recorder]}
    scaled.invoke("?", config) if how == "sync" else asyncio.run(scaled.ainvoke("?", config))
    over.set()
    (root,) = recorder.roots
    errors = sorted(run.error or "" for run in root.child_runs)
    assert errors[0] == "" and errors[1].startswith("CancelledError") and "lost" in errors[2]


def test_run_ids_of_the_caller_are_kept() -> None:
    recorder, mine = Recorder(), uuid.uuid4()
    best(Counter().chain).invoke("?", {"callbacks": [recorder], "run_id": mine})
    assert recorder.roots[0].id == mine


def test_on_exhausted_raise() -> None:
    from langchain_core.language_models import GenericFakeChatModel

    model = GenericFakeChatModel(messages=iter([AIMessage(str(i)) for i in range(9)]))
    scaled = scale(model, strategy=SelfConsistency(n=4), budget=Budget(calls=2), on_exhausted="raise")
    with pytest.raises(BudgetExhausted):
        scaled.invoke("?")
