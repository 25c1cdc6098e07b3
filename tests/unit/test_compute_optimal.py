"""The policy at run time: what it asks for, what it hands on, and what it refuses."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import (
    BeamSearch,
    BestOfN,
    Budget,
    Candidate,
    ComputeOptimal,
    Result,
    Revision,
    SelfConsistency,
    solve_sync,
)
from tts_plugins.errors import ConfigurationError, DataError, RequestRefused
from tts_plugins.policies import Compared, Difficulty, Expected, Plan, Stage, calibrate
from tts_plugins.stopping import Threshold, VoteLead
from tts_plugins.testing import ScriptedModel, ScriptedStepModel, TableVerifier
from tts_plugins.testing.scripted import ScriptedReviseModel
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Problem
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier

EASY_STOPS = Stage(
    count=4, difficulty=Difficulty(signal="agreement", edges=(0.4, 0.8)),
    choices=(SelfConsistency(n=4), None, BestOfN(n=12)),
)  # fmt: skip
PLAN = Plan(budget=12, fixed=SelfConsistency(n=8), stages=(EASY_STOPS,))
POLICY = ComputeOptimal(plans=(PLAN,))
SCORES = TableVerifier({"1": 0.1, "2": 0.9, "3": 0.3, "4": 0.4, "5": 0.5}, default=0.2)


def model(answers: Sequence[Any], **settings: Any) -> ScriptedModel:
    return ScriptedModel([f"#### {a}" if isinstance(a, int) else a for a in answers], **settings)


def solved(answers: Sequence[Any], policy: ComputeOptimal = POLICY, **settings: Any) -> tuple[Result, ScriptedModel]:
    asked = model(answers)
    return solve_sync("?", model=asked, strategy=policy, verifier=SCORES, seed=3, **settings), asked


def notes(result: Result, kind: str) -> list[Any]:
    return [dict(event) for event in result.trace if event["kind"] == kind]


def test_an_easy_problem_stops_after_the_probe() -> None:
    result, asked = solved([7])
    assert result.usage.calls == 4 == sum(map(len, asked.requests)) and result.answer == "7"


def test_a_hard_one_goes_on_from_the_probe_s_samples() -> None:
    result, asked = solved([1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1, 1])
    # BestOfN(n=12) has the probe's four among its twelve, and "2", the best by score, is one of them.
    assert result.answer == "2" and result.usage.calls == 12
    assert sum(map(len, asked.requests)) == 12 and len({c.id for c in result.candidates}) == 12
    (note,) = notes(result, "difficulty")
    assert "BestOfN" in json.dumps(note) and SCORES.scored.count(result.best.id) == 1


def test_a_bin_without_a_gain_goes_on_as_before() -> None:
    result, _ = solved([1, 1, 2, 3, 3, 3, 3, 1])
    assert result.usage.calls == 8 and result.answer == "3"


def test_a_plan_without_stages_runs_as_its_strategy_does() -> None:
    plain, asked = solved([1, 2, 3, 3, 1, 1, 2, 2], ComputeOptimal(plans=(replace(PLAN, stages=()),)))
    other = model([1, 2, 3, 3, 1, 1, 2, 2])
    alone = solve_sync("?", model=other, strategy=SelfConsistency(n=8), verifier=SCORES, seed=3)
    assert asked.requests == other.requests and plain.text == alone.text


def test_a_rule_that_is_done_within_the_probe_ends_it() -> None:
    stopping = replace(PLAN, fixed=BestOfN(n=8, stop=Threshold(0.9), wave=1))
    result, _ = solved([1, 2, 3, 4], ComputeOptimal(plans=(stopping,)))
    assert result.usage.calls == 2 and result.answer == "2" and result.stopped == "stop_rule"


def test_a_rule_counts_the_probe_s_samples() -> None:
    stage = replace(EASY_STOPS, choices=(None, SelfConsistency(n=12, stop=VoteLead(3), wave=1), None))
    result, _ = solved([1, 1, 2, 3, 1, 1, 9, 9], ComputeOptimal(plans=(replace(PLAN, stages=(stage,)),)))
    assert result.usage.calls == 6  # 1 leads by 3 after two more


def test_later_samples_change_the_choice_again() -> None:
    later = Stage(count=6, difficulty=Difficulty(signal="agreement", edges=(0.5,)), choices=(BestOfN(n=6), None))
    policy = ComputeOptimal(plans=(replace(PLAN, stages=(EASY_STOPS, later)),))
    result, _ = solved([1, 1, 2, 3, 1, 1, 9, 9], policy)
    assert result.usage.calls == 6 and result.answer == "2"
    assert [n["seen"] if "seen" in n else n["data"]["seen"] for n in notes(result, "difficulty")] == [4, 6]


def test_revision_starts_its_chains_from_the_probe() -> None:
    stage = replace(EASY_STOPS, choices=(None, None, Revision(chains=2, rounds=2)))
    asked = ScriptedReviseModel(["#### 1", "#### 3", "#### 4", "#### 5"], lambda p, history, number: "#### 2")
    policy = ComputeOptimal(plans=(replace(PLAN, stages=(stage,)),))
    result = solve_sync("?", model=asked, strategy=policy, verifier=SCORES, seed=3)
    assert result.usage.calls == 6 and result.answer == "2"  # four of the probe, and one revision in either chain
    assert sorted(asked.histories) == [("#### 1",), ("#### 3",)]


def test_a_lost_sample_of_the_probe_costs_that_sample_only() -> None:
    result, _ = solved([RequestRefused("400"), 1, 2, 3, 4, 5, 1, 1, 1])
    assert result.answer == "1"


def test_the_run_s_own_budget_chooses_the_plan() -> None:
    small = Plan(budget=4, fixed=SelfConsistency(n=4, stop=VoteLead(2), wave=1))
    policy = ComputeOptimal(plans=(small, PLAN))
    for calls, used in ((4, 4), (11, 4), (12, 8), (40, 8)):
        result, _ = solved(
            [1, 1, 2, 3, 3, 3, 1, 2, 5] if used == 8 else [1, 2, 3, 3], policy, budget=Budget(calls=calls)
        )
        assert result.usage.calls == used
    assert solved([1, 1, 2, 3, 3, 3, 1, 2], replace(policy, budget=4))[0].usage.calls <= 4
    # Tokens are taken at their bound: 15 a call.
    assert solved([1, 2, 3, 3], policy, budget=Budget(tokens=11 * 15))[0].usage.calls == 4


def test_below_every_plan_the_smallest_runs_without_its_probe() -> None:
    result, asked = solved([7], budget=Budget(calls=3))
    assert result.stopped == "budget" and result.answer == "7" and sum(map(len, asked.requests)) == 3
    assert not notes(result, "difficulty")


def test_budgets_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"budget=3 is below 12.*its probe alone takes 4.*budgets=\(3"):
        ComputeOptimal(plans=(PLAN,), budget=3)
    with pytest.raises(ConfigurationError, match="budget=4 leaves nothing to choose after the probe's 4"):
        replace(PLAN, budget=4)
    with pytest.raises(ConfigurationError, match="rising budget"):
        ComputeOptimal(plans=(PLAN, PLAN))
    with pytest.raises(ConfigurationError, match="rising budget"):
        ComputeOptimal(plans=())
    with pytest.raises(ConfigurationError, match="counts have to rise"):
        replace(PLAN, stages=(EASY_STOPS, EASY_STOPS))
    with pytest.raises(ConfigurationError, match="2 choices for 3 bins"):
        replace(EASY_STOPS, choices=(None, None))


def test_another_model_or_verifier_is_refused_unless_allowed() -> None:
    mine = replace(POLICY, model="large", verifier="graded")
    with pytest.raises(ConfigurationError, match=r"model 'large', and runs with 'scripted'.*any_model=True"):
        solved([7], mine)
    with pytest.raises(ConfigurationError, match=r"verifier 'graded', and runs with 'table'.*any_verifier=True"):
        solved([7], replace(mine, any_model=True))
    assert solved([7], replace(mine, any_model=True, any_verifier=True))[0].answer == "7"
    assert solved([7], replace(POLICY, model="scripted", verifier="table"))[0].answer == "7"


def test_a_verifier_that_compares_is_refused_where_a_probe_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="scores candidates against each other"):
        solve_sync("?", model=model([1]), strategy=POLICY, verifier=AnswerAgreement())
    plain = ComputeOptimal(plans=(replace(PLAN, stages=()),))
    assert solve_sync("?", model=model([1]), strategy=plain, verifier=AnswerAgreement()).answer == "1"


def test_scores_of_another_scale_are_refused() -> None:
    policy = replace(POLICY, scores=(0.1, 0.3, 0.6))
    policy.check_scores([0.2, 0.3, 0.9])
    POLICY.check_scores([0.99])
    policy.check_scores([])
    with pytest.raises(ConfigurationError, match=r"0\.95 are on another scale.*0\.1 to 0\.6"):
        policy.check_scores([0.9, 0.95, 1.0])


WHOLE = replace(
    POLICY, model="scripted", verifier="table", scores=(0.1, 0.3, 0.6),
    plans=(replace(PLAN, price=1e-5, over_full=Compared(accuracy=(0.1, 0.0, 0.2)), expected=Expected(
        accuracy=(0.5, 0.4, 0.6), samples=(5.0, 4.0, 6.0), tokens=(50.0, 40.0, 60.0))),),
)  # fmt: skip


def test_a_file_holds_it_all(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    WHOLE.save(path)
    assert ComputeOptimal.from_file(path) == WHOLE and [f.name for f in tmp_path.iterdir()] == ["policy.json"]
    assert ComputeOptimal.from_file(path, model=model([1]), verifier=SCORES, budget=20).budget == 20
    with pytest.raises(ConfigurationError, match="model 'scripted', and runs with 'other'"):
        ComputeOptimal.from_file(path, model="other")
    with pytest.raises(ConfigurationError, match="verifier 'table', and runs with 'other'"):
        ComputeOptimal.from_file(path, verifier="other")
    assert ComputeOptimal.from_file(path, model="other", verifier="x", any_model=True, any_verifier=True).any_model
    with pytest.raises(ConfigurationError, match="budget=2 is below 12"):
        ComputeOptimal.from_file(path, budget=2)


def test_other_versions_and_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    for change, said in (({"version": 99}, "version=99"), ({"format": "tts-stop-rule"}, "not a policy"),
                         ({"plans": []}, "rising budget"), ({"colour": 1}, "'colour'")):  # fmt: skip
        path.write_text(json.dumps({"format": "tts-policy", **WHOLE.to_dict(), **change}))
        with pytest.raises(DataError, match=said) as caught:
            ComputeOptimal.from_file(path)
        assert "policy.json" in str(caught.value)
    path.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        ComputeOptimal.from_file(path)


def test_a_problem_whose_probe_was_all_cut_goes_on_as_before() -> None:
    from tts_plugins.types import Generation

    asked = ScriptedModel(
        lambda problem, number: Generation(text=f"so #### {number}", finish_reason="length", tokens=9)
    )
    result = solve_sync(Problem("?"), model=asked, strategy=POLICY, verifier=SCORES)
    assert result.usage.calls == 8


@pytest.mark.parametrize(("calls", "answer"), [(3, "whole"), (6, "whole"), (7, "22"), (2 + 2 * 4, "22")])
def test_a_search_over_steps_starts_anew_and_the_probe_s_best_stands_where_it_finds_nothing(
    calls: int, answer: str
) -> None:
    def steps(candidate: Candidate, number: int) -> str:
        return "take 2" if not candidate.steps else "take 2. Answer: 22"

    asked = ScriptedStepModel(steps)
    stage = Stage(count=2, difficulty=Difficulty(signal="score", edges=(0.9,)),
                  choices=(None, BeamSearch(n=4, beam_width=2)))  # fmt: skip
    policy = ComputeOptimal(plans=(Plan(budget=3, fixed=SelfConsistency(n=3), stages=(stage,)),))
    check = CallableVerifier(lambda p, c: [0.3] * max(1, len(c.steps)), inline=True)
    result = solve_sync("?", model=asked, strategy=policy, verifier=check, seed=1, budget=Budget(calls=calls),
                        answer=lambda text: text[-2:] if "Answer" in text else "whole")  # fmt: skip
    assert result.answer == answer and result.usage.calls == calls
    assert result.best.finished


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from _places(inner, (*at, key))


def test_a_file_that_was_edited_by_hand_is_refused_by_name_or_still_a_policy(tmp_path: Path) -> None:
    path, settings = tmp_path / "policy.json", {"orders": 2, "abstain_risk": 0.3, "hold_out": 0.5}
    policy = calibrate(synthetic_pool(60, 4, seed=3), budgets=(4,), **settings)  # type: ignore[arg-type]
    policy.save(path)
    saved = json.loads(path.read_text())
    del saved["plans"][0]["abstain"]["curve"][2:]
    refused = 0
    for *above, last in _places(saved):
        for odd in (None, -1, "x", {}):
            made = json.loads(json.dumps(saved))
            held = functools.reduce(lambda value, key: value[key], above, made)
            held[last] = odd
            path.write_text(json.dumps(made))
            try:
                assert repr(ComputeOptimal.from_file(path))
            except DataError as error:
                refused += 1
                assert str(error).startswith(str(path))
    assert refused > 100
