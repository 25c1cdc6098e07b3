"""Monte-Carlo rollouts: what the labels are, and that the file survives whatever ends the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import Budget, Candidate, Ledger, Problem
from tts_plugins.bench.rollouts import make_rollouts
from tts_plugins.cli import main
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError, DataError, ModelNotFound
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.pools import Pool
from tts_plugins.testing import ScriptedStepModel
from tts_plugins.types import Generation

A, B = "Take 3.", "Take 4."
# From A three of four continuations end right, from B none.
TREE = {"": [A, B], A: ["Answer: 7", "Answer: 7", "Answer: 9", "Answer: 7"], B: ["Answer: 1"]}


def step(text: str) -> Generation:
    """As a model with log-probabilities writes it: one for each word."""
    return Generation(text=text, tokens=2, finish_reason="step", logprobs=(-0.1,) * len(text.split()))


def model(**settings: Any) -> ScriptedStepModel:
    return ScriptedStepModel({text: [step(s) for s in steps] for text, steps in TREE.items()}, **settings)


def problem(name: str = "p1", gold: str | None = "7") -> Problem:
    return Problem("What is 3 + 4?", id=name, metadata={"answer": gold})


async def made(path: Path, problems: list[Problem] | None = None, **settings: Any) -> Pool:
    given: dict[str, Any] = {"solutions": 4, "rollouts": 4, "model": model(), **settings}
    return await make_rollouts(problems or [problem()], path=path, **given)


async def test_labels_are_shares_of_continuations_that_end_right(tmp_path: Path) -> None:
    pool = await made(tmp_path / "r.jsonl")
    (only,) = pool.problems
    labels = {tuple(c.extra["steps"]): c.step_scores for c in only.candidates}
    assert labels == {(A, "Answer: 7"): (0.75, 1.0), (A, "Answer: 9"): (0.75, 0.0), (B, "Answer: 1"): (0.0, 0.0)} or (
        labels == {(A, "Answer: 7"): (0.75, 1.0), (B, "Answer: 1"): (0.0, 0.0)}
    )
    assert len(only.candidates) == 4 and {c.correct for c in only.candidates} == {True, False}
    assert all(len(c.extra["logprobs"]) == 4 for c in only.candidates)  # of both steps
    assert (only.prompt, only.answer) == ("What is 3 + 4?", "7")
    assert Pool.read(tmp_path / "r.jsonl") == pool


async def test_equal_beginnings_share_their_continuations(tmp_path: Path) -> None:
    writer = model()
    await made(tmp_path / "r.jsonl", model=writer, solutions=8, rollouts=4)
    # 8 first steps and 8 answers; then 4 continuations from each of two beginnings.
    assert sum(n for _, n, _ in writer.expanded) == 8 + 8 + 2 * 4
    assert len(writer.expanded) == 8 + 8 + 2 * 4  # this model takes one at a time: no request is lost or doubled


async def test_what_cannot_be_read_is_dropped(tmp_path: Path) -> None:
    grades = iter([None, True, True, False])

    def grade(p: Problem, c: Candidate) -> bool | None:
        return None if c.text.startswith(B) else next(grades, True)

    pool = await made(tmp_path / "r.jsonl", grade=grade)
    texts = [c.text for c in pool.problems[0].candidates]
    assert texts and not any(text.startswith(B) for text in texts)


@pytest.mark.parametrize("wrong", ["no", 2, 0.5, [True], float("nan")])
@pytest.mark.parametrize("later", [False, True])
async def test_what_is_no_grade_is_refused_by_name(tmp_path: Path, wrong: object, later: bool) -> None:
    """Regression: whatever was true in Python was right, the word "no" and NaN too."""

    async def waits(p: Problem, c: Candidate) -> Any:
        return wrong

    grade: Any = waits if later else lambda p, c: wrong
    with pytest.raises(DataError, match=r"grade: problem 'p1': .* is not a grade; return True, False, or None"):
        await made(tmp_path / "r.jsonl", grade=grade)
    assert Pool.read(tmp_path / "r.jsonl").problems == ()


async def test_one_and_zero_are_grades(tmp_path: Path) -> None:
    pool = await made(tmp_path / "r.jsonl", grade=lambda p, c: float(c.answer == "7"))
    assert pool == await made(tmp_path / "same.jsonl")


async def test_it_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    path, problems = tmp_path / "r.jsonl", [problem("a"), problem("b"), problem("c")]
    await made(path, problems[:1])
    first = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"id": "b", "candidates": [{"te')  # killed in the middle of a line
    writer = model()
    pool = await made(path, problems, model=writer)
    assert path.read_bytes().startswith(first) and [p.id for p in pool.problems] == ["a", "b", "c"]
    asked = len(writer.expanded)
    again = await made(path, problems, model=writer)
    assert again == pool and len(writer.expanded) == asked  # nothing is asked twice
    assert Pool.read(path) == pool


async def test_the_same_problem_is_the_same_in_another_order(tmp_path: Path) -> None:
    seeds = []
    for name, problems in (("1", [problem("a"), problem("b")]), ("2", [problem("b"), problem("a")])):
        writer = model()
        await made(tmp_path / name, problems, model=writer, concurrency=1)
        half = len(writer.requests) // 2
        seeds.append((writer.requests[:half], writer.requests[half:]))
    assert seeds[0] == (seeds[1][1], seeds[1][0])


async def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    await made(path)
    with pytest.raises(DataError, match=r"line 1: it was started with rollouts=4 \(now 2\)"):
        await made(path, rollouts=2)
    path.write_text("{}\n")
    with pytest.raises(DataError, match="is not a pool"):
        await made(path)


async def test_a_budget_holds_and_leaves_what_is_there(tmp_path: Path) -> None:
    path, problems = tmp_path / "r.jsonl", [problem("a"), problem("b")]
    ledger = Ledger(Budget(calls=30))
    with pytest.raises(BudgetExhausted):
        await made(path, problems, ledger=ledger, concurrency=1, solutions=8)
    assert ledger.spent.calls <= 30
    assert [p.id for p in Pool.read(path).problems] == ["a"]
    assert [p.id for p in (await made(path, problems, concurrency=1, solutions=8)).problems] == ["a", "b"]


async def test_what_no_other_problem_can_survive_ends_it(tmp_path: Path) -> None:
    broken = ScriptedStepModel(lambda candidate, number: ModelNotFound("no such model"))
    with pytest.raises(ModelNotFound):
        await made(tmp_path / "r.jsonl", model=broken)


async def test_where_every_problem_fails_the_cause_is_raised(tmp_path: Path) -> None:
    """Regression: a server that nobody had started was "0 problems, 0 labelled solutions", and exit code 0."""
    writer = OpenAICompatibleModel("m", base_url="http://127.0.0.1:9/v1", api_key="-", max_tokens=20)
    with pytest.raises(AllCandidatesFailed, match="ConnectionFailed"):
        await made(tmp_path / "r.jsonl", [problem("p1"), problem("p2")], model=writer)
    await writer.aclose()


async def test_wrong_settings(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for settings in ({"solutions": 0}, {"rollouts": 0}, {"concurrency": 0}):
        with pytest.raises(ConfigurationError):
            await made(path, **settings)
    for problems in ([Problem("x")], [problem("a"), problem("a")]):
        with pytest.raises(ConfigurationError, match="give each its own"):
            await made(path, problems)
    assert not path.exists()


async def test_a_line_is_json_that_any_program_reads(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    await made(path)
    header, line = [json.loads(text) for text in path.read_text().splitlines()]
    assert header["format"] == "tts-pool" and header["rollouts"] == 4 and header["separator"] == "\n\n"
    assert set(line["candidates"][0]) >= {"text", "steps", "step_scores", "correct", "logprobs"}


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Regression: one line without an end was taken for half a line of ours, and cut off."""
    (tmp_path / "notes.txt").write_text("my notes")
    (tmp_path / "in.jsonl").write_text('{"id": "a", "prompt": "q", "answer": "1"}\n')
    given = [str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "notes.txt"), "--model", "m"]
    assert main(["rollouts", *given, "--base-url", "http://127.0.0.1:9/v1"]) == 6
    assert (tmp_path / "notes.txt").read_text() == "my notes"
