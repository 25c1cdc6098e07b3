"""`Scaled` and `BestOfN` over real DSPy programs and a real server: each trap of DSPy's own BestOfN, and the rest."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import BestOfN, Scaled

import tts_plugins
from tests.dspy_models import aclose, close, language_model
from tests.imitations import said
from tts_plugins import Budget, Ledger, SelfConsistency, solve_sync
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    ConfigurationError,
    DeadlineExceeded,
    InvalidScore,
    UnboundedCallError,
    UnknownPriceError,
)
from tts_plugins.models import CallableModel
from tts_plugins.testing.loopback import Fault, LoopbackServer
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier


@pytest.fixture(autouse=True)
def fresh_cache() -> Iterator[None]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    yield


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=lambda body, i: said(reasoning=f"r{i}", answer=i), indexing="arrival") as running:
        yield running


@pytest.fixture
def lm(server: LoopbackServer) -> Iterator[Any]:
    made = language_model(server)
    with dspy.context(lm=made):
        yield made
    close(made)


def program() -> Any:
    return dspy.Predict("question -> answer: int")


def metric(example: Any, prediction: Any, trace: Any = None) -> float:
    assert example.question and example.inputs()
    return prediction.answer / 100


def best(module: Any, n: int = 4, **settings: Any) -> Scaled:
    settings = {"verifier": metric, **settings}
    return Scaled(module, strategy=tts_plugins.BestOfN(n=n), **settings)


# the ways in


def test_forward_gives_the_best_prediction_of_concurrent_candidates(server: LoopbackServer, lm: Any) -> None:
    server.configure(latency=2.0)  # in which all of them come, on a busy machine too
    prediction = best(program(), n=8)(question="How far?")
    assert isinstance(prediction, dspy.Prediction) and prediction.answer == 7
    assert server.counts.requests == 8 and server.counts.peak == 8


async def test_acall_drives_the_modules_own_coroutine(server: LoopbackServer, lm: Any) -> None:
    threads: set[int] = set()

    class Program(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.answer = program()

        async def aforward(self, question: str) -> Any:
            threads.add(threading.get_ident())
            return await self.answer.acall(question=question)

    assert (await best(Program()).acall(question="?")).answer == 3
    assert threads == {threading.get_ident()} and server.counts.requests == 4
    await aclose(lm)


async def test_a_module_with_forward_alone_runs_under_acall(server: LoopbackServer, lm: Any) -> None:
    class Program(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=len(question))

    assert (await best(Program()).acall(question="four")).answer == 4


async def test_sync_calls_work_inside_a_running_loop(server: LoopbackServer, lm: Any) -> None:
    assert best(program())(question="?").answer == 3


def test_solve_gives_the_whole_result(server: LoopbackServer, lm: Any) -> None:
    result = best(program()).solve(question="?")
    assert result.output.answer == 3 and result.score == 0.03 and len(result.candidates) == 4
    assert result.problem.content == {"question": "?"} and result.text == "answer: 3"


def test_votes_are_cast_on_the_last_field(server: LoopbackServer, lm: Any) -> None:
    server.configure(reply=lambda body, i: said(reasoning=f"r{i}", answer=[5, 4, 4][i % 3]))
    scaled = Scaled(dspy.ChainOfThought("question -> answer: int"), n=3)
    assert scaled(question="?").answer == 4
    by_thought = Scaled(scaled.module, n=3, answer=lambda prediction: prediction.reasoning).solve(question="?")
    assert {candidate.answer for candidate in by_thought.candidates} == {"r0", "r1", "r2"}


def test_eight_threads_get_eight_samples_each(server: LoopbackServer, lm: Any) -> None:
    scaled = best(program(), n=8)
    examples = [dspy.Example(question=f"{i}?").with_inputs("question") for i in range(8)]
    assert len(scaled.batch(examples, num_threads=8, disable_progress_bar=True)) == 8
    assert server.counts.requests == 64


# distinct, and replayed


def test_nested_3_by_3_makes_9_distinct_requests_and_none_on_replay(server: LoopbackServer, lm: Any) -> None:
    nested = best(best(program(), n=3), n=3, verifier=metric)
    first = nested.solve(question="?")
    assert server.counts.requests == 9 and first.usage.calls == 9 and first.output.answer == 8
    again = nested.solve(question="?")
    assert server.counts.requests == 9 and again.usage.calls == 0 and again.output.answer == 8
    assert Scaled(nested.module, n=3, seed=1).solve(question="?").usage.calls == 9, "another seed, other samples"
    assert not any("rollout_id" in request.body for request in server.requests), "the server hears nothing of it"


async def test_the_two_ways_are_cached_apart_and_counted_alike(server: LoopbackServer, lm: Any) -> None:
    """DSPy's keys of synchronous and of asynchronous calls differ."""
    account = Ledger(Budget(calls=99))
    scaled = best(program(), n=2, budget=account)
    for _ in range(2):
        assert scaled(question="?").answer == 1 and (await scaled.acall(question="?")).answer == 3
    assert server.counts.requests == account.usage.calls == 4 and account.usage.tokens == server.counts.tokens
    await aclose(lm)


def test_servers_of_one_model_name_do_not_share_answers(server: LoopbackServer, lm: Any) -> None:
    """The key of DSPy's cache has the model's name and not the server's address."""
    scaled = best(program(), n=2)
    assert scaled(question="?").answer == 1
    with LoopbackServer(reply=said(answer=50)) as second:
        other = language_model(second)
        with dspy.context(lm=other):
            assert scaled(question="?").answer == 50 and second.counts.requests == 2
            assert scaled(question="?").answer == 50 and second.counts.requests == 2
        close(other)
    assert scaled(question="?").answer == 1 and server.counts.requests == 2


async def test_tasks_that_did_not_configure_dspy(server: LoopbackServer, lm: Any) -> None:
    """`dspy.configure` is for one task alone: a library that called it would fail in the others."""

    async def ask(question: str) -> Any:
        return (await best(program(), n=2).acall(question=question)).answer

    assert len(set(await asyncio.gather(*(asyncio.create_task(ask(q)) for q in ("a", "b"))))) == 2
    await aclose(lm)


def test_each_candidate_of_another_solve_has_samples_of_its_own(server: LoopbackServer, lm: Any) -> None:
    scaled = best(program(), n=2)
    outer = CallableModel(lambda question: str(scaled(question=question).answer))
    for _ in range(2):
        solve_sync("?", model=outer, strategy=SelfConsistency(n=3), seed=4)
    assert server.counts.requests == 6, "six distinct ones, and none on replay"


def test_several_language_models_and_adapters(server: LoopbackServer, lm: Any) -> None:
    with LoopbackServer(reply='{"answer": 50}') as second:
        other = language_model(second, "openai/large", temperature=0.5)

        class Program(dspy.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.draft, self.answer = program(), program()
                self.answer.lm = other

            def forward(self, question: str) -> Any:
                self.draft(question=question)
                with dspy.context(lm=other):
                    return self.answer(question=question)

        with dspy.context(adapter=dspy.JSONAdapter()):
            server.configure(reply='{"answer": 1}')
            result = best(Program(), n=3).solve(question="?")
            assert isinstance(dspy.settings.adapter, dspy.JSONAdapter)
        assert result.output.answer == 50 and server.counts.requests == second.counts.requests == 3
        assert {r.body["temperature"] for r in second.requests} == {0.5}, "what was set is kept"
        assert {r.body["temperature"] for r in server.requests} == {1.0}
        assert result.usage.tokens == server.counts.tokens + second.counts.tokens
        close(other)


# nothing else changes


def test_nothing_is_mutated(server: LoopbackServer, lm: Any) -> None:
    module = program()
    module.demos = [dspy.Example(question="a", answer=1)]
    scaled, callbacks = best(module), list(dspy.settings.get("callbacks", []))
    before = json.dumps(module.dump_state(), default=str), dict(lm.kwargs), dict(module.config), set(vars(scaled))
    scaled(question="?")
    after = json.dumps(module.dump_state(), default=str), dict(lm.kwargs), dict(module.config), set(vars(scaled))
    assert before == after and scaled.module is module and module.lm is None
    assert dspy.settings.get("callbacks", []) == callbacks and dspy.settings.adapter is None


def test_the_trace_is_the_winners_alone(server: LoopbackServer, lm: Any) -> None:
    scaled = best(best(program(), n=2), n=3)
    with dspy.context(trace=[]):
        scaled(question="?")
        ((predictor, inputs, output),) = dspy.settings.trace
    assert predictor is scaled.module.module and inputs == {"question": "?"} and output.answer == 5
    with dspy.context(trace=None):
        scaled(question="?")
        assert dspy.settings.trace is None


def test_a_callers_usage_tracker_hears_everything_once(server: LoopbackServer, lm: Any) -> None:
    with dspy.track_usage() as tracker:
        best(best(program(), n=2), n=2)(question="?")
    reported = tracker.get_total_tokens()["openai/small"]
    assert reported["prompt_tokens"] + reported["completion_tokens"] == server.counts.tokens
    with dspy.context(track_usage=True):
        prediction = best(program(), n=2)(question="another?")
    assert prediction.get_lm_usage()["openai/small"]["completion_tokens"] > 0


# optimisers, saving


def test_bootstrap_finds_the_demos_of_the_bare_program(server: LoopbackServer, lm: Any) -> None:
    server.configure(reply=lambda body, i: said(answer=str(body["messages"][-1]["content"]).count("x")))
    trainset = [dspy.Example(question="x" * i, answer=i).with_inputs("question") for i in range(1, 5)]

    def right(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example.answer == prediction.answer)

    def compiled(module: Any) -> Any:
        optimiser = dspy.BootstrapFewShot(metric=right, max_bootstrapped_demos=3, max_labeled_demos=0)
        return optimiser.compile(module, trainset=trainset)

    with contextlib.redirect_stdout(None):
        bare = compiled(program())
        wrapped = compiled(best(program(), n=2, verifier=lambda prediction: 1.0, budget=Ledger(Budget(calls=99))))
    assert len(bare.demos) == 3 and [dict(d) for d in wrapped.module.demos] == [dict(d) for d in bare.demos]


def test_copies_share_the_judge_and_the_account(lm: Any) -> None:
    judge, ledger = dspy.Predict("question, answer -> score: float"), Ledger(Budget(calls=9))
    scaled = best(program(), verifier=judge, budget=ledger)
    made = scaled.deepcopy()
    assert made.module is not scaled.module and made._settings.budget is ledger and made._settings.verifier is judge
    assert copy.deepcopy(scaled)._model is scaled._model
    assert [name for name, _ in scaled.named_predictors()] == ["module"], "the judge is not for optimisers"


def test_saved_states_of_the_wrapped_and_of_the_bare_program(lm: Any, tmp_path: Path) -> None:
    bare = dspy.ChainOfThought("question -> answer: int")
    bare.predict.demos = [dspy.Example(question="a", reasoning="r", answer=1)]
    scaled = best(bare)
    scaled.save(tmp_path / "wrapped.json")
    bare.save(tmp_path / "bare.json")
    bare.predict.save(tmp_path / "predict.json")
    for name in ("wrapped.json", "bare.json"):
        loaded = best(dspy.ChainOfThought("question -> answer: int"))
        loaded.load(tmp_path / name)
        assert loaded.module.predict.demos[0]["answer"] == 1
    alone = best(dspy.Predict("question -> reasoning, answer: int"))
    alone.load(tmp_path / "predict.json")
    assert alone.module.demos[0]["reasoning"] == "r"
    with pytest.raises(KeyError):
        best(program()).load_state({"something": {}})


def test_a_profile_gives_what_is_not_set(
    server: LoopbackServer, lm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tts-plugins.toml").write_text('[profiles.few]\nstrategy = { type = "self-consistency", n = 2 }\n')
    assert len(Scaled(program(), profile="few").solve(question="a?").candidates) == 2
    assert len(Scaled(program(), profile="few", n=3).solve(question="b?").candidates) == 3


# verifiers


def test_kinds_of_verifiers(server: LoopbackServer, lm: Any) -> None:
    async def later(prediction: Any) -> float:
        await asyncio.sleep(0)
        return prediction.answer / 100

    def traced(example: Any, prediction: Any, trace: Any) -> float:
        ((_, inputs, output),) = trace
        assert inputs["question"] == example["question"] and output is prediction
        return prediction.answer / 100

    ours = CallableVerifier(lambda problem, candidate: (candidate.output.answer / 100, "so so"))
    graded = lambda example, prediction: dspy.Prediction(score=prediction.answer / 100, feedback="so so")  # noqa: E731
    for verifier in (lambda prediction: prediction.answer / 100, later, traced, ours, graded, AnswerAgreement()):
        result = best(program(), n=3, verifier=verifier).solve(question=str(verifier))
        assert result.score is not None and len(result.candidates) == 3
    assert best(program(), n=3, verifier=graded).solve(question="!").best.feedback == "so so"


@pytest.mark.parametrize("how", ["forward", "acall"])
@pytest.mark.parametrize("where", ["module", "metric", "verifier"])
@pytest.mark.parametrize("kind", ["user", "langgraph"])
def test_interrupts_pass_through(how: str, where: str, kind: str) -> None:
    graph = pytest.importorskip("langgraph.errors") if kind == "langgraph" else None
    error: BaseException = KeyboardInterrupt() if graph is None else graph.GraphInterrupt(("wait for a human",))

    def stop(*args: Any) -> float:
        raise error

    class Program(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=stop() if where == "module" else 1)

    if where == "verifier" and kind == "user":
        pytest.skip("on a thread of the core, where it is a failure of the function")
    scaled = best(best(Program(), n=2), verifier=CallableVerifier(lambda p, c: stop()) if where == "verifier" else stop)
    with pytest.raises(type(error)):
        scaled(question="?") if how == "forward" else asyncio.run(scaled.acall(question="?"))


def test_a_module_judges_on_the_same_account(server: LoopbackServer, lm: Any) -> None:
    def reply(body: dict[str, Any], index: int) -> str:
        asked = str(body["messages"])
        return said(reasoning="hm", score=0.9 if "answer ## ]]\n2" in asked or "answer ## ]]\\n2" in asked else 0.1)

    with LoopbackServer(reply=reply) as judges:
        judge = dspy.ChainOfThought("question, answer -> score: float")
        judge.set_lm(language_model(judges, "openai/judge"))
        with dspy.context(trace=[]):
            result = best(program(), n=4, verifier=judge, budget=Budget(calls=8)).solve(question="?")
            assert len(dspy.settings.trace) == 1
        close(judge.get_lm())
    assert result.output.answer == 2 and result.score == 0.9 and result.best.feedback == "hm"
    assert result.usage.by_role["verifier"].calls == 4
    assert result.usage.tokens == server.counts.tokens + judges.counts.tokens
    with pytest.raises(AllCandidatesFailed, match="its input 'mood' is neither an input of the program"):
        best(program(), verifier=dspy.Predict("answer, mood -> score: float"))(question="?")


def test_an_output_that_the_verifier_cannot_read_is_shown_with_what_to_change(server: LoopbackServer, lm: Any) -> None:
    async def later(prediction: Any) -> bool:
        return bool(prediction.label)

    for verifier in (lambda example, prediction: prediction.label == "a", later):
        with pytest.raises(AttributeError, match="'label'") as caught:
            best(program(), n=2, verifier=verifier)(question="?")
        assert re.search(r"VerifierError: .*'label'.* is a Prediction, Prediction\(.*: read", caught.value.__notes__[0])


def test_a_metric_that_reads_the_gold_answer_hears_why_there_is_none(server: LoopbackServer, lm: Any) -> None:
    readers = (lambda e, p: p.answer == e.answer, lambda e, p: p.answer == e["answer"])
    for reads in readers:
        with pytest.raises((AttributeError, KeyError), match=r"no 'answer'.*its inputs only \(question\)"):
            best(program(), n=2, verifier=reads)(question="?")
    lenient = lambda e, p: 0.5 if getattr(e, "answer", None) is None and e.get("answer") is None else 0.0  # noqa: E731
    assert best(program(), n=2, verifier=lenient).solve(question="?").score == 0.5


def test_a_judging_module_is_called_as_dspy_wants_it(server: LoopbackServer, lm: Any) -> None:
    """Regression: DSPy warned of a direct call of `forward` for every candidate."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("dspy.primitives.module")
    log.addHandler(handler)
    try:
        program().forward(question="!")
        assert len(heard) == 1 and "discouraged" in heard[0], "this is where DSPy says it"
        judge = dspy.Predict("question -> reasoning, answer: int")
        with pytest.raises(AllCandidatesFailed, match="no `score`"):
            best(program(), n=2, verifier=judge)(question="?")
    finally:
        log.removeHandler(handler)
    assert len(heard) == 1


# the short form


def test_best_of_n_takes_what_a_dspy_user_knows(server: LoopbackServer, lm: Any) -> None:
    seen: list[Any] = []

    def reward(args: dict[str, Any], pred: Any) -> float:
        seen.append(args)
        return pred.answer * 1000 - 500  # any number will do

    result = BestOfN(program(), N=3, reward_fn=reward, threshold=1e9).solve(question="?")
    assert result.output.answer == 2 and result.best.details["reward"] == 1500.0 and seen[0] == {"question": "?"}
    server.reset()
    assert BestOfN(program(), 8, reward, 400.0)(question="another?").answer >= 1
    assert server.counts.requests < 8, "the threshold ends it early"
    assert len(BestOfN(program(), n=2, verifier=metric).solve(question="third?").candidates) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"N": 3, "n": 3, "reward_fn": metric}, "N=3 and n=3; give one"),
        ({"reward_fn": metric}, "N=None and n=None; give one"),
        ({"N": 3, "reward_fn": metric, "fail_count": -1}, "fail_count=-1 must be a whole number of at least 0"),
        ({"N": 3, "reward_fn": metric, "fail_count": True}, "fail_count=True must be"),
        ({"N": 3, "reward_fn": metric, "wave": 0}, "wave=0 must be"),
        ({"N": 3, "reward_fn": metric, "copy": "maybe"}, "copy='maybe' is not known; use 'auto', True or False"),
        ({"N": 3}, "give reward_fn=… .* or verifier=…"),
        ({"N": 3, "reward_fn": metric, "strategy": "best_of_n"}, "strategy='best_of_n' is for Scaled"),
        ({"N": 3, "reward_fn": metric, "threshold": "high"}, "threshold='high' must be a number"),
        ({"N": 0, "reward_fn": metric}, "N=0 must be"),
        ({"N": 3, "reward_fn": 1}, "reward_fn=1 is not a function"),
        ({"N": 3, "verifier": 1}, "verifier=1 is not a verifier"),
        ({"N": 3, "reward_fn": lambda pred: 1}, r"BestOfN: reward_fn <lambda>\(pred\) must take \(args, pred\)"),
        ({"N": 3, "verifier": lambda: 1}, r"BestOfN: verifier <lambda>\(\) must take \(example, prediction\)"),
        ({"N": 3, "verifier": lambda a, b, c, d: 1}, r"\(a, b, c, d\) must take .*, or the prediction"),
        ({"N": 3, "verifier": lambda pred, *, strict: 1}, r"\(pred, \*, strict\) must take"),
        ({"N": 3, "verifier": CallableVerifier}, "is not a verifier"),
        *(
            ({"N": 3, "reward_fn": metric, "temperature": value}, f"temperature={value!r} must be a number above 0")
            for value in (0, -1, 2.5, "hot", True, float("nan"))
        ),
        ({"N": 3, "reward_fn": metric, "threshold": float("nan")}, "threshold=nan must be a number"),
        ({"N": 3, "reward_fn": metric, "profile": "nowhere"}, "profile='nowhere' is not known"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        BestOfN(program(), **settings)
    with pytest.raises(ConfigurationError, match=r"is not a dspy\.Module"):
        Scaled("question -> answer")


# money and failures


def test_the_ledger_has_exactly_the_servers_tokens(server: LoopbackServer, lm: Any) -> None:
    ledger = Ledger(Budget(calls=100, tokens=100_000))
    scaled = best(best(dspy.ChainOfThought("question -> answer: int"), n=2), n=3, budget=ledger)
    for question in ("a?", "b?", "a?"):  # the last one is answered by the cache
        scaled(question=question)
    assert ledger.usage.tokens == server.counts.tokens and ledger.usage.calls == 12 and ledger.usage.exact


async def test_the_ledger_is_exact_under_acall(server: LoopbackServer, lm: Any) -> None:
    ledger = Ledger(Budget(calls=100, tokens=100_000))
    scaled = best(best(program(), n=2), n=3, budget=ledger)
    for question in ("a?", "b?", "a?"):
        await scaled.acall(question=question)
    assert ledger.usage.tokens == server.counts.tokens and ledger.usage.calls == 12 and ledger.usage.exact
    await aclose(lm)


def test_a_failed_parse_is_asked_again_by_dspy_and_counted(server: LoopbackServer, lm: Any) -> None:
    server.configure(reply=lambda body, i: '{"answer": 3}' if "JSON" in str(body) else "nonsense")
    result = best(program(), n=2).solve(question="?")
    assert server.counts.requests == 4 == result.usage.calls and result.usage.tokens == server.counts.tokens


def test_a_budget_stops_a_program_in_the_middle(server: LoopbackServer, lm: Any) -> None:
    class Chain(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = program(), program()

        def forward(self, question: str) -> Any:
            with contextlib.suppress(Exception):  # must not swallow the refusal
                self.first(question=question)
            return self.second(question=question + "!")

    result = best(Chain(), n=4, budget=Budget(calls=5)).solve(question="?")
    assert result.stopped == "budget" and server.counts.requests <= 5 and result.usage.calls == server.counts.requests
    with pytest.raises(BudgetExhausted):
        best(Chain(), n=4, budget=Budget(calls=1))(question="another?")


def test_threads_of_dspy_parallel_pay_into_the_account_around_them(server: LoopbackServer, lm: Any) -> None:
    class Fan(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = best(program(), n=2)

        def forward(self, question: str) -> Any:
            asked = [dspy.Example(question=f"{question}{i}").with_inputs("question") for i in range(3)]
            made = dspy.Parallel(num_threads=3, disable_progress_bar=True)([(self.inner, e) for e in asked])
            return dspy.Prediction(answer=max(p.answer for p in made))

    result = best(Fan(), n=2, budget=Budget(calls=99)).solve(question="?")
    assert server.counts.requests == 12 and result.usage.calls == 12 and result.usage.tokens == server.counts.tokens


def test_calls_that_end_after_their_search_are_charged_once(server: LoopbackServer, lm: Any) -> None:
    server.configure(latency=2.5)
    account = Ledger(Budget(calls=4))
    with pytest.raises(DeadlineExceeded):
        best(program(), budget=Ledger(Budget(seconds=1.0), inside=account))(question="late?")
    charged = account.spent
    server.wait(timeout=60)
    time.sleep(0.3)  # the calls, which nobody could stop, have ended by now
    assert server.counts.requests == charged.calls == 4
    assert account.spent == charged and account.overshoot.calls == 0


def test_an_error_of_a_search_inside_a_candidate_is_no_cause_of_itself(server: LoopbackServer, lm: Any) -> None:
    inner = best(program(), n=2, verifier=lambda prediction: "no number")
    with pytest.raises(AllCandidatesFailed) as raised:
        best(inner, n=2)(question="q")
    causes, error = list[BaseException](), raised.value.__cause__
    while error is not None:
        assert error not in causes
        causes.append(error)
        error = error.__cause__
    assert any(isinstance(cause, InvalidScore) for cause in causes)


def test_many_programs_never_overspend_one_ledger(server: LoopbackServer, lm: Any) -> None:
    server.configure(latency=0.01)
    ledger = Ledger(Budget(calls=40))
    scaled = best(program(), n=4, budget=ledger)
    examples = [dspy.Example(question=f"{i}?").with_inputs("question") for i in range(16)]
    scaled.batch(
        examples, num_threads=16, max_errors=99, return_failed_examples=True, provide_traceback=False,
        disable_progress_bar=True,
    )  # fmt: skip
    assert server.counts.requests <= 40 and ledger.usage.calls <= 40 and not ledger.overshoot.calls


def test_limits_that_cannot_hold_are_errors(server: LoopbackServer, lm: Any) -> None:
    for _ in range(20):  # the other candidate may find the search ended: that is not what its caller is told
        with (
            dspy.context(lm=language_model(server, max_tokens=None)),
            pytest.raises(UnboundedCallError, match="max_tokens"),
        ):
            best(program(), budget=Budget(tokens=500))(question="?")
    with pytest.raises(UnknownPriceError, match="give price="):
        best(program(), budget=Budget(usd=1))(question="?")
    usage = best(program(), budget=Budget(usd=1), price=(1.0, 2.0)).solve(question="?").usage
    assert usage.usd == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)


def test_failures_lose_their_candidate_only(server: LoopbackServer, lm: Any, capsys: Any) -> None:
    class Direct(dspy.Module):  # type: ignore[misc]
        """Asks its model once: before 3.3 DSPy's adapters ask again, in JSON, after any error."""

        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=len(dspy.settings.lm(question)))

    server.configure(faults=[Fault.status(500), None, Fault.status(400), None])
    result = best(Direct()).solve(question="?")
    assert len(result.candidates) == 2 and capsys.readouterr().out == "", "DSPy's own print what failed"
    server.configure(faults=Fault.status(400))
    with pytest.raises(getattr(dspy, "LMInvalidRequestError", Exception)) as failed:
        best(program()).solve(question="other?")
    assert isinstance(failed.value.__cause__, AllCandidatesFailed)

    class Nothing(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return None

    with pytest.raises(AllCandidatesFailed, match="Nothing returned None; its forward has to return"):
        best(Nothing())(question="?")


def test_settings_that_are_not_known_name_the_one_that_is_meant() -> None:
    with pytest.raises(ConfigurationError, match=r"Scaled: 'verfier' is not a setting; did you mean 'verifier'\?"):
        Scaled(program(), verfier=metric)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"BestOfN: 'treshold' is not a setting; did you mean 'threshold'\?"):
        BestOfN(program(), N=3, verifier=metric, treshold=0.5)


def test_it_shows_what_it_runs_and_how() -> None:
    shown = repr(best(program(), n=3, budget=Budget(calls=3)))
    assert shown.startswith("Scaled(") and f"strategy={tts_plugins.BestOfN(n=3)!r}, verifier=metric, budget=" in shown
    assert "module" in shown.partition("): ")[2] and "\n" not in repr(BestOfN(program(), N=2, verifier=metric))[:60]


def test_a_version_that_is_too_old_says_so_by_name(tmp_path: Path) -> None:
    (tmp_path / "dspy-2.6.27.dist-info").mkdir()
    (tmp_path / "dspy-2.6.27.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: dspy\nVersion: 2.6.27\n")
    run = subprocess.run(
        [sys.executable, "-c", "import tts_plugins_dspy"], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert run.returncode == 1
    assert "MissingExtraError: tts_plugins_dspy needs dspy 3.0 or newer, and dspy 2.6.27 is installed" in run.stderr
