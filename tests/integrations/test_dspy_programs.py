"""Programs as people write them, under a search: own adapters, direct calls, trackers, state, and failures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import BestOfN, Refine, Scaled, ScaledLM

from tests.dspy_models import VERSION, aclose, close, language_model
from tests.imitations import said
from tts_plugins import Budget, Ledger, Revision, SelfConsistency
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError
from tts_plugins.testing.loopback import Fault, LoopbackServer

ONE_CHAIN = Revision(chains=1, rounds=2, select="best")


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    yield


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=reply, indexing="arrival") as running:
        yield running


@pytest.fixture
def lm(server: LoopbackServer) -> Iterator[Any]:
    made = language_model(server)
    with dspy.context(lm=made):
        yield made
    close(made)


def reply(body: dict[str, Any], index: int) -> str:
    """The number of the request, in the form that is asked for."""
    asked = str(body)
    if "<answer>" in asked:
        return f"<answer>{index}</answer>"
    if "[[ ## " not in asked:
        return str(index)
    return json.dumps({"answer": index}) if "JSON" in asked else said(answer=index)


def program() -> Any:
    return dspy.Predict("question -> answer: int")


def score(prediction: Any) -> tuple[float, str]:
    return int(prediction.answer) / 100, f"more than {prediction.answer}"


class Sets(dspy.Module):  # type: ignore[misc]
    """Sets an adapter of its own, as programs of several steps do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.ask, self.how = program(), how

    def forward(self, question: str) -> Any:
        if self.how == "direct":
            return dspy.Prediction(answer=dspy.settings.lm(question)[0])
        if self.how == "called":
            adapter, signature = dspy.ChatAdapter(), self.ask.signature
            (fields,) = adapter(dspy.settings.lm, {}, signature, [], {"question": question})
            return dspy.Prediction(**fields)
        adapter = {"json": dspy.JSONAdapter, "xml": dspy.XMLAdapter, "chat": dspy.ChatAdapter}[self.how]()
        with dspy.context(adapter=adapter):
            return self.ask(question=question)


@pytest.mark.parametrize("how", ["json", "xml", "chat", "called", "direct"])
def test_samples_are_distinct_replayed_and_hinted_whatever_the_program_sets(
    server: LoopbackServer, lm: Any, how: str
) -> None:
    scaled = Scaled(Sets(how), n=4, verifier=score, budget=Budget(calls=8))
    first = scaled.solve(question="q")
    assert sorted(int(c.output.answer) for c in first.candidates) == [0, 1, 2, 3] and first.usage.calls == 4
    again = scaled.solve(question="q")
    assert again.usage.calls == 0 and server.counts.requests == 4
    assert [c.output.answer for c in again.candidates] == [c.output.answer for c in first.candidates]
    server.reset()
    Scaled(Sets(how), strategy=ONE_CHAIN, verifier=score, seed=1)(question="hints?")
    before, after = (json.dumps(request.body) for request in server.requests)
    assert "hint_" not in before and "hint_" in after and "more than 0" in after


def test_the_model_of_an_adapter_reads_and_sees_no_hints(server: LoopbackServer, lm: Any) -> None:
    reader = language_model(server, "openai/reader")
    with dspy.context(adapter=dspy.TwoStepAdapter(reader)):
        Scaled(program(), strategy=ONE_CHAIN, verifier=score)(question="q")
    hinted = {r.body["model"]: [] for r in server.requests}  # type: ignore[var-annotated]
    for request in server.requests:
        hinted[request.body["model"]].append("hint_" in json.dumps(request.body))
    assert hinted == {"small": [False, True], "reader": [False, False]}
    close(reader)


class Tracked(dspy.Module):  # type: ignore[misc]
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer: int", **settings)

    def forward(self, question: str) -> Any:
        with dspy.track_usage() as usage:
            prediction = self.ask(question=question)
        self.seen = usage.get_total_tokens()
        return prediction


def test_a_tracker_inside_a_program_leaves_the_account_exact_and_replays_free(server: LoopbackServer, lm: Any) -> None:
    account = Ledger(Budget(tokens=100_000))
    scaled = Scaled(Tracked(), n=3, verifier=score, budget=account)
    for _ in range(3):
        scaled(question="q")
    counted = server.wait()
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 3
    assert account.usage.exact


def test_several_choices_of_one_call_are_counted_exactly(server: LoopbackServer, lm: Any) -> None:
    account = Ledger(Budget(tokens=100_000))
    scaled = Scaled(dspy.Predict("question -> answer: int", n=3), n=2, verifier=score, budget=account)
    for _ in range(2):
        scaled(question="q")
    counted = server.wait()
    assert account.usage.calls == 6
    if VERSION >= (3, 4):  # one request for each choice; before, one for all, whose count may be of the first alone
        assert account.spent.tokens == counted.tokens and account.usage.exact
    assert account.spent.tokens >= counted.tokens


def test_the_chosen_prediction_knows_its_usage(server: LoopbackServer, lm: Any) -> None:
    with dspy.context(track_usage=True):
        result = Scaled(program(), n=2, verifier=score).solve(question="a?")
        prediction = Scaled(program(), n=2, verifier=score)(question="b?")
    own, all_of_it = (p.get_lm_usage()["openai/small"]["completion_tokens"] for p in (result.output, prediction))
    assert 0 < own < all_of_it


class Fallback(dspy.BaseLM):  # type: ignore[misc]
    """A model that passes its calls on to others."""

    def __init__(self, *models: Any) -> None:
        super().__init__(model="fallback", max_tokens=100)
        self.models = models

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        given = {} if messages is None else {"messages": messages}
        return self.models[0](*([] if prompt is None else [prompt]), **given, **kwargs)


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message")
def test_a_model_that_passes_calls_on_is_counted_once(server: LoopbackServer, lm: Any) -> None:
    account = Ledger(Budget(calls=3, tokens=100_000))
    with dspy.context(lm=Fallback(lm)):
        result = Scaled(program(), n=3, verifier=score, budget=account).solve(question="q")
    counted = server.wait()
    assert len({c.output.answer for c in result.candidates}) == 3
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 3


# failures


def test_refine_goes_on_after_an_attempt_that_cannot_be_parsed(server: LoopbackServer, lm: Any) -> None:
    server.configure(reply=lambda body, i: said(answer=i) if "hint_" in str(body) else "no fields here")
    refine = Refine(program(), N=2, reward_fn=lambda args, pred: float(pred.answer))
    assert len(refine.solve(question="q").candidates) == 1
    shown = server.requests[-1].body["messages"][-1]["content"]
    assert "no fields here" in shown and "AdapterParseError" in shown, "what it wrote, and why that failed"


def test_refine_goes_on_after_exceptions_of_the_program_and_of_the_reward(server: LoopbackServer, lm: Any) -> None:
    class Picky(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            prediction = self.ask(question=question)
            if prediction.answer == 0:
                raise ValueError("zero will not do")
            return prediction

    def reward(args: dict[str, Any], pred: Any) -> float:
        if pred.answer == 1:
            raise RuntimeError("one is odd")
        return float(pred.answer)

    assert Refine(Picky(), N=4, reward_fn=reward)(question="q").answer == 3
    shown = [request.body["messages"][-1]["content"] for request in server.requests]
    assert "zero will not do" in shown[1] and "one is odd" in shown[2] and "answer: 1" in shown[2]
    assert "Its reward was 2" in shown[3]


async def test_what_all_candidates_raise_is_raised(server: LoopbackServer, lm: Any) -> None:
    class Overflow(ValueError):
        pass

    class Failing(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            raise Overflow("too long")

    with pytest.raises(Overflow, match="too long") as raised:
        Scaled(Failing(), n=3)(question="q")
    assert isinstance(raised.value.__cause__, AllCandidatesFailed)
    server.configure(reply="nothing that can be read")
    from dspy.utils.exceptions import AdapterParseError

    with pytest.raises(AdapterParseError):
        await Scaled(program(), n=2).acall(question="unread?")
    server.configure(faults=Fault.status(401))
    with pytest.raises(Exception, match="401") as refused:
        Scaled(program(), n=2)(question="key?")
    assert type(refused.value).__module__.split(".")[0] in ("dspy", "litellm")
    await aclose(lm)


@pytest.mark.parametrize("kind", [BestOfN, Refine])
def test_more_failures_than_fail_count_are_raised(server: LoopbackServer, lm: Any, kind: Any) -> None:
    class Failing(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask, self.calls = program(), []  # type: ignore[var-annotated]

        def forward(self, question: str) -> Any:
            self.calls.append(question)
            prediction = self.ask(question=question)
            if len(self.calls) < 3:
                raise ValueError(f"failure {len(self.calls)}")
            return prediction

    def reward(args: dict[str, Any], pred: Any) -> float:
        return float(pred.answer)

    settings: dict[str, Any] = {"copy": False} | ({} if kind is Refine else {"concurrency": 1})
    with pytest.raises(ValueError, match="failure 2"):
        kind(Failing(), 4, reward, None, 1, **settings)(question="q")
    assert kind(Failing(), 4, reward, None, 2, **settings)(question="r").answer >= 2
    assert kind(Failing(), 4, reward, **settings)(question="s").answer >= 2


# arguments


@pytest.mark.parametrize(
    "form",
    [
        lambda score, text: (score, text),
        lambda score, text: {"score": score, "feedback": text},
        lambda score, text: dspy.Prediction(score=score, feedback=text),
    ],
    ids=["pair", "dict", "prediction"],
)
@pytest.mark.parametrize("given", ["reward_fn", "verifier"])
def test_feedback_beside_a_score(server: LoopbackServer, lm: Any, form: Any, given: str) -> None:
    function = (
        (lambda args, pred: form(7.0, "say more")) if given == "reward_fn" else lambda pred: form(0.5, "say more")
    )
    best = Refine(program(), N=2, **{given: function}).solve(question="q").best
    assert best.feedback == "say more" and "say more" in str(server.requests[1].body)
    assert (best.details["reward"] == 7.0) if given == "reward_fn" else (best.score == 0.5)


def test_no_temperature_is_sent_where_none_is_wanted(server: LoopbackServer, lm: Any) -> None:
    with dspy.context(lm=language_model(server, temperature=None)):
        Scaled(program(), n=2, temperature=None, verifier=score)(question="q")
        ScaledLM(language_model(server, temperature=None), n=2, temperature=None)("r")
    assert server.counts.requests == 4 and not any(request.body.get("temperature") for request in server.requests)


@pytest.mark.parametrize("value", [0, -1, "hot", 2.5, True])
def test_the_model_checks_its_settings_as_programs_do(lm: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"ScaledLM: temperature={value!r} must be above 0"):
        ScaledLM(lm, temperature=value)


def test_a_threshold_need_not_cost_rounds_of_latency(server: LoopbackServer, lm: Any) -> None:
    def waves(**settings: Any) -> list[int]:
        result = BestOfN(program(), 8, lambda args, pred: 0.0, 1.0, **settings).solve(question=f"q{settings}")
        return [event["n"] for event in result.trace if event["kind"] == "wave"]

    assert waves() == [1, 2, 4, 1] and waves(wave=8) == [8] and waves(wave=4) == [4, 4]
    with pytest.raises(ConfigurationError, match="wave= is for BestOfN; attempts run side by side with chains="):
        Refine(program(), 8, lambda args, pred: 0.0, 1.0, wave=8)


# state


class Drafting(dspy.Module):  # type: ignore[misc]
    """Keeps what it writes in `self`, and reads it again later."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.write, self.improve, self.how = program(), program(), how
        self.draft: Any = None
        self.notes: dict[str, Any] = {}

    def forward(self, question: str) -> Any:
        made = self.write(question=question).answer
        if self.how == "attribute":
            self.draft = made
        else:
            self.notes["draft"] = made
        self.improve(question=f"{question} {made}")
        kept = self.draft if self.how == "attribute" else self.notes["draft"]
        return dspy.Prediction(answer=kept, wrote=made)


@pytest.mark.parametrize("how", ["attribute", "dict"])
@pytest.mark.parametrize("copy", ["auto", True])
def test_what_a_program_keeps_stays_its_candidates_own(server: LoopbackServer, lm: Any, how: str, copy: Any) -> None:
    server.configure(latency=0.05)
    module = Drafting(how)
    with dspy.context(trace=[]):
        result = Scaled(module, n=6, verifier=score, copy=copy).solve(question="q")
        predictors = [step[0] for step in dspy.settings.trace]
    assert all(c.output.answer == c.output.wrote for c in result.candidates)
    assert module.draft is None and module.notes == {}, "nor does the next caller find it"
    assert predictors == [module.write, module.improve] and len(module.write.history) == 6
    shared = Scaled(Drafting(how), n=6, verifier=score, copy=False).solve(question="r")
    assert len({c.output.answer for c in shared.candidates}) < 6


def test_a_program_without_state_is_not_copied(server: LoopbackServer, lm: Any) -> None:
    seen: list[Any] = []

    class Plain(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            seen.append(self)
            return self.ask(question=question)

    module = Plain()
    Scaled(module, n=2, verifier=score)(question="q")
    assert seen == [module, module]


def test_optimisers_are_shown_the_users_program() -> None:
    from dspy.propose.utils import get_dspy_source_code

    module = Drafting("attribute")
    bare = get_dspy_source_code(module)
    wrapped = [Scaled(module), BestOfN(module, 2, lambda args, pred: 1.0), Refine(module, 2, lambda args, pred: 1.0)]
    for searched in wrapped:
        shown = get_dspy_source_code(searched)
        assert bare.strip() in shown and len(shown) - len(bare) < 250
        assert searched.__doc__ is not None and "Args:" in searched.__doc__, "people read what it takes all the same"


# votes


FORMS = {
    "xml": (dspy.XMLAdapter, lambda i, answer: f"<answer>\n{answer}\n</answer>"),
    "fenced json": (dspy.JSONAdapter, lambda i, answer: f'```json\n{{"answer": {answer}}}\n```'),
    "json after prose": (dspy.JSONAdapter, lambda i, answer: f'Let me see, {i}.\n{{"answer": {answer}}}'),
    "chat": (dspy.ChatAdapter, lambda i, answer: f"{i}\n\n[[ ## answer ## ]]\n{answer}\n\n[[ ## completed ## ]]"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_language_model_votes_as_the_adapter_reads(server: LoopbackServer, lm: Any, form: str) -> None:
    kind, write = FORMS[form]
    server.configure(reply=lambda body, i: write(i, 7 if i % 3 else i + 100))
    with dspy.context(lm=ScaledLM(lm, strategy=SelfConsistency(n=3)), adapter=kind()):
        answers = [program()(question=f"question {k}").answer for k in range(4)]
    assert answers == [7, 7, 7, 7] and server.counts.requests == 12


def test_reading_votes_asks_no_language_model(server: LoopbackServer, lm: Any) -> None:
    reader = language_model(server, "openai/reader")
    server.configure(reply=lambda body, i: said(answer=7) if body["model"] == "reader" else f"Answer: {i // 2}")
    with dspy.context(lm=ScaledLM(lm, n=3), adapter=dspy.TwoStepAdapter(reader)):
        program()(question="q")
    asked = re.findall("reader|small", str([request.body["model"] for request in server.requests]))
    assert asked == ["small", "small", "small", "reader"]
    close(reader)
