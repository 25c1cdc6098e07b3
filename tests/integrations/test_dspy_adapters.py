"""Samples, hints and votes, whatever adapter a program sets and however it calls its models."""

from __future__ import annotations

import asyncio
import datetime
import enum
import functools
import json
import queue
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any, Literal

import pydantic
import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import Scaled, ScaledLM

from tests.dspy_models import KEEPS_LOOPS, aclose, close, language_model, program, score
from tests.imitations import said
from tts_plugins import Budget, Revision, SelfConsistency
from tts_plugins.testing.loopback import LoopbackServer, Reply

try:
    from dspy.adapters.baml_adapter import BAMLAdapter
except ImportError:  # before DSPy 3.0.4
    BAMLAdapter = None

ONE_CHAIN = Revision(chains=1, rounds=2, select="best")


SHARED = ThreadPoolExecutor(2)
WITH_PICTURE = dspy.Predict("question, image: dspy.Image -> answer: int")
WITH_HISTORY = dspy.Predict("question, history: dspy.History -> answer: int")


def set_adapter(module: Any, question: str) -> Any:
    """Sets an adapter of its own, as programs of several steps do."""
    kinds = {"json": dspy.JSONAdapter, "xml": dspy.XMLAdapter, "chat": dspy.ChatAdapter, "baml": BAMLAdapter}
    with dspy.context(adapter=kinds[module.how]()):
        return module.ask(question=question)


def called_adapter(module: Any, question: str) -> Any:
    (fields,) = dspy.ChatAdapter()(dspy.settings.lm, {}, module.ask.signature, [], {"question": question})
    return dspy.Prediction(**fields)


def copied_model(module: Any, question: str) -> Any:
    with dspy.context(lm=dspy.settings.lm.copy(temperature=0.5)):
        return module.ask(question=question)


def other_predictor(module: Any, question: str) -> Any:
    mine = module.ask.deepcopy()
    mine.set_lm(dspy.settings.lm)
    return mine(question=question)


def with_picture(module: Any, question: str) -> Any:
    return WITH_PICTURE(question=question, image=dspy.Image(url="data:image/png;base64,iVBORw0KGgo="))


def with_history(module: Any, question: str) -> Any:
    return WITH_HISTORY(question=question, history=dspy.History(messages=[{"question": "before?", "answer": 1}]))


def in_threads(module: Any, question: str) -> Any:
    pairs = [(module.ask, {"question": question})]
    return dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)[0]


def in_an_executor(module: Any, question: str) -> Any:
    with ThreadPoolExecutor(2) as executor:
        return executor.submit(module.ask, question=question, lm=dspy.settings.lm).result()


def in_a_shared_executor(module: Any, question: str) -> Any:
    lm = dspy.settings.lm
    return next(SHARED.map(lambda asked: module.ask(question=asked, lm=lm), [question]))


async def in_a_loops_executor(module: Any, question: str) -> Any:
    ask = functools.partial(module.ask, question=question, lm=dspy.settings.lm)
    return await asyncio.get_running_loop().run_in_executor(None, ask)


def in_a_bare_thread(module: Any, question: str) -> Any:
    asked, lm = list[Any](), dspy.settings.lm
    thread = threading.Thread()
    thread.run = lambda: asked.append(module.ask(question=question, lm=lm))  # type: ignore[method-assign]
    thread.start()
    thread.join()
    return asked[0]


def in_a_pool_of_threads(module: Any, question: str) -> Any:
    lm = dspy.settings.lm
    with ThreadPool(2) as pool:
        return pool.map(lambda asked: module.ask(question=asked, lm=lm), [question])[0]


def messages_called(module: Any, question: str) -> Any:
    asked = [{"role": "system", "content": "count"}, {"role": "user", "content": question}]
    return dspy.Prediction(answer=dspy.settings.lm(messages=asked)[0])


def configured(module: Any, question: str) -> Any:
    dspy.configure(adapter=dspy.JSONAdapter())
    answered = module.ask(question=question)
    assert isinstance(dspy.settings.adapter, dspy.JSONAdapter)
    return answered


WAYS: dict[str, Callable[[Any, str], Any]] = {
    "json": set_adapter,
    "xml": set_adapter,
    "chat": set_adapter,
    "baml": set_adapter,
    "configured": configured,
    "adapter called": called_adapter,
    "model called": lambda module, question: dspy.Prediction(answer=dspy.settings.lm(question)[0]),
    "model called with messages": messages_called,
    "model copied": copied_model,
    "predictor copied": other_predictor,
    "rollout_id": lambda module, question: module.ask(question=question, config={"rollout_id": 7, "temperature": 0.9}),
    "picture": with_picture,
    "history": with_history,
    "threads": in_threads,
    "executor": in_an_executor,
    "shared executor": in_a_shared_executor,
    "executor of a loop": lambda module, question: asyncio.run(in_a_loops_executor(module, question)),
    "bare thread": in_a_bare_thread,
    "pool of threads": in_a_pool_of_threads,
    "own loop": lambda module, question: asyncio.run(module.ask.acall(question=question)),
    "asyncify": lambda module, question: asyncio.run(dspy.asyncify(module.ask)(question=question)),
}


class Asking(dspy.Module):  # type: ignore[misc]
    """Asks its model in one of many ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.ask, self.how = program(), how

    def forward(self, question: str) -> Any:
        return WAYS[self.how](self, question)


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message")
@pytest.mark.parametrize("how", WAYS)
def test_samples_are_distinct_replayed_and_hinted_whatever_the_program_sets(
    dspy_server: LoopbackServer, dspy_lm: Any, how: str
) -> None:
    if how == "baml" and BAMLAdapter is None:
        pytest.skip("this version has no BAMLAdapter")
    if how in ("own loop", "asyncify") and KEEPS_LOOPS:
        pytest.skip("this LiteLLM may keep a loop from ending")
    scaled = Scaled(Asking(how), n=4, verifier=score, budget=Budget(calls=8))
    first = scaled.solve(question="q")
    assert sorted(int(c.output.answer) for c in first.candidates) == [0, 1, 2, 3] and first.usage.calls == 4
    again = scaled.solve(question="q")
    assert again.usage.calls == 0 and dspy_server.counts.requests == 4
    assert [c.output.answer for c in again.candidates] == [c.output.answer for c in first.candidates]
    dspy_server.reset()
    Scaled(Asking(how), strategy=ONE_CHAIN, verifier=score, seed=1)(question="hints?")
    before, after = (json.dumps(request.body) for request in dspy_server.requests)
    assert "hint_" not in before and "hint_" in after and "more than 0" in after


def test_what_a_candidate_configures_is_its_own(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    before = dspy.settings.adapter
    Scaled(Asking("configured"), n=4, verifier=score)(question="q")
    assert dspy.settings.adapter is before
    assert all("JSON" in json.dumps(request.body) for request in dspy_server.requests)


def test_a_thread_that_outlives_its_candidate_serves_the_next_ones(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    work = queue.Queue[Any]()

    def serve() -> None:
        while (given := work.get()) is not None:
            ask, answers = given
            answers.put(ask())

    class Served(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            if not threads:
                threads.append(threading.Thread(target=serve, daemon=True))
                threads[0].start()
            answers = queue.Queue[Any]()
            work.put((functools.partial(self.ask, question=question, lm=dspy.settings.lm), answers))
            return answers.get(timeout=60)

    threads = list[threading.Thread]()
    scaled = Scaled(Served(), n=1, verifier=score, budget=Budget(calls=2), copy=False)
    assert [scaled(question=f"question {k}").answer for k in range(3)] == [0, 1, 2]
    work.put(None)


def test_a_call_of_a_bare_thread_for_which_there_is_no_room_ends_its_candidate(
    dspy_server: LoopbackServer, dspy_lm: Any
) -> None:
    result = Scaled(Asking("bare thread"), n=4, verifier=score, budget=Budget(calls=2)).solve(question="q")
    assert result.stopped == "budget" and len(result.candidates) == 2 == dspy_server.counts.requests


def test_the_model_of_an_adapter_reads_and_sees_no_hints(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    reader = language_model(dspy_server, "openai/reader")
    with dspy.context(adapter=dspy.TwoStepAdapter(reader)):
        Scaled(program(), strategy=ONE_CHAIN, verifier=score)(question="q")
    hinted = {r.body["model"]: [] for r in dspy_server.requests}  # type: ignore[var-annotated]
    for request in dspy_server.requests:
        hinted[request.body["model"]].append("hint_" in json.dumps(request.body))
    assert hinted == {"small": [False, True], "reader": [False, False]}
    close(reader)


def test_the_programs_model_may_be_the_adapters_too(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    with dspy.context(adapter=dspy.TwoStepAdapter(dspy_lm)):
        Scaled(program(), strategy=ONE_CHAIN, verifier=score)(question="q")
    assert ["hint_" in json.dumps(request.body) for request in dspy_server.requests] == [False, False, True, False]


async def test_asynchronous_programs_set_adapters_too(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Two(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = program(), program()

        async def aforward(self, question: str) -> Any:
            with dspy.context(adapter=dspy.JSONAdapter()):
                made = await self.first.acall(question=question)
            return await self.second.acall(question=f"{question} {made.answer}")

    scaled = Scaled(Two(), n=3, verifier=score, budget=Budget(calls=6))
    answers = [(await scaled.acall(question="q")).answer for _ in range(2)]
    assert dspy_server.counts.requests == 6 and answers == [5, 5]
    await aclose(dspy_lm)


def test_agents_are_searched_and_shown_hints(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    async def look(topic: str) -> str:
        return f"about {topic}"

    def acting(body: dict[str, Any], index: int) -> str:
        if "next_tool_name" not in str(body):
            return said(reasoning="so", answer=index)
        tool = "finish" if "[[ ## observation_0 ## ]]" in str(body) else "look"
        arguments = {} if tool == "finish" else {"topic": f"{index}"}
        return said(next_thought="well", next_tool_name=tool, next_tool_args=json.dumps(arguments))

    dspy_server.configure(reply=acting)
    agent = dspy.ReAct("question -> answer: int", tools=[look])
    with dspy.context(allow_tool_async_sync_conversion=True):
        result = Scaled(agent, n=3, verifier=score, budget=Budget(calls=9)).solve(question="q")
        assert len({c.output.answer for c in result.candidates}) == 3 and result.usage.calls == 9
        dspy_server.reset()
        Scaled(agent, strategy=ONE_CHAIN, verifier=score)(question="r")
    assert ["hint_" in json.dumps(request.body) for request in dspy_server.requests] == [False] * 3 + [True] * 3


FORMS = {
    "xml": (dspy.XMLAdapter, lambda i, answer: f"<answer>\n{answer}\n</answer>"),
    "fenced json": (dspy.JSONAdapter, lambda i, answer: f'```json\n{{"answer": {answer}}}\n```'),
    "json after prose": (dspy.JSONAdapter, lambda i, answer: f'Let me see, {i}.\n{{"answer": {answer}}}'),
    "baml": (BAMLAdapter, lambda i, answer: f'It is {i}.\n{{"answer": {answer}}}'),
    "chat": (dspy.ChatAdapter, lambda i, answer: f"{i}\n\n[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_language_model_votes_as_the_adapter_reads(dspy_server: LoopbackServer, dspy_lm: Any, form: str) -> None:
    kind, write = FORMS[form]
    if kind is None:
        pytest.skip("this version has no BAMLAdapter")
    dspy_server.configure(reply=lambda body, i: write(i, 7 if i % 3 else i + 100))
    with dspy.context(lm=ScaledLM(dspy_lm, strategy=SelfConsistency(n=3)), adapter=kind()):
        answers = [program()(question=f"question {k}").answer for k in range(4)]
    assert answers == [7, 7, 7, 7] and dspy_server.counts.requests == 12


BLOCKS = ["```python\nx=1\n```", "x=1", "```\nx=1\n```", "x=2", "x=2"]


@pytest.mark.parametrize("scaled", ["program", "model"])
def test_code_votes_with_its_fence_and_without(dspy_server: LoopbackServer, dspy_lm: Any, scaled: str) -> None:
    dspy_server.configure(reply=lambda body, i: said(answer=BLOCKS[i % 5]))
    ask, five = dspy.Predict("question -> answer"), SelfConsistency(n=5)
    with dspy.context(lm=ScaledLM(dspy_lm, strategy=five) if scaled == "model" else dspy_lm):
        found = (ask if scaled == "model" else Scaled(ask, strategy=five))(question="q")
    assert "x=1" in found.answer


@pytest.mark.parametrize("others", [(said(answer=7), said(answer=8)), ("The answer is 9.", said(answer=7))])
def test_the_answer_of_the_majority_is_given_by_one_that_the_adapter_can_read(
    dspy_server: LoopbackServer, dspy_lm: Any, others: tuple[str, str]
) -> None:
    first = "The answer is 7." if others[0].startswith("[[") else "The answer is 8."
    dspy_server.configure(reply=lambda body, i: [first, *others][i % 3])
    with dspy.context(lm=ScaledLM(dspy_lm, strategy=SelfConsistency(n=3))):
        assert program()(question="q").answer == 7
    assert dspy_server.counts.requests == 3, "nothing is asked again in another form"


def test_reading_votes_asks_no_language_model(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    reader = language_model(dspy_server, "openai/reader")
    dspy_server.configure(reply=lambda body, i: said(answer=7) if body["model"] == "reader" else f"Answer: {i // 2}")
    with dspy.context(lm=ScaledLM(dspy_lm, n=3), adapter=dspy.TwoStepAdapter(reader)):
        program()(question="q")
    asked = re.findall("reader|small", str([request.body["model"] for request in dspy_server.requests]))
    assert asked == ["small", "small", "small", "reader"]
    close(reader)


class Colour(enum.Enum):
    """A choice in a typed signature."""

    RED = "red"
    BLUE = "blue"


class Thing(pydantic.BaseModel):
    """What a typed signature asks for."""

    name: str
    size: int


TYPED: dict[str, tuple[Any, list[str], str, Any]] = {
    "bool": (bool, ["True", "true"], "False", True),
    "literal": (Literal["yes", "no"], ["yes", '"yes"'], "no", "yes"),
    "models": (
        list[Thing],
        ['[{"name": "a", "size": 1}]', '[{"size": 1, "name": "a"}]'],
        '[{"name": "b", "size": %d}]',
        [Thing(name="a", size=1)],
    ),
    "optional": (int | None, ["null", "None"], "%d", None),
    "set": (set[str], ['["b", "a"]', '["a", "b"]'], '["%d"]', {"a", "b"}),
    "choices": (
        dict[Colour, int],
        ['{"red": 1, "blue": 2}', '{"blue": 2, "red": 1}'],
        '{"red": %d}',
        {Colour.RED: 1, Colour.BLUE: 2},
    ),
    "date": (datetime.date, ["2024-02-03", " 2024-02-03"], "2024-03-04", datetime.date(2024, 2, 3)),
}


@pytest.mark.parametrize("scaled", ["program", "model"])
@pytest.mark.parametrize("kind", TYPED)
def test_votes_agree_on_typed_values(dspy_server: LoopbackServer, dspy_lm: Any, kind: str, scaled: str) -> None:
    annotation, ways, other, expected = TYPED[kind]

    def reply(body: dict[str, Any], index: int) -> str:
        return f"{index}\n\n" + said(answer=ways[index % 2] if index % 3 else other.replace("%d", str(index)))

    dspy_server.configure(reply=reply)
    signature = dspy.Signature({"question": (str, dspy.InputField()), "answer": (annotation, dspy.OutputField())})
    ask, votes = dspy.Predict(signature), SelfConsistency(n=3)
    with dspy.context(lm=ScaledLM(dspy_lm, strategy=votes) if scaled == "model" else dspy_lm):
        asked = Scaled(ask, strategy=votes) if scaled == "program" else ask
        answers = [asked(question=f"question {k}").answer for k in range(4)]
    assert answers == [expected] * 4 and dspy_server.counts.requests == 12


async def test_votes_are_read_with_the_adapter_that_an_asynchronous_program_sets(
    dspy_server: LoopbackServer, dspy_lm: Any
) -> None:
    class Asks(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict("question -> note, answer: int")

        async def aforward(self, question: str) -> Any:
            with dspy.context(adapter=dspy.JSONAdapter()):
                return await self.ask.acall(question=question)

    def reply(body: dict[str, Any], index: int) -> str:
        return f'```json\n{{"answer": {7 if index % 3 else index + 100}, "note": "{index}"}}\n```'

    dspy_server.configure(reply=reply)
    with dspy.context(lm=ScaledLM(dspy_lm, strategy=SelfConsistency(n=3))):
        assert [(await Asks().acall(question=f"question {k}")).answer for k in range(4)] == [7] * 4
    await aclose(dspy_lm)


@pytest.mark.parametrize("form", ["chat", "json", "xml"])
@pytest.mark.parametrize("kind", ["program", "model"])
def test_the_signature_says_which_field_is_the_last(
    dspy_server: LoopbackServer, dspy_lm: Any, kind: str, form: str
) -> None:
    def reply(body: dict[str, Any], index: int) -> str:
        answer, note = 7 if index % 3 else index + 100, f"note {index}"  # the model writes them the other way round
        if form == "json":
            return json.dumps({"answer": answer, "note": note})
        if form == "xml":
            return f"<answer>{answer}</answer>\n<note>{note}</note>"
        return said(answer=answer, note=note)

    dspy_server.configure(reply=reply)
    ask = dspy.Predict("question -> note, answer: int")
    adapters = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
    votes = SelfConsistency(n=3)
    lm = dspy_lm if kind == "program" else ScaledLM(dspy_lm, strategy=votes)
    asked = Scaled(ask, strategy=votes) if kind == "program" else ask
    with dspy.context(lm=lm, adapter=adapters[form]()):
        assert [asked(question=f"question {k}").answer for k in range(4)] == [7] * 4


def test_tool_calls_agree_whatever_their_ids_and_spelling(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    def reply(body: dict[str, Any], index: int) -> Reply:
        name, arguments = ("look", ['{"city": "a", "day": 1}', '{"day":1,"city":"a"}'][index % 2])
        if index % 3 == 0:
            name, arguments = "find", f'{{"city": "{index}"}}'
        function = {"name": name, "arguments": arguments}
        call = {"id": f"call_{index}", "type": "function", "function": function}
        return Reply(f"so {index}", finish_reason="tool_calls", tool_calls=[call])

    def look(city: str, day: int = 0) -> str:
        return city

    def find(city: str) -> str:
        return city

    dspy_server.configure(reply=reply)
    signature = dspy.Signature(
        {
            "question": (str, dspy.InputField()),
            "tools": (list[dspy.Tool], dspy.InputField()),
            "tool_calls": (dspy.ToolCalls, dspy.OutputField()),
        }
    )
    lm = language_model(dspy_server, "openai/gpt-4o-mini")  # which DSPy knows to take tools
    adapter = dspy.ChatAdapter(use_native_function_calling=True)
    with dspy.context(lm=ScaledLM(lm, strategy=SelfConsistency(n=3)), adapter=adapter):
        ask = dspy.Predict(signature)
        made = [ask(question=f"question {k}", tools=[dspy.Tool(look), dspy.Tool(find)]).tool_calls for k in range(4)]
    assert [call.name for calls in made for call in calls.tool_calls] == ["look"] * 4
    close(lm)
