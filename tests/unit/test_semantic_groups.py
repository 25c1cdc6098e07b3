"""SemanticGroups: answers in free words that mean the same vote together, within the budget."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Problem, SelfConsistency, solve
from tts_plugins.adapters import Text, answer_key, parsed_only
from tts_plugins.engine._scoring import is_quick
from tts_plugins.errors import AuthenticationFailed, ConfigurationError, ServerFailed
from tts_plugins.selection import semantic_entropy
from tts_plugins.stopping import VoteDecided
from tts_plugins.testing import ScriptedModel
from tts_plugins.types import Generation
from tts_plugins.verifiers import CallableVerifier, SemanticGroups
from tts_plugins.verifiers.grouping.named import named_answer

SAYS = ["It is Paris.", "The capital is Paris.", "Lyon, I think.", "Lyon, I think.", "The city of Paris"]


def parts(problem: Problem) -> tuple[str, list[str]]:
    user = str(problem.messages[-1]["content"])
    return re.findall(r'"key": "(\w+)"', user)[-1], re.findall(r"^\| (.*)$", user, re.MULTILINE)


def by_city(problem: Problem, number: int) -> str:
    key, (question, first, second) = parts(problem)
    assert question == "Capital of France?"
    same = ("Paris" in first) == ("Paris" in second)
    return json.dumps({"key": key, "relation": "entailment" if same else "contradiction"})


def one_way(problem: Problem, number: int) -> str:
    key, (_, first, second) = parts(problem)
    return json.dumps({"key": key, "relation": "entailment" if len(first) > len(second) else "neutral"})


def vectors(problem: Problem, number: int) -> Any:
    return Generation(text="", output=tuple((1.0, 0.1) if "Paris" in text else (0.1, 1.0) for text in problem.content))


async def asked(groups: SemanticGroups, says: list[str] = SAYS, **settings: Any) -> Any:
    settings.setdefault("strategy", SelfConsistency(n=len(says)))
    return await solve("Capital of France?", model=ScriptedModel(says), answer=groups, seed=1, **settings)


async def test_mutual_entailment_merges_votes_and_is_paid() -> None:
    judge = ScriptedModel(by_city)
    result = await asked(SemanticGroups(judge))
    assert "Paris" in result.text
    assert len(judge.requests) == 2 * 3 + 3  # both directions where they are the same, one where the first says no
    assert result.usage.calls == 5 + 9
    assert semantic_entropy(result.candidates) == pytest.approx(0.673, abs=1e-3)


async def test_what_follows_one_way_only_does_not_merge() -> None:
    result = await asked(SemanticGroups(ScriptedModel(one_way)))
    assert result.text == "Lyon, I think."


async def test_embeddings_above_the_threshold_merge_votes() -> None:
    model = ScriptedModel(vectors, completion_tokens=0, max_tokens=0)
    result = await asked(SemanticGroups(model, embeddings=True))
    assert "Paris" in result.text and len(model.requests) == 4
    apart = await asked(SemanticGroups(model, embeddings=True, threshold=1.0), ["Paris", "It is Paris", "Lyon"])
    assert "Paris" in apart.text


async def test_the_order_of_arrival_changes_nothing() -> None:
    winners = set()
    for order in itertools.permutations(["a Paris", "b Paris", "Lyon", "Lyon!"]):
        result = await asked(SemanticGroups(ScriptedModel(by_city)), list(order))
        winners.add(result.answer_key)
    assert len(winners) == 1


@pytest.mark.parametrize("calls", range(5, 15))
async def test_the_budget_is_never_overspent(calls: int) -> None:
    result = await asked(SemanticGroups(ScriptedModel(by_city)), budget=Budget(calls=calls))
    assert result.usage.calls <= calls
    short = any("not compared by meaning" in warning for warning in result.warnings)
    assert short == (calls < 14 and len(result.candidates) == 5) or len(result.candidates) < 5


@pytest.mark.parametrize("stop", [None, VoteDecided()])
async def test_it_ends_beside_a_verifier_and_a_tight_budget(stop: Any) -> None:
    """What waits for the budget holds nothing that another candidate waits for."""
    check = CallableVerifier(lambda problem, candidate: 0.5)
    result = await asked(
        SemanticGroups(ScriptedModel(by_city, latency=0.01)), budget=Budget(calls=12, tokens=200, seconds=60),
        strategy=BestOfN(n=5, select="weighted", stop=stop), verifier=check,
    )  # fmt: skip
    assert result.usage.calls <= 12 and result.stopped != "deadline"


async def test_failed_and_unreadable_comparisons_keep_answers_apart_and_are_told() -> None:
    for said in (
        "well, perhaps",
        ServerFailed("down"),
        AuthenticationFailed("wrong key"),
        ConfigurationError("no limit"),
    ):
        result = await asked(SemanticGroups(ScriptedModel([said])), attempts=1)
        assert result.text == "Lyon, I think."
        assert any("not compared by meaning" in warning for warning in result.warnings)


async def test_marked_answers_and_silence() -> None:
    groups = SemanticGroups(ScriptedModel(by_city))
    assert groups(r"Long work. \boxed{42}") == "42" and groups("<think>only") is None
    assert groups("It is  PARIS.") == "it is paris."


def test_wrappers_keep_how_a_key_compares_and_where_it_may_run() -> None:
    groups = SemanticGroups(ScriptedModel(by_city))
    key = parsed_only(answer_key(groups))
    assert key.relate == groups.relate  # type: ignore[attr-defined]
    assert key(Text.of("Paris", native=object())) == "paris"
    for way, quick in (("regex:a", True), ("regex:(a+)+$", False)):
        given = named_answer(way, "answer")
        assert [is_quick(k) for k in (given, answer_key(given), parsed_only(answer_key(given)))] == [quick] * 3


def test_wrong_settings_are_named() -> None:
    model = ScriptedModel(by_city)
    for name, value in (("most", 1), ("threshold", 2), ("read", 5), ("limit", 5)):
        with pytest.raises(ConfigurationError, match=f"{name}={value}"):
            SemanticGroups(model, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is not a model"):
        SemanticGroups("gpt")  # type: ignore[arg-type]
