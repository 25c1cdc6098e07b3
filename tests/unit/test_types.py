from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from tts_plugins.errors import ConfigurationError
from tts_plugins.types import EMPTY, Candidate, Problem, Result, Scored, Usage


@pytest.mark.parametrize("content", ["", "  \n", None, [], ()])
def test_an_empty_problem_is_refused(content: Any) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        Problem(content)


@pytest.mark.parametrize("content", [[{"role": "user"}, "hello"], [{"content": "no role"}], [{"role": "user"}, 5]])
def test_a_list_of_what_are_no_messages_is_refused_with_its_place(content: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"message {len(content) - 1} is"):
        Problem(content)


def test_any_other_list_is_a_chain_s_input() -> None:
    assert Problem(["a", "b"]).text == "['a', 'b']"
    with pytest.raises(ConfigurationError, match="a chat model needs a text or messages, not list"):
        _ = Problem(["a", "b"]).messages


def test_a_text_is_one_message_of_the_user() -> None:
    assert Problem("Why?").messages == [{"role": "user", "content": "Why?"}]
    assert Problem("Why?").text == "Why?"


def test_messages_are_copies_and_the_text_is_the_user_s_last() -> None:
    given = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    problem = Problem(given)
    problem.messages[0]["content"] = "changed"
    assert given[0]["content"] == "a" and problem.text == "b"
    assert Problem([{"role": "system", "content": "s"}]).text == "s"


def test_the_text_of_parts_leaves_pictures_out() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "this"}]
    assert Problem([{"role": "user", "content": parts}]).text == "see\nthis"
    assert Problem([{"role": "user", "content": None}]).text == ""


def test_other_inputs_are_kept_and_have_no_messages() -> None:
    problem = Problem({"question": "Why?"})
    assert Problem.of(problem) is problem and Problem.of("x").content == "x"
    assert problem.text == "{'question': 'Why?'}"
    with pytest.raises(ConfigurationError, match="CallableModel"):
        _ = problem.messages
    with pytest.raises(ConfigurationError, match="not bytes"):
        _ = Problem(b"raw").messages


def test_problems_and_candidates_compare_by_identity_and_are_frozen() -> None:
    problem = Problem("x")
    assert problem != Problem("x") and Candidate(problem) != Candidate(problem)
    with pytest.raises(FrozenInstanceError):
        problem.id = "y"  # type: ignore[misc]
    assert len({Candidate(problem).id for _ in range(100)}) == 100


def test_scored_keeps_all_of_its_candidate() -> None:
    candidate = Candidate(
        Problem("x"), text="t", output=1, answer="a", finished=True, truncated=True, finish_reason="length",
        tokens=3, logprobs=(-1.0,), reasoning="r", index=4, seed=5, parent="p",
    )  # fmt: skip
    scored = Scored.of(candidate, score=0.5, feedback="f")
    for name in Candidate.__dataclass_fields__:
        assert getattr(scored, name) == getattr(candidate, name)
    assert (scored.score, scored.feedback) == (0.5, "f")
    again = scored.replace(text="u")
    assert isinstance(again, Scored) and (again.id, again.score, again.text) == (candidate.id, 0.5, "u")


def test_usages_add_up_role_by_role() -> None:
    model, verifier = Usage(calls=1, prompt_tokens=2, completion_tokens=3, usd=0.5), Usage(calls=2, exact=False)
    total = Usage(calls=1, by_role={"model": model}) + Usage(calls=2, by_role={"verifier": verifier})
    total = total + Usage(calls=1, overshoot=2, seconds=1.5, requests=4, by_role={"model": model})
    assert (total.calls, total.overshoot, total.seconds, total.requests) == (4, 2, 1.5, 4)
    assert total.by_role["model"].calls == 2 and total.by_role["model"].usd == 1.0 and model.calls == 1
    assert total.exact and not total.by_role["verifier"].exact


def test_an_unknown_price_stays_unknown_and_a_bound_a_bound() -> None:
    assert (Usage(usd=None) + Usage(usd=1.0)).usd is None and (Usage(usd=1.0) + Usage(usd=None)).usd is None
    assert not (Usage(exact=False) + Usage()).exact and not (Usage() + Usage(exact=False)).exact


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("calls", -1), ("prompt_tokens", -5), ("completion_tokens", 1.5), ("overshoot", True), ("requests", None),
        ("usd", -0.1), ("usd", math.nan), ("usd", math.inf), ("seconds", -1.0),
    ],
)  # fmt: skip
def test_a_usage_that_would_give_budget_away_is_refused(name: str, value: Any) -> None:
    """Regression: Usage(completion_tokens=-100) from a user's function made room in the budget."""
    with pytest.raises(ConfigurationError, match=name):
        Usage(**{name: value})


def test_a_usage_is_json() -> None:
    usage = Usage(prompt_tokens=2, completion_tokens=3, by_role={"model": Usage(calls=1)})
    out = json.loads(json.dumps(usage.to_dict()))
    assert out["tokens"] == 5 and out["by_role"]["model"]["calls"] == 1
    assert "by_role" not in Usage().to_dict()


def test_a_result_speaks_for_its_best_candidate() -> None:
    class Recorded:
        def _repr_html_(self) -> str:
            return "<p>"

    best = Scored(Problem("x"), text="t", answer="a", score=0.0, output=0)
    result = Result(
        problem=best.problem, best=best, candidates=(best,), usage=Usage(), stopped="complete",
        trace=Recorded(), seed=1,  # type: ignore[arg-type]
    )  # fmt: skip
    assert (result.output, result.text, result.answer, result.score) == (0, "t", "a", 0.0)
    assert result._repr_html_() == "<p>"


def test_the_empty_mapping_is_empty_and_stays_so_through_pickling() -> None:
    assert EMPTY == {} and EMPTY == {} and not EMPTY and list(EMPTY) == [] and {**EMPTY} == {} and repr(EMPTY) == "{}"
    assert pickle.loads(pickle.dumps(EMPTY)) is EMPTY and copy.deepcopy(EMPTY) is EMPTY
    with pytest.raises(KeyError, match="x"):
        EMPTY["x"]


def test_equal_usages_have_equal_hashes() -> None:
    """Regression: it is frozen and had none, since its roles are a mapping."""
    one, other = Usage(calls=1, completion_tokens=5, usd=None), Usage(calls=1, completion_tokens=5, usd=None)
    assert hash(one) == hash(other) and hash(Usage()) == hash(Usage(usd=0, seconds=0))
    both = [usage.of_role("model") + Usage(calls=1).of_role("verifier") for usage in (one, other)]
    assert both[0] == both[1] and {*both, one} == {both[1], one} and len({*both, one}) == 2
    reported = one.of_role("model")
    assert reported != one and len({reported, one}) == 2, "who took it tells them apart"


def test_the_sum_of_many_usages_is_that_of_one_after_the_other() -> None:
    parts = [
        Usage(calls=i, requests=1, prompt_tokens=i * 3, usd=0.25 * i, seconds=0.5, exact=i != 2).of_role(role)
        for i in range(5)
        for role in ("model", "verifier")
    ]
    one_by_one = Usage()
    for part in parts:
        one_by_one = one_by_one + part
    assert Usage.sum(parts) == one_by_one and not one_by_one.exact
    assert Usage.sum([]) == Usage() and Usage.sum([*parts, Usage(usd=None)]).usd is None
