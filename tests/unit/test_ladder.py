"""A ladder of compute: who is asked when, what is kept, where it ends, and the forms that it can be written in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import (
    BeamSearch,
    BestOfN,
    Budget,
    Ladder,
    RecursiveAggregation,
    Revision,
    SelfConsistency,
    TreeSearch,
    solve_sync,
)
from tts_plugins.cli import main
from tts_plugins.cli._arguments.strategy import strategy_of
from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    BudgetExhausted,
    ConfigurationError,
    QuotaExhausted,
    RequestRefused,
    ServerFailed,
)
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.policies import Rung
from tts_plugins.profiles import load_profile
from tts_plugins.protocols import Run
from tts_plugins.strategies import BaseStrategy
from tts_plugins.testing import ScriptedModel, ScriptedReviseModel, ScriptedStepModel, TableVerifier
from tts_plugins.testing.loopback import Fault, LoopbackServer
from tts_plugins.types import Problem, Scored
from tts_plugins.verifiers import CallableVerifier

TWO = SelfConsistency(n=2)


def model(answers: list[Any], name: str) -> ScriptedModel:
    return ScriptedModel([f"#### {a}" if isinstance(a, int) else a for a in answers], name=name)


def asked(*models: ScriptedModel) -> list[int]:
    return [sum(map(len, each.requests)) for each in models]


def test_answers_that_agree_end_it() -> None:
    small, large = model([7], "small"), model([8], "large")
    result = solve_sync("?", model=small, strategy=Ladder([TWO, Rung(strategy=TWO, model=large)]))
    assert (result.answer, asked(small, large), result.stopped) == ("7", [2, 0], "stop_rule")
    rungs = [event for event in result.trace if event["kind"] == "rung"]
    assert [(r["rung"], r["ease"], r["settled"]) for r in rungs] == [(1, 1.0, True)]


def test_a_rung_of_the_same_model_goes_on_from_the_samples_before() -> None:
    small = model([1, 2, 2, 2], "small")
    result = solve_sync("?", model=small, strategy=Ladder([TWO, SelfConsistency(n=4)]))
    assert (result.answer, asked(small), len(result.candidates)) == ("2", [4], 4)


def test_three_models_in_a_row_each_asked_only_where_the_one_before_disagrees() -> None:
    models = [model([1, 2], "a"), model([3, 4], "b"), model([9], "c")]
    ladder = Ladder([TWO, Rung(strategy=TWO, model=models[1]), Rung(strategy=SelfConsistency(n=1), model=models[2])])
    result = solve_sync("?", model=models[0], strategy=ladder)
    assert (result.answer, asked(*models)) == ("9", [2, 2, 1]) and ladder.calls() == (2, 5)


def test_a_best_score_ends_it_too() -> None:
    small, large = model([1, 2], "small"), model([9], "large")
    ladder = Ladder([BestOfN(n=2), Rung(strategy=BestOfN(n=1), model=large)])

    def check(problem: Any, candidate: Any) -> bool:
        return bool(candidate.answer == "2")

    assert solve_sync("?", model=small, strategy=ladder, verifier=check).answer == "2"
    assert asked(small, large) == [2, 0]
    result = solve_sync("?", model=model([1, 3], "small"), strategy=ladder, verifier=check)
    assert result.answer == "9" and asked(large) == [1]


@pytest.mark.parametrize(("enough", "calls"), [("careful", 6), ("balanced", 3), (0.5, 3), (0.9, 6)])
def test_how_much_has_to_agree(enough: Any, calls: int) -> None:
    first = Rung(strategy=SelfConsistency(n=4))
    small = model([1, 1, 1, 2, 3, 3], "small")
    strategy = Ladder([first, SelfConsistency(n=6)], enough=enough)
    assert solve_sync("?", model=small, strategy=strategy).usage.calls == (4 if calls == 3 else 6)


@pytest.mark.parametrize(
    "second", [RequestRefused("400"), AuthenticationFailed("401"), QuotaExhausted("402"), ValueError("odd")], ids=repr
)
def test_where_a_rung_fails_the_answer_before_stands_and_it_is_told(second: Exception) -> None:
    """Also where no other candidate of that model could succeed: a refused key, a used-up account."""
    ladder = Ladder([SelfConsistency(n=3), Rung(strategy=TWO, model=model([second], "large"))], enough="careful")
    result = solve_sync("?", model=model([1, 2, 2], "small"), strategy=ladder)
    assert result.answer == "2" and result.stopped == "complete" and result.confidence == pytest.approx(2 / 3)
    assert any(event["kind"] == "escalation_failed" for event in result.trace)
    assert any(str(second) in said for said in result.warnings)


LARGE_ONCE = SelfConsistency(n=1)
DOWN = ServerFailed("503 from small")


def test_where_all_of_the_first_rung_fails_the_next_of_another_model_is_asked_and_it_is_told() -> None:
    small, large = model([DOWN], "small"), model([9], "large")
    ladder = Ladder([TWO, SelfConsistency(n=4), Rung(strategy=TWO, model=large)])
    result = solve_sync("?", model=small, strategy=ladder, attempts=1)
    assert (result.answer, asked(small, large), result.escalated) == ("9", [2, 2], True)
    (said,) = [event for event in result.trace if event["kind"] == "rung_failed"]
    assert "503 from small" in said["error"] and any("503 from small" in each for each in result.warnings)


def test_where_every_rung_fails_the_error_names_all_of_them() -> None:
    ladder = Ladder([TWO, Rung(strategy=TWO, model=model([ServerFailed("503 from large")], "large"))])
    with pytest.raises(AllCandidatesFailed, match="503 from large") as raised:
        solve_sync("?", model=model([DOWN], "small"), strategy=ladder, attempts=1)
    assert any("503 from small" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("error", [AuthenticationFailed("401"), QuotaExhausted("402")], ids=repr)
def test_a_refused_key_or_a_used_up_account_is_told_and_not_paid_around(error: Exception) -> None:
    large = model([9], "large")
    with pytest.raises(type(error)):
        solve_sync("?", model=model([error], "small"), strategy=Ladder([TWO, Rung(strategy=TWO, model=large)]))
    assert asked(large) == [0]


def test_a_verifier_that_fails_or_a_budget_that_is_spent_asks_no_further_model() -> None:
    def broken(problem: Any, candidate: Any) -> bool:
        raise OSError("no verdict")

    large = model([9], "large")
    ladder = Ladder([BestOfN(n=2), Rung(strategy=BestOfN(n=2), model=large)])
    with pytest.raises((AllCandidatesFailed, OSError), match="no verdict"):
        solve_sync("?", model=model([1], "small"), strategy=ladder, verifier=CallableVerifier(broken))
    with pytest.raises(BudgetExhausted):
        solve_sync("?", model=model([1], "small"), strategy=ladder, verifier=CallableVerifier(lambda p, c: True),
                   budget=Budget(tokens=1))  # fmt: skip
    assert asked(large) == [0]


@pytest.mark.parametrize(("escalate", "answer"), [(model([9], "large"), "9"), (SelfConsistency(n=3), None)], ids=str)
def test_an_escalation_to_another_model_answers_where_all_samples_failed(escalate: Any, answer: str | None) -> None:
    small = model([DOWN], "small")

    def solved() -> Any:
        return solve_sync("?", model=small, strategy=TWO, attempts=1, abstain_below=0.6, on_abstain="escalate",
                          escalate=escalate)  # fmt: skip

    if answer is None:  # the same model once more is no way out
        with pytest.raises(AllCandidatesFailed, match="503"):
            solved()
    else:
        assert (solved().answer, solved().escalated) == (answer, True)
    assert asked(small) == [2 if answer is None else 4]


def test_a_single_answer_of_a_later_rung_is_not_withheld_though_nothing_says_how_sure_it_is() -> None:
    ladder = Ladder([TWO, Rung(strategy=LARGE_ONCE, model=model([9], "large"))])
    result = solve_sync("?", model=model([1, 2], "small"), strategy=ladder, abstain_below=0.9)
    assert (result.answer, result.confidence, result.escalated, result.abstained) == ("9", None, True, None)
    first = solve_sync("?", model=model([1], "small"), strategy=ladder, abstain_below=0.9)
    assert (first.answer, first.confidence, first.escalated) == ("1", 1.0, False)


def test_a_later_rung_that_can_say_how_sure_it_is_is_held_to_the_threshold() -> None:
    ladder = Ladder([TWO, Rung(strategy=TWO, model=model([8, 9], "large"))])
    result = solve_sync("?", model=model([1, 2], "small"), strategy=ladder, abstain_below=0.9)
    assert result.answer is None and result.abstained is not None and result.confidence == 0.5
    # With `beside`, the confidence is the share of the answers of both.
    beside = Ladder([TWO, Rung(strategy=LARGE_ONCE, model=model([2], "large"), beside=True)])
    again = solve_sync("?", model=model([1, 2], "small"), strategy=beside, abstain_below=0.7)
    assert again.abstained is not None and again.confidence == again.agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(("last", "asks", "answer"), [([9], 0, "9"), ([8, 9], 1, "5"), ([8, 8], 0, "8")])
def test_an_escalation_behind_a_ladder_is_asked_where_its_last_rung_is_not_sure(
    last: list[Any], asks: int, answer: str
) -> None:
    further = model([5], "largest")
    ladder = Ladder([TWO, Rung(strategy=SelfConsistency(n=len(last)), model=model(last, "large"))])
    result = solve_sync("?", model=model([1, 2], "small"), strategy=ladder, abstain_below=0.9, on_abstain="escalate",
                        escalate=further)  # fmt: skip
    assert (asked(further), result.answer, result.escalated) == ([asks], answer, True)


def test_a_rung_that_cannot_be_paid_for_is_named_where_the_answer_before_is_withheld() -> None:
    ladder = Ladder([TWO, Rung(strategy=LARGE_ONCE, model=model([9], "large"))])
    result = solve_sync("?", model=model([1, 2], "small"), strategy=ladder, abstain_below=0.9, budget=Budget(calls=2))
    assert result.abstained is not None and "the escalation failed: BudgetExhausted" in result.abstained.reason


def test_what_was_doubtful_on_an_earlier_rung_is_not_told_of_a_later_choice() -> None:
    settled = solve_sync("?", model=model([1, 2, 2], "small"), strategy=Ladder([TWO, SelfConsistency(n=3)]))
    assert settled.answer == "2" and settled.warnings == ()
    (look,) = [event for event in settled.trace if event["kind"] == "rung"]
    assert look["then"] == "SelfConsistency(n=3, stop=None, wave=None)"
    failed = Ladder([TWO, Rung(strategy=TWO, model=model([RequestRefused("400")], "large"))])
    stands = solve_sync("?", model=model([1, 2], "small"), strategy=failed)
    assert any("a tie: '1', '2'" in said for said in stands.warnings)


@pytest.mark.parametrize(
    ("limit", "large", "said"),
    [
        (Budget(usd=1.0), {"price": None}, "its price is not known"),
        (Budget(tokens=1_000), {"max_tokens": None}, "max_tokens is not set"),
    ],
)
def test_a_limit_that_cannot_hold_over_a_rung_is_refused_before_anything_is_paid(
    limit: Budget, large: dict[str, Any], said: str
) -> None:
    small = model([1, 2], "small")
    ladder = Ladder([TWO, Rung(strategy=TWO, model=ScriptedModel(["#### 9"], name="large", **large))])
    with pytest.raises(ConfigurationError, match=f"large: {said}"):
        solve_sync("?", model=small, strategy=ladder, budget=limit)
    assert asked(small) == [0]


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_budget_holds_over_all_rungs(calls: int) -> None:
    small, large = model([1, 2], "small"), model([9], "large")
    ladder = Ladder([TWO, Rung(strategy=TWO, model=large)])
    result = solve_sync("?", model=small, strategy=ladder, budget=Budget(calls=calls))
    # One answer alone agrees with nobody, so that it settles nothing.
    assert result.usage.calls == calls == sum(asked(small, large))


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    def reply(body: dict[str, Any], index: int) -> str:
        sure = body["model"] == "large" or body.get("reasoning_effort") == "high"
        return "#### 9" if sure else f"#### {index}"

    with LoopbackServer(reply=reply, indexing="arrival") as running:
        yield running


def test_a_server_is_asked_for_more_effort_and_for_a_larger_model(server: LoopbackServer) -> None:
    own = OpenAICompatibleModel("small", base_url=server.base_url, api_key="-", max_tokens=20)
    effort = Ladder([TWO, Rung(strategy=TWO, effort="high")])
    assert solve_sync("?", model=own, strategy=effort, budget=Budget(tokens=10_000)).answer == "9"
    sent = [(r.body["model"], r.body.get("reasoning_effort")) for r in server.requests]
    assert sent[0] == ("small", None) and sent[-1] == ("small", "high")
    larger = Ladder([TWO, Rung(strategy=TWO, model="large")])
    assert solve_sync("?", model=own, strategy=larger).answer == "9"
    assert server.requests[-1].body["model"] == "large" and "reasoning_effort" not in server.requests[-1].body
    assert own.variant(effort="high") is own.variant(effort="high") and own.name == "small"


def test_a_profile_with_a_ladder_that_escalates_asks_the_larger_model_of_the_command_line(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: it was told to pass escalate=, which the command line has no place for; so was `batch`."""
    monkeypatch.chdir(tmp_path)
    Path("tts-plugins.toml").write_text(
        '[profiles.climb]\nabstain_below = 0.9\non_abstain = "escalate"\nstrategy = { type = "ladder", rungs = [\n'
        '  { type = "rung", strategy = { type = "self-consistency", n = 2 } },\n'
        '  { type = "rung", strategy = { type = "self-consistency", n = 1 }, model = "large" },\n] }\n'
    )
    Path("in.jsonl").write_text('{"prompt": "?"}\n')
    at = ["--profile", "climb", "--model", "small", "--base-url", server.base_url]
    assert main(["solve", "?", *at, "--larger-model", "large"]) == 0 and "9" in capsys.readouterr().out
    assert main(["solve", "?", *at]) == 2 and "--larger-model" in capsys.readouterr().err
    assert main(["batch", "in.jsonl", "out.jsonl", *at]) == 2
    assert "cannot hold" in capsys.readouterr().err and not Path("out.jsonl.journal").exists()


SWITCH = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}


def test_a_server_that_says_effort_otherwise_gets_its_own_arguments(server: LoopbackServer) -> None:
    own = OpenAICompatibleModel(
        "small", base_url=server.base_url, api_key="-", max_tokens=20, params={"extra_body": {"top_k": 5}}
    )
    ladder = Ladder([TWO, Rung(strategy=TWO, effort=SWITCH)])
    assert BaseStrategy.from_dict(json.loads(json.dumps(ladder.to_dict()))) == ladder and hash(ladder)
    solve_sync("?", model=own, strategy=ladder)
    first, *_, last = [r.body for r in server.requests]
    assert last["chat_template_kwargs"] == {"enable_thinking": True} and last["top_k"] == first["top_k"] == 5
    assert "chat_template_kwargs" not in first and "reasoning_effort" not in last
    for costly in ({"max_tokens": 99}, {"n": 3}, {"extra_body": {"n": 3}}):
        with pytest.raises(ConfigurationError, match="what is reserved"):
            solve_sync("?", model=own, strategy=Ladder([TWO, Rung(strategy=TWO, effort=costly)]))


def test_a_model_that_refuses_the_effort_is_told_in_the_server_s_words() -> None:
    said = "Unsupported parameter: 'reasoning_effort' is not supported with this model."
    refusal = Fault.status(400, body=json.dumps({"error": {"message": said, "type": "invalid_request_error"}}))

    def faults(number: int) -> Fault | None:
        return refusal if number else None

    with LoopbackServer(reply=lambda body, index: f"#### {index}", indexing="arrival", faults=faults) as server:
        own = OpenAICompatibleModel("small", base_url=server.base_url, api_key="-", max_tokens=20)
        result = solve_sync("?", model=own, strategy=Ladder([TWO, Rung(strategy=TWO, effort="high")]))
        assert result.answer == "0" and any(said in warning for warning in result.warnings)
        assert all(r.body.get("reasoning_effort") == "high" for r in server.requests[1:]), "it is never left out"
        with pytest.raises(AllCandidatesFailed, match="'reasoning_effort' is not supported"):
            solve_sync("?", model=own, strategy=Ladder([Rung(strategy=TWO, effort="high"), SelfConsistency(n=4)]))


def test_a_money_budget_over_a_model_of_unknown_price_is_refused(server: LoopbackServer) -> None:
    own = OpenAICompatibleModel("small", base_url=server.base_url, api_key="-", max_tokens=20, price=(1.0, 1.0))
    ladder = Ladder([TWO, Rung(strategy=TWO, model="large")])
    with pytest.raises(Exception, match="price"):
        solve_sync("?", model=own, strategy=ladder, budget=Budget(usd=1.0))


def test_a_rung_that_the_budget_leaves_without_samples_is_no_escalation() -> None:
    small = model([1, 2, 1], "small")
    arguments: Any = {"model": small, "strategy": Ladder([TWO, SelfConsistency(n=8)]), "abstain_below": 0.9}
    lone = solve_sync("?", budget=Budget(calls=1), **arguments)
    assert not lone.escalated and lone.answer is None and lone.abstained is not None
    some = solve_sync("?", budget=Budget(calls=3), **arguments)
    assert some.escalated and some.usage.calls == 3


FORMS = {"type": "ladder", "enough": "careful", "rungs": [
    {"type": "rung", "strategy": {"type": "self-consistency", "n": 2}},
    {"type": "rung", "strategy": {"type": "self-consistency", "n": 3}, "model": "large", "price": 8},
]}  # fmt: skip
SAME = Ladder([TWO, Rung(strategy=SelfConsistency(n=3), model="large", price=8)], enough="careful")


def test_its_forms_are_one() -> None:
    assert BaseStrategy.from_dict(FORMS) == SAME == BaseStrategy.from_dict(SAME.to_dict())
    typed = "ladder: enough=careful > self-consistency:n=2 > self-consistency:n=3,model=large,price=8"
    assert strategy_of(typed, {}, verified=False) == SAME


def test_a_profile_holds_one(tmp_path: Path) -> None:
    (tmp_path / "tts-plugins.toml").write_text(
        '[profiles.climb]\nstrategy = { type = "ladder", enough = "careful", rungs = [\n'
        '  { type = "rung", strategy = { type = "self-consistency", n = 2 } },\n'
        '  { type = "rung", strategy = { type = "self-consistency", n = 3 }, model = "large", price = 8 },\n] }\n'
    )
    assert load_profile("climb", directory=tmp_path, environ={}).strategy == SAME


def test_the_command_line_climbs(server: LoopbackServer, capsys: pytest.CaptureFixture[str]) -> None:
    typed = "ladder: self-consistency:n=2 > self-consistency:n=2,effort=high > self-consistency:n=1,model=large"
    command = ["solve", "?", "--model", "small", "--base-url", server.base_url, "--strategy", typed]
    assert main(command) == 0 and "9" in capsys.readouterr().out
    assert [r.body.get("reasoning_effort") for r in server.requests][-1] == "high"
    asked = [*command[:-1], "self-consistency:n=2", "--abstain-below", "0.9"]
    assert main(asked) == 8 and main([*asked, "--larger-model", "large"]) == 0  # it is asked what is unsure
    assert server.requests[-1].body["model"] == "large" and "9" in capsys.readouterr().out
    assert main([*asked[:-2], "--larger-model", "large"]) == 2 and "--abstain-below" in capsys.readouterr().err
    assert main([*asked, "--larger-model-price", "1,1"]) == 2 and "--larger-model NAME" in capsys.readouterr().err
    alone = "ladder: self-consistency:n=1 > self-consistency:n=2"
    for wrong, said in (("ladder:", "needs its rungs"), ("ladder: luck=1 > revision", "no setting 'luck'"),
                        (alone, "always agrees with itself")):  # fmt: skip
        assert main([*command[:-1], wrong]) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Ladder([]), "at least one strategy"),
        (lambda: Ladder(TWO), "must be a list"),  # type: ignore[arg-type]
        (lambda: Ladder([SelfConsistency(n=1), TWO]), "always agrees with itself"),
        (lambda: Ladder([TWO, TWO]), "asks for none; use a larger n, such as n=4"),
        (lambda: Ladder([SelfConsistency(n=4), BestOfN(n=3)]), "asks for none"),
        (lambda: Ladder([TWO, "best"]), "is not a strategy"),  # type: ignore[list-item]
        (lambda: Ladder([TWO], enough="brave"), "enough='brave'"),  # type: ignore[arg-type]
        (lambda: Ladder([TWO], enough=1.5), "enough=1.5"),
        (lambda: Ladder([TWO], signal="luck"), "signal='luck'"),  # type: ignore[arg-type]
        (lambda: Rung(strategy=TWO, price=0), "price=0"),
        (lambda: Rung(strategy=TWO, effort=""), "effort=''"),
        (lambda: Rung(strategy=TWO, effort={}), "effort={}"),
        (lambda: Rung(strategy=TWO, effort=3), "effort=3"),  # type: ignore[arg-type]
        (lambda: Rung(strategy=Revision(chains=1, rounds=2), effort="high"), "gives whole answers only"),
        (lambda: Ladder([TWO]).with_models({"x": 3}), "is not a model"),  # type: ignore[dict-item]
        (lambda: LocalModel().variant(effort="high"), "its server has one model"),
    ],
)
def test_what_cannot_be_climbed_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        wrong()


def test_a_model_that_cannot_be_another_says_so_before_anything_is_paid() -> None:
    small = model([1, 2], "small")
    with pytest.raises(ConfigurationError, match=r"at effort 'high', which small cannot become; give the model itself"):
        solve_sync("?", model=small, strategy=Ladder([TWO, Rung(strategy=TWO, effort="high")]))
    assert asked(small) == [0]


@pytest.mark.parametrize("signal", [None, "best", "confidence"])
@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize(
    "first", [Revision(chains=1, rounds=2), RecursiveAggregation(population=2, subset=2, loops=2, select="weighted"),
              TreeSearch(n=3), BeamSearch(n=2, beam_width=2)], ids=lambda s: type(s).__name__
)  # fmt: skip
def test_what_a_search_or_a_revision_chose_decides_whether_it_goes_on(
    first: BaseStrategy, better: bool, signal: Any
) -> None:
    """Not the answers that it began with: those have the score 0."""
    last = "#### 1" if better else "#### 3"
    small: ScriptedModel = ScriptedReviseModel(["#### 2"], lambda *_: last, name="small")
    if isinstance(first, BeamSearch):
        small = ScriptedStepModel({"": [last]}, name="small")
    large = model([9], "large")
    ladder = Ladder([first, Rung(strategy=BestOfN(n=1), model=large)], signal=signal, enough=0.5)
    scores = TableVerifier({"1": [1.0], "2": [0.0], "3": [0.0], "9": [0.7]})
    result = solve_sync("?", model=small, strategy=ladder, verifier=scores, seed=1)
    assert (result.answer, asked(large)) == (("1", [0]) if better else ("9", [1]))
    assert BaseStrategy.from_dict(Ladder([first, TWO], signal=signal).to_dict()).signal == signal  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class First(BaseStrategy):
    """A strategy that says nothing of its choice."""

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        first, *_ = [candidate async for candidate in run.sample(problem, 4)]
        return first


@pytest.mark.parametrize(("answers", "then"), [([7, 7, 7, 7], 0), ([7, 7, 7, 2], 0), ([7, 1, 2, 7], 1)])
def test_a_strategy_that_says_nothing_of_its_choice_has_the_confidence_of_its_result(
    answers: list[Any], then: int
) -> None:
    alone = solve_sync("?", model=model(answers, "small"), strategy=First())
    large = model([8], "large")
    ladder = Ladder([First(), Rung(strategy=SelfConsistency(n=1), model=large)])
    result = solve_sync("?", model=model(answers, "small"), strategy=ladder)
    (rung,) = [event for event in result.trace if event["kind"] == "rung"]
    assert rung["ease"] == alone.confidence == answers.count(7) / 4 and asked(large) == [then]
    # So it is in an escalation: the answer that the solve itself would give is not paid for anew.
    again = model([8], "large")
    escalated = solve_sync("?", model=model(answers, "small"), strategy=First(), abstain_below=0.75,
                           on_abstain="escalate", escalate=again)  # fmt: skip
    assert (asked(again), escalated.escalated) == ([then], bool(then))
