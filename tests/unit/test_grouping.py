"""Votes by meaning: formulas that are equal vote together, and none that differ."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator

import pytest

from tts_plugins import Problem, SelfConsistency, solve
from tts_plugins.bench.grading import by_answer
from tts_plugins.errors import ConfigurationError
from tts_plugins.selection import RelatedKey, Relation, grouped, majority_vote, semantic_entropy, tally
from tts_plugins.testing import ScriptedModel
from tts_plugins.types import Scored
from tts_plugins.verifiers import MathGroups
from tts_plugins.verifiers.grouping.named import named_answer

pytest.importorskip("math_verify")


def voting(*keys: str, same: list[tuple[str, str]]) -> list[Scored]:
    relation = Relation()
    for a, b in same:
        relation.add(a, b)
    return [Scored(problem=Problem("q"), answer=k, answer_key=RelatedKey(k, relation), finished=True) for k in keys]


def test_only_cliques_merge_and_the_order_changes_nothing() -> None:
    votes = voting("a", "a", "b", "c", "c", same=[("a", "b"), ("b", "c")])  # not ("a", "c")
    seen = set()
    for order in itertools.permutations(votes):
        groups = grouped(order)
        seen.add((tuple(sorted(groups.items())), tuple(sorted(tally(order).items())), majority_vote(order).vote))
    assert len(seen) == 1
    ((groups, shares, winner),) = seen
    assert dict(groups) == {"a": "a", "b": "a", "c": "c"} and dict(shares) == {"a": 3.0, "c": 2.0} and winner in "ab"


def test_entropy_counts_groups() -> None:
    assert semantic_entropy(voting("a", "b", same=[("a", "b")])) == 0.0
    assert semantic_entropy(voting("a", "b", same=[])) == pytest.approx(0.6931, abs=1e-4)
    assert semantic_entropy([]) == 0.0


@pytest.fixture(scope="module")
def groups() -> Iterator[MathGroups]:
    made = MathGroups(timeout=20.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("a", "b"),
    [("x+1", "1+x"), ("0.5", r"\frac{1}{2}"), (r"\sqrt{12}", r"2\sqrt{3}"), ("x=5", "5"), ("(1, x+1)", "(1,1+x)"),
     (r"(0,1)\cup(1,2)", r"(0, 1) \cup (1, 2)"), ("2(x+1)", "2x+2")],
)  # fmt: skip
async def test_equal_formulas(groups: MathGroups, a: str, b: str) -> None:
    assert await groups.equal(a, b) and await groups.equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [("5 cm", "5 m"), ("10", "10%"), ("f'", "f"), ("x", "X"), ("(1,2)", r"\{1,2\}"), ("1,2,3", "3,2,1"),
     ("(1,2)", "(2,1)"), ("0.333333", r"\frac{1}{3}"), ("2x+z=1", "1"), ("x+1", "y+1"), ("x<5", "x>5"),
     ("Paris", "London"), (r"30^\circ", "30"), ("5!", "5"), ("[0,1]", "(0,1)"), (r"\pm 3", "3")],
)  # fmt: skip
async def test_different_formulas(groups: MathGroups, a: str, b: str) -> None:
    assert not await groups.equal(a, b) and not await groups.equal(b, a)


async def test_equal_formulas_vote_together(groups: MathGroups) -> None:
    texts = [r"\boxed{x+1}", r"\boxed{1+x}", r"\boxed{2}", r"\boxed{2}", r"\boxed{\frac{2x+2}{2}}"]
    random.Random(0).shuffle(texts)
    result = await solve("q", model=ScriptedModel(texts), strategy=SelfConsistency(n=5), answer=groups, seed=1)
    assert result.answer_key in ("x+1", "1+x", "(2x+2)/2")


async def test_what_takes_for_ever_counts_as_different() -> None:
    slow = MathGroups(timeout=1.0)
    assert not await slow.equal("9^{9^{9^9}}", "x+1")
    slow.close()


def test_wrong_settings_are_named() -> None:
    for settings, says in (({"most": 1}, "most=1"), ({"timeout": 0}, "timeout=0"), ({"read": 5}, "read=5")):
        with pytest.raises(ConfigurationError, match=says):
            MathGroups(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("way", "reply", "key"),
    [
        ("choice", "The answer is (B).", "B"), ("choice", "The answer is 42.", None), ("extract", "#### 42", "42"),
        ("text", "<think>x</think>All of it.", "all of it."), ("text", "<think>x", None),
        ("/answer", 'Here: {"answer": "1,200"}', "1200"), ("/a/1", '{"a": [1, 2]}', "2"), ("/a~1b", '{"a/b": 3}', "3"),
        ("/answer", "none", None), ("/a", '{"b": 1}', None), ("/a/x", '{"a": [1]}', None), ("/a", '{"a": null}', None),
        (r"regex:x=(\d+)", "x=1, no: x=2", "2"), (r"regex:\d+", "1 2 3", "3"), (r"regex:\d+", "none", None),
    ],
)  # fmt: skip
def test_named_ways(way: str, reply: str, key: str | None) -> None:
    assert named_answer(way, "--answer")(reply) == key


def test_unknown_ways_are_named() -> None:
    for way, says in (("nothing", "is not known"), ("regex:(", "is not a regular expression")):
        with pytest.raises(ConfigurationError, match=says):
            named_answer(way, "--answer")


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("1+x", "x+1", True), (r"\frac{1}{2}", "0.5", True), ("41", "42", False), ("5 cm", "5 m", False),
        ("f'", "f", False), ("9^{9^{9^9}}", "x+1", False), ("Paris", "paris", True),
    ],
)  # fmt: skip
def test_grades_compare_formulas_on_any_thread(answer: str, gold: str, right: bool) -> None:
    """Regression: off the main thread no formulas were compared, and on it nothing could end a comparison."""
    problem = Problem("q", metadata={"answer": gold})
    said: list[bool | None] = [by_answer(problem, Scored(problem=problem, answer=answer))]
    thread = threading.Thread(target=lambda: said.append(by_answer(problem, Scored(problem=problem, answer=answer))))
    thread.start()
    thread.join(60)
    assert said == [right, right]
