"""Confidence and abstention: every strategy's figures, thresholds, ties, escalation within the budget."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tts_plugins import (
    DVTS,
    BeamSearch,
    BestOfN,
    Budget,
    Candidate,
    Escalation,
    Ledger,
    ParticleFilter,
    Problem,
    RecursiveAggregation,
    Result,
    Revision,
    Scored,
    SelfConsistency,
    TreeSearch,
    solve,
    solve_events,
    solve_many,
    solve_sync,
)
from tts_plugins._trace.page import pages
from tts_plugins.confidence import support, support_when_unknown
from tts_plugins.errors import AuthenticationFailed, ConfigurationError, LowConfidence, TTSError, UnboundedCallError
from tts_plugins.protocols import Run
from tts_plugins.testing.scripted import ScriptedModel, ScriptedReviseModel, ScriptedStepModel, TableVerifier
from tts_plugins.viewer.solves import Solves

ASKED = "What is 6 * 7?"
SCORES = TableVerifier({"1": 0.9, "2": 0.6, "3": 0.2}, default=0.4)


def says(*answers: str, name: str = "small", **settings: Any) -> ScriptedModel:
    return ScriptedModel([f"answer: {a}" for a in answers], name=name, **settings)


def made(*answers: str | None, scores: Sequence[float | None] = ()) -> list[Scored]:
    given = [*scores, *[None] * (len(answers) - len(scores))]
    return [
        Scored(Problem(ASKED), text=str(a), answer=a, finished=True, score=s, index=i)
        for i, (a, s) in enumerate(zip(answers, given, strict=True))
    ]


def test_majority_is_the_share_of_all_candidates_unreadable_ones_included() -> None:
    candidates = made("1", "1", None, "2")
    assert support(candidates, candidates[0], "majority").confidence == 0.5
    assert support(candidates[:1], candidates[0], "majority").confidence is None  # nobody else was asked
    unread = made(None, None)
    assert support(unread, unread[0], "majority").confidence is None


def test_weighted_is_the_winning_mass_over_all_candidates() -> None:
    candidates = made("1", "1", "2", "3", scores=(0.9, 0.7, 0.4, 0.0))
    found = support(candidates, candidates[0], "weighted")
    assert found.confidence == pytest.approx(0.4) and found.agreement == 0.5


def test_best_is_the_score_and_no_score_is_no_confidence() -> None:
    candidates = made("1", "2", scores=(0.9, 0.1))
    assert support(candidates, candidates[0], "best").confidence == 0.9
    (lone,) = made("1")
    assert support([lone], lone, "best").confidence is None


def test_a_choice_nobody_speaks_for_takes_score_then_agreement_and_a_part_has_none() -> None:
    candidates = made("1", "1", "2")
    assert support_when_unknown(candidates, candidates[0]).confidence == pytest.approx(2 / 3)
    assert support_when_unknown([], candidates[0]).confidence is None
    part = candidates[0].replace(finished=False)
    assert support_when_unknown([part, *candidates], part).confidence is None
    known = made("1", "2", scores=(0.8, 0.1))
    assert support_when_unknown(known, known[0]).confidence == 0.8


def _revised(problem: Problem, history: Sequence[Scored], number: int) -> str:
    return f"answer: {1 + number % 2}"


def stepwise(problem: Problem, candidate: Candidate) -> Any:
    return [0.8] * max(len(candidate.steps), 1)


STEPS = {"": ["so"], "so": ["answer: 1"]}
STRATEGIES: list[tuple[Any, Any]] = [
    (BestOfN(n=4), lambda: says("1", "1", "2")),
    (BestOfN(n=4, select="weighted"), lambda: says("1", "1", "2")),
    (BestOfN(n=1), lambda: says("1")),
    (SelfConsistency(n=4), lambda: says("1", "1", "2")),
    (SelfConsistency(n=4, stop="bold"), lambda: says("1", "1", "2")),
    (TreeSearch(n=4), lambda: ScriptedReviseModel(["answer: 1"], _revised)),
    (Revision(chains=2, rounds=2), lambda: ScriptedReviseModel(["answer: 1"], _revised)),
    (RecursiveAggregation(population=4, subset=2, loops=2), lambda: ScriptedReviseModel(["answer: 1"], _revised)),
    (BeamSearch(n=4, beam_width=2, max_steps=6), lambda: ScriptedStepModel(STEPS)),
    (DVTS(n=4, beam_width=2, max_steps=6), lambda: ScriptedStepModel(STEPS)),
    (ParticleFilter(n=4, max_steps=6), lambda: ScriptedStepModel(STEPS)),
]


@pytest.mark.parametrize(("strategy", "model"), STRATEGIES, ids=[repr(s)[:40] for s, _ in STRATEGIES])
async def test_every_strategy_says_how_sure_it_is_in_result_trace_and_pages(strategy: Any, model: Any) -> None:
    result = await solve(ASKED, model=model(), strategy=strategy, verifier=stepwise, seed=1)
    assert result.confidence is not None and 0 < result.confidence <= 1 and result.abstained is None
    top = next(iter(result.trace))
    assert top["confidence"] == result.confidence and top["agreement"] == result.agreement
    shown = f"confidence {result.confidence:.2f}"
    assert shown in result.trace.tree().replace("\xa0", " ")
    assert shown in result.trace.html() and shown in result._repr_html_()
    assert shown in pages([("one", result.trace.to_dict())], "many")
    solves = Solves()
    hear = solves.begin("one")
    for event in result.trace:
        hear(event)
    (row,) = [solve.summary() for solve in solves.all()]
    assert row["confidence"] == result.confidence and row["agreement"] == result.agreement


async def test_figures_are_those_of_the_choice() -> None:
    voted = await solve(ASKED, model=says("1", "1", "2", "1"), strategy=SelfConsistency(n=4))
    assert (voted.confidence, voted.agreement) == (0.75, 0.75)
    weighed = await solve(
        ASKED, model=says("1", "2", "2", "3"), strategy=BestOfN(n=4, select="weighted"), verifier=SCORES
    )
    assert weighed.answer == "2" and weighed.confidence == pytest.approx(0.3) and weighed.agreement == 0.5
    best = await solve(ASKED, model=says("3", "1"), strategy=BestOfN(n=2), verifier=SCORES)
    assert (best.confidence, best.agreement) == (0.9, 0.5)
    single = await solve(ASKED, model=says("1"), strategy=BestOfN(n=1))
    assert single.confidence is None and single.agreement is None
    partial = await solve(
        ASKED, model=ScriptedStepModel(lambda c, n: "and so on"), strategy=BeamSearch(n=2, beam_width=2, max_steps=2),
        verifier=stepwise,
    )  # fmt: skip
    assert partial.best.truncated and partial.confidence is None


@dataclass(frozen=True)
class Own:
    """A third party's strategy, which says nothing of its choice."""

    n: int = 4

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        first, *_ = [c async for c in run.sample(problem, self.n)]
        return first


async def test_a_strategy_that_says_nothing_has_its_score_or_its_agreement() -> None:
    assert (await solve(ASKED, model=says("1", "1", "2", "1"), strategy=Own())).confidence == 0.75
    assert (await solve(ASKED, model=says("1", "2"), strategy=Own(), verifier=SCORES)).confidence == 0.9
    kept = await solve(ASKED, model=says("1", "2"), strategy=Own(), abstain_below=0.7)
    assert kept.abstained is not None and kept.confidence == 0.5


async def test_below_the_threshold_nothing_is_answered_and_the_reason_tells_ties() -> None:
    result = await solve(ASKED, model=says("1", "2"), strategy=SelfConsistency(n=4), abstain_below=0.6)
    assert result.output is None and result.answer is None and result.text == "" and result.answer_key is None
    assert result.best.answer == "1" and result.usage.calls == 4
    assert result.abstained is not None and result.abstained.below == 0.6
    assert result.abstained.reason.startswith("the confidence is 0.50, below 0.6; a tie: '1', '2' have the same votes")
    assert json.loads(json.dumps(result.abstained.to_dict()))["confidence"] == 0.5
    assert "no answer" in result.trace.tree() and "No answer was given" in result.trace.html()
    assert "no answer" in result._repr_html_()
    exactly = await solve(ASKED, model=says("1", "2"), strategy=SelfConsistency(n=4), abstain_below=0.5)
    assert exactly.answer == "1" and "a tie" in exactly.warnings[0]  # at the threshold it answers, and tells the tie
    assert pickle.loads(pickle.dumps(result)).abstained == result.abstained


async def test_what_says_nothing_of_its_confidence_is_not_answered() -> None:
    result = await solve(ASKED, model=says("1"), strategy=BestOfN(n=1), abstain_below=0.1)
    assert result.abstained is not None and "nothing says how sure" in result.abstained.reason


@pytest.mark.parametrize("on", ["none", "raise", "escalate"])
async def test_a_threshold_of_0_answers_everything(on: Any) -> None:
    large = says("2", name="large")
    escalate = large if on == "escalate" else None
    for strategy in (SelfConsistency(n=1), SelfConsistency(n=2)):
        for model in (says("1"), ScriptedModel(["no idea"])):
            result = await solve(
                ASKED, model=model, strategy=strategy, abstain_below=0, on_abstain=on, escalate=escalate
            )
            assert result.abstained is None and result.text and not result.escalated
    assert not large.requests


async def test_close_to_the_threshold_the_figures_differ_in_what_is_read() -> None:
    result = await solve(
        ASKED, model=says("1"), strategy=BestOfN(n=2), verifier=TableVerifier({"1": 0.7499}), abstain_below=0.75
    )
    assert result.abstained is not None and "0.7499, below 0.75" in result.abstained.reason


async def test_raise_carries_the_result_and_can_be_pickled() -> None:
    with pytest.raises(LowConfidence, match=r"no answer: the confidence is 0.50, below 0.9") as caught:
        await solve(ASKED, model=says("1", "2"), strategy=SelfConsistency(n=2), abstain_below=0.9, on_abstain="raise")
    error = caught.value
    assert isinstance(error.result, Result) and error.result.usage.calls == 2 and error.confidence == 0.5
    copy = pickle.loads(pickle.dumps(error))
    assert copy.below == 0.9 and copy.result is None and str(copy) == str(error)


@pytest.mark.parametrize("bad", [2, -0.1, math.nan, math.inf, "0.5", True, [0.5]])
def test_thresholds_that_are_none_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"abstain_below=.* must be a number from 0 to 1"):
        solve_sync(ASKED, model=says("1"), abstain_below=bad)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_abstain": "x", "abstain_below": 0.5}, "on_abstain='x' is not known"),
        ({"on_abstain": None, "abstain_below": 0.5}, "on_abstain=None is not known"),
        ({"on_abstain": "escalate", "abstain_below": 0.5}, "pass escalate= a larger model"),
        ({"escalate": SelfConsistency(n=8), "abstain_below": 0.5}, "pass on_abstain='escalate' too"),
        ({"on_abstain": "raise"}, "nothing is ever withheld"),
        ({"on_abstain": "escalate", "escalate": 7, "abstain_below": 0.5}, "neither a model nor a strategy"),
        ({"on_abstain": "escalate", "escalate": BestOfN, "abstain_below": 0.5}, "neither a model nor a strategy"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        solve_sync(ASKED, model=says("1"), **settings)


def test_escalations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="none of model="):
        Escalation()
    with pytest.raises(ConfigurationError, match="is not a model"):
        Escalation(model="gpt-5")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is not a strategy"):
        Escalation(strategy=BestOfN)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="another model gives whole answers only"):
        Escalation(model=says("1"), strategy=BeamSearch(n=4, beam_width=2))


ESCALATE: dict[str, Any] = {"strategy": SelfConsistency(n=2), "abstain_below": 0.9, "on_abstain": "escalate"}


async def test_a_larger_model_answers_what_the_smaller_one_is_not_sure_of() -> None:
    large = says("7", name="large")
    result = await solve(ASKED, model=says("1", "2"), escalate=large, **ESCALATE)
    assert result.answer == "7" and result.escalated and result.abstained is None and result.confidence is None
    assert result.usage.calls == 3 and len(large.requests) == 1
    assert "large" in result.trace.tree() and "not sure enough" in result.trace.tree()
    assert "escalation" in result.trace.html()
    sure = await solve(ASKED, model=says("1"), escalate=large, **ESCALATE)
    assert sure.answer == "1" and not sure.escalated and len(large.requests) == 1


async def test_an_escalation_that_can_say_how_sure_it_is_is_held_to_the_threshold_too() -> None:
    large = Escalation(model=says("7", "8", name="large"), strategy=SelfConsistency(n=2))
    result = await solve(ASKED, model=says("1", "2"), escalate=large, **ESCALATE)
    assert result.escalated and result.abstained is not None and result.answer is None
    assert result.abstained.reason.startswith("after the escalation the confidence is 0.50")
    more = await solve(ASKED, model=says("1", "2", "1"), escalate=SelfConsistency(n=2), **ESCALATE)
    assert more.usage.calls == 4 and more.escalated  # the same model, again


async def test_a_verifier_judges_the_larger_models_answer() -> None:
    settings = {**ESCALATE, "strategy": BestOfN(n=2)}
    wrong = await solve(ASKED, model=says("2"), escalate=says("3", name="large"), verifier=SCORES, **settings)
    assert wrong.escalated and wrong.abstained is not None and wrong.confidence == 0.2
    right = await solve(ASKED, model=says("2"), escalate=says("1", name="large"), verifier=SCORES, **settings)
    assert right.answer == "1" and right.confidence == 0.9


@pytest.mark.parametrize("budget", [Budget(calls=2), Budget(tokens=31), Budget(usd=31.0)])
async def test_the_budget_holds_over_the_escalation(budget: Budget) -> None:
    small, large = says("1", "2", price=1.0), says("7", name="large", price=1.0)
    result = await solve(ASKED, model=small, escalate=large, budget=budget, **ESCALATE)
    assert not large.requests and result.stopped == "budget" and not result.escalated
    assert result.answer is None and result.abstained is not None
    assert "the escalation failed: BudgetExhausted" in result.abstained.reason
    assert result.usage.calls == 2 and result.usage.tokens == 30
    shared = Ledger(budget)
    priced = says("1", "2", price=1.0)
    many = await solve_many([ASKED] * 3, model=priced, escalate=large, budget=shared, return_errors=True, **ESCALATE)
    assert shared.usage.calls <= 2 and all(not getattr(r, "escalated", False) for r in many)


async def test_an_escalation_without_a_bound_is_refused_before_anything_is_paid_for() -> None:
    small, large = says("1", "2"), says("7", name="large", max_tokens=None)
    with pytest.raises(UnboundedCallError, match="large"):
        await solve(ASKED, model=small, escalate=large, budget=Budget(tokens=1000), **ESCALATE)
    assert not small.requests


async def test_a_larger_model_that_fails_leaves_the_question_unanswered_and_says_why() -> None:
    large = ScriptedModel([AuthenticationFailed("large: 401")], name="large")
    result = await solve(ASKED, model=says("1", "2"), escalate=large, attempts=1, **ESCALATE)
    assert result.abstained is not None and "401" in result.abstained.reason and not result.escalated
    assert any("401" in warning for warning in result.warnings)


async def test_events_and_sync_have_the_same_settings() -> None:
    events = solve_events(ASKED, model=says("1", "2"), strategy=SelfConsistency(n=2), abstain_below=0.9)
    seen = [event async for event in events]
    assert events.result.abstained is not None and seen[-1]["abstained"].startswith("the confidence is 0.50")


def test_sync_abstains() -> None:
    assert solve_sync(ASKED, model=says("1", "2"), strategy=SelfConsistency(n=2), abstain_below=0.9).answer is None


async def test_a_person_is_asked_by_whoever_called() -> None:
    result = await solve(ASKED, model=says("1", "2"), escalate="person", **ESCALATE)
    assert result.abstained is not None and result.abstained.person and not result.escalated
    large = Escalation(model=says("7", "8", name="large"), strategy=SelfConsistency(n=2), person=True)
    both = await solve(ASKED, model=says("1", "2"), escalate=large, **ESCALATE)
    assert both.escalated and both.abstained is not None and both.abstained.person


async def test_an_escalation_that_answers_leaves_no_doubt_of_the_first_choice() -> None:
    result = await solve(ASKED, model=says("1", "2"), escalate=says("7", name="large"), **ESCALATE)
    assert result.answer == "7" and result.warnings == () and "a tie" not in result.trace.tree()


async def test_strategies_that_return_something_else_say_so() -> None:
    async def odd(run: Run, problem: Problem) -> Any:
        return 7

    with pytest.raises(TTSError, match="returned 7; it must return a Scored"):
        await solve(ASKED, model=says("1", "2"), escalate=odd, **ESCALATE)
    with pytest.raises(TTSError, match="returned 7; it must return a Scored"):
        await solve(ASKED, model=says("1", "2"), escalate=says("1"), **{**ESCALATE, "strategy": odd})


async def test_the_deadline_holds_over_the_escalation() -> None:
    slow = says("7", name="large", latency=600)
    result = await solve(ASKED, model=says("1", "2"), escalate=slow, budget=Budget(seconds=2), **ESCALATE)
    assert result.stopped == "deadline" and result.abstained is not None and result.usage.calls == 3
    assert "DeadlineExceeded" in result.abstained.reason
