from __future__ import annotations

import pytest

from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import (
    aggregate,
    best,
    choose,
    fallback,
    has_content,
    majority_vote,
    prefer_content,
    spread,
    tally,
    top,
    weighted_vote,
)
from tts_plugins.types import Problem, Scored

PROBLEM = Problem("x")


def c(answer: str | None = None, score: float | None = None, **more: object) -> Scored:
    return Scored(PROBLEM, answer=answer, score=score, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("how", "value"), [("last", 0.5), ("min", 0.2), ("prod", 0.08), ("mean", 0.5)])
def test_aggregates(how: str, value: float) -> None:
    assert aggregate([0.8, 0.2, 0.5], how) == pytest.approx(value)  # type: ignore[arg-type]


def test_aggregates_need_scores_and_a_known_name() -> None:
    with pytest.raises(ConfigurationError, match="'median' is not known"):
        aggregate([1.0], "median")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no step scores"):
        aggregate([])


def test_best_and_top_take_the_first_of_equals() -> None:
    a, b, d = c(score=0.5), c(score=0.9), c(score=0.9)
    assert best([a, b, d]) is b and top([a, b, d], 2) == [b, d] and top([a, b, d], 9) == [b, d, a]
    assert top([a], 0) == []


def test_of_equals_what_was_cut_comes_last() -> None:
    """Regression: a truncated candidate without an answer won over a whole one, because it came first."""
    whole, cut = {"finished": True}, {"finished": True, "truncated": True}
    none, answered, done, partial = c(score=0.5, **cut), c("a", 0.5, **cut), c(score=0.5, **whole), c(score=0.5)
    assert best([none, partial, answered, done]) is done
    assert best([none, partial, answered]) is answered and best([partial, none]) is partial
    assert best([done, c(score=0.6, **cut)]).score == 0.6, "a score is worth more"
    assert weighted_vote([c("a", 0.5, **cut), second := c("a", 0.5, **whole)]) is second
    assert best([done, c("a", 0.5, **whole)]) is done, "a long text has no short answer, and is no worse for it"
    assert top([none, done], 1) == [none], "beams are all unfinished: their order is kept"


def test_top_of_none_is_none() -> None:
    """Regression: DESIGN's beam search asks for the top of no unfinished beams, and ends there."""
    assert top([], 4) == []
    with pytest.raises(ValueError, match="k=-1"):
        top([c(score=1.0)], -1)


def test_ties_are_spread_over_parents() -> None:
    a1, a2, a3, b1, b2, z = (
        c(score=s, parent=p) for s, p in ((1, "a"), (1, "a"), (1, "a"), (1, "b"), (1, "b"), (0, "z"))
    )
    everything = [a1, a2, a3, b1, b2, z]
    assert spread(everything, 2) == [a1, b1] and spread(everything, 4) == [a1, b1, a2, b2]
    assert spread(everything, 9) == [a1, b1, a2, b2, a3, z] and spread(everything, 0) == spread([], 3) == []
    # What has been chosen for its score counts too: the parent of the better one comes last among equals.
    better = c(score=1, parent="b")
    assert spread([c(score=0.5, parent="b"), low := c(score=0.5, parent="a"), better], 2) == [better, low]
    with pytest.raises(ValueError, match="k=-1"):
        spread(everything, -1)


def test_nothing_to_choose_from() -> None:
    for chooser in (best, majority_vote, weighted_vote, fallback):
        with pytest.raises(ValueError, match="no candidates"):
            chooser([])


def test_what_has_no_score_cannot_be_best() -> None:
    with pytest.raises(ValueError, match="has no score; pass a verifier"):
        best([c(score=0.1), c()])
    with pytest.raises(ValueError, match="has no score"):
        weighted_vote([c("a")])


def test_a_zero_is_a_score() -> None:
    only = c(score=0.0)
    assert best([only]) is only


def test_majority_ignores_what_could_not_be_read() -> None:
    none, a, b, b2 = c(), c("a"), c("b"), c("b")
    assert majority_vote([none, a, b, b2]) is b
    assert majority_vote([none, none, none, a]) is a
    assert majority_vote([a, b]) is a
    assert tally([none, a, b, b2]) == {"a": 1.0, "b": 2.0}


def test_majority_without_any_answer() -> None:
    one, two = c(score=0.1), c(score=0.2)
    assert majority_vote([one, two]) is two
    assert majority_vote([c(), two]).score is None


def test_weighted_vote_sums_scores_and_takes_the_best_voter() -> None:
    a, b, b2 = c("a", 0.8), c("b", 0.4), c("b", 0.5)
    assert weighted_vote([a, b, b2]) is b2 and best([a, b, b2]) is a


def test_equal_sums_are_ties_whatever_the_order_of_their_parts() -> None:
    """Regression: 0.1 + 0.2 + 0.3 > 0.6 in floats, and the tie went to the later answer."""
    first, parts = c("b", 0.6), [c("a", s) for s in (0.1, 0.2, 0.3)]
    assert weighted_vote([first, *parts]) is first
    assert weighted_vote([first, *parts[::-1]]) is first


def test_choose_by_name() -> None:
    pool = [c("a", 0.8), c("b", 0.5), c("b", 0.4)]
    assert [choose(pool, how).answer for how in ("best", "weighted", "majority")] == ["a", "b", "b"]
    with pytest.raises(ConfigurationError, match="select='first'"):
        choose(pool, "first")  # type: ignore[arg-type]


def test_fallback_prefers_whole_then_scored_then_frequent() -> None:
    partial, cut = c("a", 0.9), c("a", 0.8, finished=True, truncated=True)
    whole, unscored = c("b", 0.1, finished=True), c("d", finished=True)
    assert fallback([partial, cut, whole]) is whole
    assert fallback([partial, cut]) is cut
    assert fallback([partial]) is partial
    assert fallback([unscored, whole]) is whole
    assert fallback([unscored, c("b", finished=True), c("b", finished=True)]).answer == "b"


THOUGHT, IMAGE = {"type": "thinking", "thinking": "hm"}, {"type": "image_url", "image_url": {"url": "u"}}


@pytest.mark.parametrize(
    ("says", "more"),
    [
        (True, {"text": "4"}), (False, {"text": ""}), (False, {"text": " \n"}), (True, {"text": "", "answer": "4"}),
        (False, {"text": "", "answer": " "}), (False, {"output": ""}), (False, {"output": {"content": None}}),
        (False, {"output": {"content": [{"type": "text", "text": ""}, THOUGHT]}}), (False, {"output": {"content": []}}),
        (True, {"output": {"content": [IMAGE]}}), (True, {"output": {"content": None, "tool_calls": [{}]}}),
        (True, {"output": {"content": "", "additional_kwargs": {"audio": {"id": "1"}}}}),
        (False, {"output": {"content": "", "additional_kwargs": {"reasoning_content": "hm"}}}),
        (False, {"output": {"output": [{"type": "reasoning"}, {"type": "message", "content": []}]}}),
        (True, {"output": {"output": [{"type": "image_generation_call"}]}}), (True, {"output": object()}),
    ],
)  # fmt: skip
def test_what_has_content(says: bool, more: dict[str, object]) -> None:
    candidate = c(score=0.9, **more)
    assert has_content(candidate) is says
    assert prefer_content(candidate, [candidate, other := c("4", 0.1)]) is (candidate if says else other)
    assert prefer_content(candidate, [candidate]) is candidate
