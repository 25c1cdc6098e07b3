"""The edge's benchmark: every way on scripted models, what it keeps and goes on with, its table, and bad files."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import edge
from benchmarks._edge.arms import ARMS, PassOrGiveUp
from benchmarks._edge.questions import read_questions
from benchmarks._edge.table import show
from tts_plugins import Problem, Scored
from tts_plugins.errors import ConfigurationError, DataError, ServerFailed
from tts_plugins.testing.scripted import ScriptedReviseModel

TEXT = "Please get 3 wall clocks to Nikolai Baranov in Riga before 12 February 2027. Docket WA-4306."
RECORD = {"name": "Nikolai Baranov", "item": "wall clocks", "quantity": 3}
WRONG = json.dumps({**RECORD, "quantity": 12})


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    lines = [{"id": f"p{i}", "text": TEXT, "record": RECORD, "level": "easy"} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def stage() -> edge.Stage:
    def model(name: str, *said: str) -> Any:
        return ScriptedReviseModel(said, lambda p, h, n: WRONG, name=name)

    right = json.dumps(RECORD)
    models: Any = {
        ("small", True): model("small", WRONG), ("small", False): model("small", WRONG, WRONG, right),
        ("large", True): model("large", right), ("large", False): model("large", right),
    }  # fmt: skip
    return edge.Stage(models=models, parameters={"small": 1e6, "large": 4e6})


async def test_every_way_runs_and_counts_both_models(problems: Path) -> None:
    (question, *_) = read_questions(problems)
    found = {arm.name: await edge._solved(question, arm, stage(), 0) for arm in ARMS}
    assert found["large, greedy"].right and found["large, greedy"].flops == 2 * 4e6 * 15
    assert not found["small, greedy"].right and found["small, greedy"].tokens == {"small": 15}
    first = found["small, first of 16"]
    assert first.right and first.passed and first.calls >= 3
    both = found["small, greedy, then first of 15"]
    assert both.right and set(both.tokens) == {"small"} and both.calls >= 4
    assert not found["small, revises up to 4 times"].right
    handed = await edge._solved(question, ARMS[-1], _failing(), 0)
    assert handed.right and handed.tokens["large"] == 15 and handed.flops > 2 * 4e6 * 15
    assert all(line.error == "" for line in found.values())


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.checked], ids=lambda arm: arm.name)
async def test_where_nothing_can_be_checked_samples_vote_also_for_greedy_ways(problems: Path, arm: Any) -> None:
    question = replace(read_questions(problems)[0], checkable=False, verifier=None)
    made = stage()
    right = ScriptedReviseModel([json.dumps(RECORD)], lambda p, h, n: WRONG, name="small")
    found = await edge._solved(question, arm, replace(made, models={**made.models, ("small", False): right}), 0)
    assert found.right and found.calls == 4 and set(found.tokens) == {"small"}


async def test_a_solve_that_fails_is_not_free(problems: Path) -> None:
    (question, *_) = read_questions(problems)
    made = stage()
    models: Any = {
        **made.models,
        ("large", True): ScriptedReviseModel([ServerFailed("down")], lambda *_: "", name="large"),
    }
    found = await edge._solved(question, ARMS[0], edge.Stage(models=models, parameters=made.parameters), 0)
    assert "down" in found.error and not found.right
    assert found.calls >= 1 and found.tokens["large"] > 0 and found.flops == 2 * 4e6 * found.tokens["large"]


def test_two_models_of_one_name_are_refused(problems: Path, tmp_path: Path, capsys: Any) -> None:
    given = ["--small", "embedded", "--large", "embedded", "--problems", str(problems)]
    assert edge.main([*given, "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "go by one name" in capsys.readouterr().err


def _failing() -> edge.Stage:
    made = stage()
    models: Any = dict(made.models)
    models["small", False] = ScriptedReviseModel([WRONG], lambda p, h, n: WRONG, name="small")
    return edge.Stage(models=models, parameters=made.parameters)


def test_giving_up() -> None:
    def seen(*scores: float) -> list[Scored]:
        return [Scored(Problem("?"), text="x", finished=True, score=s) for s in scores]

    rule = PassOrGiveUp(patience=2)
    assert rule(seen(0.5, 1.0), 9) and not rule(seen(0.5, 0.5), 9)
    assert rule(seen(0.5, 0.5, 0.5), 9) and not rule(seen(0.5, 0.5, 0.75), 9)


async def test_it_goes_on_where_it_was_and_refuses_other_settings(tmp_path: Path, problems: Path) -> None:
    out, settings = tmp_path / "edge.jsonl", {"small": "a", "large": "b", "seed": 0}
    assert edge._read(out, settings) == []
    line = await edge._solved(read_questions(problems)[0], ARMS[0], stage(), 0)
    edge._append(out, asdict(line))
    with out.open("a") as file:
        file.write('{"problem": "p1", "ar')  # killed while it wrote
    assert edge._read(out, settings) == [line]
    edge._append(out, asdict(line))
    assert edge._read(out, settings) == [line, line]
    with pytest.raises(ConfigurationError, match="begun with other settings \\(seed\\)"):
        edge._read(out, {**settings, "seed": 1})
    (tmp_path / "other").write_text("{}")
    with pytest.raises(ConfigurationError, match="not a file of this benchmark"):
        edge._read(tmp_path / "other", settings)
    assert edge.main(["--small", "a", "--large", "b", "--problems", str(problems), "--out", str(tmp_path / "none"),
                      "--table"]) == 2  # fmt: skip


async def test_the_table_is_over_problems_that_every_way_has_solved(problems: Path, capsys: Any) -> None:
    questions = read_questions(problems)
    lines = [asdict(await edge._solved(q, arm, stage(), 0)) for q in questions[:2] for arm in ARMS]
    lines.append(asdict(await edge._solved(questions[2], ARMS[0], stage(), 0)))
    show(lines)
    said = capsys.readouterr().out
    assert said.startswith("2 problems") and all(arm.name in said for arm in ARMS)
    show([])
    assert "no problem has been solved in every way" in capsys.readouterr().out


def test_bad_problems_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    for content, said in (("", "no problems"), ("{}", "line 1: KeyError"), ("junk", "line 1: JSONDecodeError")):
        path.write_text(content)
        with pytest.raises(DataError, match=said):
            read_questions(path)
    with pytest.raises(DataError, match="no such file"):
        read_questions(tmp_path / "none")


async def test_code_is_checked_by_examples_and_graded_by_hidden_tests(tmp_path: Path) -> None:
    prompt = 'def double(x):\n    """Twice x.\n    >>> double(2)\n    4\n    """\n'
    given = {"task_id": "c", "prompt": prompt, "entry_point": "double",
             "test": "def check(f):\n    assert f(2) == 4\n    assert f(3) == 6"}  # fmt: skip
    path = tmp_path / "code.jsonl"
    path.write_text(json.dumps(given))
    (question,) = read_questions(path)
    half, whole = "```python\ndef double(x):\n    return 4\n```", "```python\ndef double(x):\n    return 2 * x\n```"
    try:
        assert await question.passes(half) and not await question.right(half)
    except ConfigurationError as error:
        pytest.skip(f"no sandbox here: {error}")
    assert await question.passes(whole) and await question.right(whole)
