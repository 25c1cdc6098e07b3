from __future__ import annotations

import json
import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import Problem, SelfConsistency
from tts_plugins.bench.plan import Plan
from tts_plugins.bench.runner import bench
from tts_plugins.bench.storage.store import Store
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.protocols import Run
from tts_plugins.testing import ScriptedModel
from tts_plugins.types import Candidate, Scored


@dataclass(frozen=True, kw_only=True)
class Combined:
    """Takes two samples together: its answer is neither of them."""

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        one, two = [c async for c in run.sample(problem, 2)]
        return Scored(problem, text=f"combined: {one.text} {two.text}", answer=one.answer, finished=True)


def is_combined(problem: Problem, candidate: Candidate) -> bool:
    return candidate.text.startswith("combined: ")


def plan_of(grade: Any, tag: str | None = None, **changes: Any) -> Plan:
    problems = [Problem(f"What is {i} + {i}?", id=f"p{i}", metadata={"answer": "4"}) for i in range(3)]
    fields = {"problems": problems, "strategies": {"own": Combined()}, "model": ScriptedModel(["4"]), "grade": grade,
              "settings": {} if tag is None else {"grade": tag}}  # fmt: skip
    return Plan(**{**fields, **changes})


async def measured(path: Path, grade: Any, tag: str | None = None, **changes: Any) -> list[bool | None]:
    """What it says of each solve once it has ended."""
    plan = plan_of(grade, tag, **changes)
    with plan.open(path) as store:
        await bench(plan, store)
        return [s.correct for s in store.solves()]


async def test_an_answer_that_is_none_of_the_candidates_is_graded_by_its_text(tmp_path: Path) -> None:
    """Regression: the same function under another name made three right answers wrong, for their text was not kept."""
    path = tmp_path / "run"
    assert await measured(path, is_combined, "a") == [True] * 3
    with plan_of(is_combined, "b").open(path) as store:
        assert store.regraded == 3
        assert [(s.correct, s.chosen, s.text) for s in store.solves()] == [(True, None, "combined: 4 4")] * 3
    with plan_of(lambda p, c: c.text == "4", "c").open(path) as store:
        assert [s.correct for s in store.solves()] == [False] * 3
        assert all(c.correct for rows in store.candidates().values() for c in rows)


def made_by_version(version: int, path: Path) -> None:
    with sqlite3.connect(path) as db:
        for column in ("confidence", "abstained", *(["text"] if version == 1 else [])):
            db.execute(f"ALTER TABLE solves DROP COLUMN {column}")
        db.execute(f"UPDATE about SET value = '{version}' WHERE key = 'version'")
    db.close()


async def test_a_file_of_an_earlier_release_is_read_and_gone_on_with(tmp_path: Path) -> None:
    path, short = tmp_path / "run", plan_of(is_combined, "a")
    await measured(path, is_combined, "a")
    made_by_version(1, path)
    with Store.read(path) as store:
        assert [(s.correct, s.text) for s in store.solves()] == [(True, None)] * 3
    with pytest.raises(ConfigurationError, match=r"problem 'p0', own, seed 0: .* its text was not kept"):
        plan_of(is_combined, "b").open(path)
    with short.open(path) as store:
        assert [s.correct for s in store.solves()] == [True] * 3, "the refused grade has changed nothing"
    with sqlite3.connect(path) as db:
        assert json.loads(db.execute("SELECT value FROM about WHERE key = 'version'").fetchone()[0]) == 3
    db.close()
    with plan_of(None, "answer").open(path) as store:  # it reads answers, and they were kept
        assert store.regraded == 3 and [s.correct for s in store.solves()] == [True] * 3


async def test_a_file_of_version_2_is_read_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run"
    await measured(path, is_combined, "a")
    made_by_version(2, path)
    with Store.read(path) as store:
        assert [(s.text, s.confidence, s.abstained) for s in store.solves()] == [("combined: 4 4", None, False)] * 3
    with plan_of(is_combined, "b").open(path) as store:
        assert [(s.correct, s.abstained) for s in store.solves()] == [(True, False)] * 3


async def test_a_grade_without_a_name_grades_anew_each_time(tmp_path: Path) -> None:
    """Regression: old solves kept the grade of one function, and new ones had that of another."""
    path, votes = tmp_path / "run", {"strategies": {"votes": SelfConsistency(n=2)}}
    assert await measured(path, lambda p, c: True, **votes) == [True] * 3
    assert await measured(path, lambda p, c: False, **votes) == [False] * 3
    model = ScriptedModel(["5"])
    assert await measured(path, None, model=model, **votes) == [True] * 3
    with plan_of(None, **votes).open(path) as store:
        assert store.regraded == 0, "nothing has changed"
    plan = plan_of(is_combined, "named", **votes)
    for regraded in (3, 0):
        with plan.open(path) as store:
            assert store.regraded == regraded


async def later(problem: Problem, candidate: Candidate) -> bool:
    return True


NO_GRADES = [later, *(lambda p, c, found=found: found for found in ("no", 2, 0.5, [True], math.nan))]


@pytest.mark.parametrize("grade", NO_GRADES)
async def test_what_is_no_grade_is_refused_when_it_is_given_and_when_it_is_given_again(
    tmp_path: Path, grade: Any
) -> None:
    """Regression: a list was an error of SQLite's, NaN "not graded", and the word "no" would have been true."""
    said = r"grade: problem 'p0': (.* is not a grade; return True, False, or None|the function is async)"
    with pytest.raises(DataError, match=said):
        await measured(tmp_path / "new", grade, "a")
    path = tmp_path / "run"
    await measured(path, is_combined, "a")
    with pytest.raises(DataError, match=said):
        plan_of(grade, "b").open(path)
    with plan_of(is_combined, "a").open(path) as store:
        assert [s.correct for s in store.solves()] == [True] * 3


async def test_numpy_s_truth_is_a_grade(tmp_path: Path) -> None:
    assert await measured(tmp_path / "run", lambda p, c: np.equal(1, 1)) == [True] * 3
    for i, zero in enumerate((0, 0.0, np.float32(0), np.int64(0))):
        assert await measured(tmp_path / f"run{i}", lambda p, c, zero=zero: zero) == [False] * 3
