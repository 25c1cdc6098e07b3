"""The arguments of programs that search, the feedback that functions give, and what optimisers are shown."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import BestOfN, Refine, Scaled, ScaledLM

from tests.dspy_models import language_model, program, score
from tests.imitations import said
from tts_plugins import Budget, Revision
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError
from tts_plugins.testing.loopback import LoopbackServer


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
def test_feedback_beside_a_score(dspy_server: LoopbackServer, dspy_lm: Any, form: Any, given: str) -> None:
    function = (
        (lambda args, pred: form(7.0, "say more")) if given == "reward_fn" else lambda pred: form(0.5, "say more")
    )
    best = Refine(program(), N=2, **{given: function}).solve(question="q").best
    assert best.feedback == "say more" and "say more" in str(dspy_server.requests[1].body)
    assert (best.details["reward"] == 7.0) if given == "reward_fn" else (best.score == 0.5)


def test_no_temperature_is_sent_where_none_is_wanted(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    with dspy.context(lm=language_model(dspy_server, temperature=None)):
        Scaled(program(), n=2, temperature=None, verifier=score)(question="q")
        ScaledLM(language_model(dspy_server, temperature=None), n=2, temperature=None)("r")
    assert dspy_server.counts.requests == 4 and not any(
        request.body.get("temperature") for request in dspy_server.requests
    )


@pytest.mark.parametrize("value", [0, -1, "hot", 2.5, True])
def test_the_model_checks_its_settings_as_programs_do(dspy_lm: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"ScaledLM: temperature={value!r} must be a number above 0"):
        ScaledLM(dspy_lm, temperature=value)


def test_a_threshold_need_not_cost_rounds_of_latency(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    def waves(**settings: Any) -> list[int]:
        result = BestOfN(program(), 8, lambda args, pred: 0.0, 1.0, **settings).solve(question=f"q{settings}")
        return [event["n"] for event in result.trace if event["kind"] == "wave"]

    assert waves() == [1, 2, 4, 1] and waves(wave=8) == [8] and waves(wave=4) == [4, 4]
    with pytest.raises(ConfigurationError, match="wave= is for BestOfN; attempts run side by side with chains="):
        Refine(program(), 8, lambda args, pred: 0.0, 1.0, wave=8)


class Drafting(dspy.Module):  # type: ignore[misc]
    """A program of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.write = program()

    def forward(self, question: str) -> Any:
        return self.write(question=question)


def test_optimisers_are_shown_the_users_program() -> None:
    from dspy.propose.utils import get_dspy_source_code

    module = Drafting()
    bare = get_dspy_source_code(module)
    wrapped = [Scaled(module), BestOfN(module, 2, lambda args, pred: 1.0), Refine(module, 2, lambda args, pred: 1.0)]
    for searched in wrapped:
        shown = get_dspy_source_code(searched)
        assert bare.strip() in shown and len(shown) - len(bare) < 250
        assert searched.__doc__ is not None and "Args:" in searched.__doc__, "people read what it takes all the same"


@pytest.mark.parametrize("kind", [Scaled, BestOfN, ScaledLM])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"price": "cheap"}, "price='cheap' must be two prices"),
        ({"price": (-1.0, 1.0)}, r"price=\(-1.0, 1.0\) must be two prices"),
        ({"price": {"openai/small": (1.0,)}}, r"price=\(1.0,\) must be two prices"),
        ({"concurrency": 1.5}, "concurrency=1.5 must be a whole number of at least 1"),
        ({"concurrency": 0}, "concurrency=0 must be a number above 0"),
        ({"seed": 0.5}, "seed=0.5 must be a whole number"),
        ({"budget": 5}, "budget=5 must be a Budget or a Ledger"),
        ({"on_exhausted": "stop"}, "on_exhausted='stop' is not known"),
        ({"abstain_below": 2}, "abstain_below=2 must be a number from 0 to 1"),
    ],
)
def test_what_all_of_them_take_is_checked_as_they_are_made(
    dspy_lm: Any, kind: Any, settings: dict[str, Any], told: str
) -> None:
    own = {"N": 2, "reward_fn": lambda args, pred: 1.0} if kind is BestOfN else {}
    with pytest.raises(ConfigurationError, match=told):
        kind(dspy_lm if kind is ScaledLM else program(), **own, **settings)


def test_prices_may_be_a_list_as_files_have_them(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    usage = Scaled(program(), n=2, price=[1.0, 2.0], budget=Budget(usd=1)).solve(question="q").usage
    assert usage.usd == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda lm: Scaled(), r"Scaled: missing a required argument: 'module'; write Scaled\(module, n=8\)"),
        (lambda lm: ScaledLM(), r"ScaledLM: missing .*'lm'; write ScaledLM\(lm, n=8\)"),
        (lambda lm: BestOfN(), r"BestOfN: missing .*; write BestOfN\(module, N=8, reward_fn=reward\)"),
        (lambda lm: Refine(), r"Refine: missing .*; write Refine\(module, N=8, reward_fn=reward\)"),
        (lambda lm: Scaled(program(), module=program()), r"Scaled: multiple values for argument 'module'; write"),
        (lambda lm: BestOfN(program(), 3, N=4), r"BestOfN: multiple values for argument 'N'; write BestOfN\("),
        (lambda lm: Scaled(program(), 8), r"Scaled: 8 is given by its place, .*; write Scaled\(module, n=8\)"),
        (lambda lm: Scaled(program(), score), r"write Scaled\(module, verifier=score\)"),
        (lambda lm: Scaled(program(), Budget(calls=2), 3), r"write Scaled\(module, budget=Budget\(.*\), n=3\)"),
        (lambda lm: Scaled(program(), "best-of-n"), r"write Scaled\(module, strategy='best-of-n'\)"),
        (lambda lm: Scaled(program(), Revision(chains=1, rounds=2)), r"strategy=Revision\("),
        (lambda lm: ScaledLM(lm, 8), r"write ScaledLM\(lm, n=8\)"),
        (lambda lm: BestOfN(program(), 3, score, 1, 2, 4), r"write BestOfN\(module, N, .*, fail_count, n=4\)"),
        (lambda lm: Refine(program(), 3, score, 1, 2, 4), r"write Refine\(module, N, .*, fail_count, n=4\)"),
    ],
)
def test_settings_without_their_names_are_shown_with_them(dspy_lm: Any, call: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        call(dspy_lm)


@pytest.mark.parametrize("number", [np.float32, np.float64, np.int64, Fraction, float])
def test_numbers_of_other_libraries_are_numbers(dspy_lm: Any, number: Any) -> None:
    whole = np.int64 if issubclass(number, np.generic) else int
    made = BestOfN(program(), whole(3), lambda args, pred: 1.0, number(1), temperature=number(1), wave=whole(2))
    strategy: Any = made._settings.strategy
    assert made._temperature == 1.0 and (strategy.n, strategy.wave, strategy.stop.score) == (3, 2, 0.75)
    assert {type(value) for value in (strategy.n, made._temperature)} == {int, float}
    for kind in (Scaled(program(), n=whole(3)), ScaledLM(dspy_lm, n=whole(3), temperature=number(1))):
        assert kind._settings.strategy.n == 3


@pytest.mark.parametrize("value", [float("nan"), "1", 10**400, [1], 1j, np.array([0.5, 0.6])])
@pytest.mark.parametrize("kind", [BestOfN, Refine])
def test_thresholds_that_are_no_numbers(dspy_lm: Any, kind: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{kind.__name__}: threshold=.* must be a number"):
        kind(program(), 2, lambda args, pred: 1.0, value)


@pytest.mark.parametrize("value", [3, "reward", int, dspy.Predict])
def test_rewards_that_are_no_functions(dspy_lm: Any, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"reward_fn=.* is not a function; pass one of \(args, pred\)"):
        BestOfN(program(), 2, value)


@pytest.mark.parametrize("given", ["0.5", dspy.Prediction(score="0.5")], ids=["text", "field without a type"])
@pytest.mark.parametrize("kind", ["verifier", "reward_fn"])
def test_scores_that_models_wrote_as_texts(dspy_server: LoopbackServer, dspy_lm: Any, kind: str, given: Any) -> None:
    function = (lambda pred: given) if kind == "verifier" else (lambda args, pred: given)
    best = BestOfN(program(), 2, **{kind: function})
    if isinstance(given, str):  # of a function, and not of a model
        with pytest.raises(AllCandidatesFailed, match="return a"):
            best(question="q")
    else:
        assert best.solve(question="q").score == (0.5 if kind == "verifier" else pytest.approx(2 / 3))


def test_a_reward_that_is_no_single_number_is_shown(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    with pytest.raises(AllCandidatesFailed, match=r"returned array\(\[0.5, 0.6\]\); return a number"):
        BestOfN(program(), 2, lambda args, pred: np.array([0.5, 0.6]))(question="q")


class Placed(dspy.Module):  # type: ignore[misc]
    """Its inputs may be given by place."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = program()

    def forward(self, question: str, hints: int = 0, **more: Any) -> Any:
        return self.ask(question=question)


def test_inputs_by_place_have_their_names_for_verifiers(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    def knows(example: Any, prediction: Any) -> bool:
        return (example.question, example.hints, example.more) == ("q", 2, 3)

    result = Scaled(Placed(), n=2, verifier=knows).solve("q", 2, more=3)
    assert result.score == 1.0 and result.problem.content == {"question": "q", "hints": 2, "more": 3}
    assert BestOfN(Placed(), 2, lambda args, pred: len(args)).solve("q").best.details["reward"] == 1.0


def test_agents_judge_with_the_fields_that_they_are_asked_for(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    def reply(body: dict[str, Any], index: int) -> str:
        if "next_tool_name" in str(body):
            return said(next_thought="well", next_tool_name="finish", next_tool_args="{}")
        return said(reasoning="so", score=0.25) if "`score`" in str(body) else said(answer=index)

    dspy_server.configure(reply=reply)
    judge = dspy.ReAct("question, answer -> score: float", tools=[])
    for k, verifier in enumerate((judge, Scaled(judge, n=1))):
        result = Scaled(program(), n=2, verifier=verifier, budget=Budget(calls=6)).solve(question=f"question {k}")
        assert result.score == 0.25 and result.usage.calls == 6


def test_programs_and_models_are_told_apart(dspy_lm: Any) -> None:
    with pytest.raises(ConfigurationError, match="use ScaledLM for a language model"):
        Scaled(dspy_lm, n=2)
    with pytest.raises(ConfigurationError, match="use Scaled for a module"):
        ScaledLM(program(), n=2)


def test_rewards_may_be_modules_and_truths(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Rewarding(dspy.Module):  # type: ignore[misc]
        def forward(self, args: Any, pred: Any) -> bool:
            return bool(pred.answer)

    best = BestOfN(program(), 4, Rewarding(), True, wave=4).solve(question="q")
    assert best.best.details["reward"] == 1.0 and best.output.answer
    with pytest.raises(ConfigurationError, match=r"reward_fn Predict.*must take \(args, pred\); .* goes to verifier="):
        BestOfN(program(), 4, dspy.Predict("question, answer -> score: float"))
