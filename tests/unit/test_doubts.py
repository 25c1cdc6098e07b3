"""What a result's warnings say of the choice: a tie, and votes without an answer."""

from __future__ import annotations

import itertools

import pytest

from tts_plugins import BestOfN, Problem, SelfConsistency, solve
from tts_plugins.selection import RelatedKey, Relation, majority_vote
from tts_plugins.stopping import Unanimous
from tts_plugins.strategies._choice import doubts
from tts_plugins.testing import ScriptedModel
from tts_plugins.types import Scored
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier


def one(vote: str | None, score: float | None = None, *, cut: bool = False) -> Scored:
    return Scored(problem=Problem("q"), answer=vote, score=score, finished=True, truncated=cut)


async def test_a_tie_for_the_first_place_is_told() -> None:
    model = ScriptedModel([r"\boxed{41}", r"\boxed{42}", r"\boxed{42}", r"\boxed{41}"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=4), seed=1)
    (warning,) = result.warnings
    assert warning.startswith("a tie: ") and "'41'" in warning and "'42'" in warning and "2 each" in warning
    assert f"'{result.answer}' was taken" in warning
    assert any(event["kind"] == "doubt" for event in result.trace)


async def test_votes_without_an_answer_are_told() -> None:
    model = ScriptedModel(["I cannot help with that.", "Sorry, I am unable to."])
    result = await solve("q", model=model, strategy=SelfConsistency(n=2), seed=1)
    assert result.answer is None
    assert result.warnings[0].startswith("none of 2 candidates had a readable answer")


async def test_equal_scores_of_different_answers_are_told() -> None:
    model = ScriptedModel([r"\boxed{41}", r"\boxed{42}"])
    check = CallableVerifier(lambda problem, candidate: 0.5)
    tied = await solve("q", model=model, strategy=BestOfN(n=2), verifier=check, seed=1)
    assert "have the same score, 0.5" in tied.warnings[0]


@pytest.mark.parametrize("how", ["best", "weighted", "majority"])
def test_a_clear_choice_says_nothing(how: str) -> None:
    for pool in (
        [one("1", 0.9), one("1", 0.9), one("2", 0.1)],
        [one("1", 0.9)],
        [one(None, 0.1)],
        [one("1", 0.9, cut=True), one("2", 0.9)],  # a cut answer ties with no whole one
    ):
        assert not list(doubts(pool, how))  # type: ignore[arg-type]


def test_votes_by_meaning_tie_by_the_key_whatever_the_order() -> None:
    relation = Relation()
    relation.add("b", "c")
    votes = [one(k).replace(answer_key=RelatedKey(k, relation)) for k in ("d", "b", "a", "d", "c", "a")]
    assert {majority_vote(order).vote for order in itertools.permutations(votes)} == {"a"}


async def test_every_reader_of_votes_goes_by_groups() -> None:
    relation = Relation()
    relation.add("a", "b")
    votes = [one(k).replace(answer_key=RelatedKey(k, relation)) for k in ("c", "a", "b")]
    scores = await AnswerAgreement().score_set(None, votes)  # type: ignore[arg-type]
    assert [round(s.value, 3) for s in scores] == [0.333, 0.667, 0.667]
    assert Unanimous(2)(votes, 5) and not Unanimous(3)(votes, 5)
    assert Unanimous(4).least(votes, 5) == 2
