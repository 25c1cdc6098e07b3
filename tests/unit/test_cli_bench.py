"""`record`, `bench` and `report` as a user meets them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("aiohttp")

from tts_plugins.bench.storage.store import Store
from tts_plugins.cli import main
from tts_plugins.policies import ComputeOptimal
from tts_plugins.pools import Pool
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.testing.synthetic import synthetic_pool

ROOT = Path(__file__).parents[2]
CHECK = """
def check(problem, candidate):
    return float(candidate.text.endswith("4."))

def grade(problem, candidate):
    return candidate.answer == problem.metadata["answer"]
"""


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=["The answer is 4.", "The answer is 5."]) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    lines = [json.dumps({"id": f"p{i}", "prompt": f"{i} + {4 - i}?", "answer": 4}) for i in range(3)]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines))
    (tmp_path / "checks.py").write_text(CHECK)
    synthetic_pool(6, 8).write(tmp_path / "pool.gz")
    return tmp_path


@pytest.fixture
def said(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def live(server: LoopbackServer) -> list[str]:
    return ["--model", "loopback", "--base-url", server.base_url, "--max-tokens", "32"]


def test_the_pool_in_examples_is_benched_without_anything_else(said: Any) -> None:
    pool = str(ROOT / "examples" / "orders_pool.jsonl.gz")
    code, out, err = said("bench", "--pool", pool, "--verifier", "recorded", "--seeds", "1", "--html", "r.html",
                          "--strategy", "self-consistency:n=1", "--strategy", "best-of-n:n=16")  # fmt: skip
    assert code == 0, err
    assert "best-of-n:n=16" in out and "★" in out and "written: r.html" in err and "written: bench.sqlite" in err
    assert "Benchmark: SmolLM2-135M-Instruct" in Path("r.html").read_text()
    code, out, _ = said("report", "bench.sqlite", "--json")
    _, many = json.loads(out)["arms"]
    # A verifier that sees the message only makes more right than one answer, on this pool as it was recorded.
    assert code == 0 and many["over_the_first"]["low"] > 0
    assert said("report", "bench.sqlite", "--svg", "r.svg", "--quiet") == (0, "", "")
    assert Path("r.svg").read_text().startswith("<svg")


def test_a_live_benchmark_goes_on_and_asks_for_nothing_again(said: Any, server: LoopbackServer) -> None:
    asked = ["bench", "--problems", "problems.jsonl", *live(server), "--strategy", "self-consistency:n=3", "--out", "r"]
    assert said(*asked, "--budget-calls", "5")[0] == 3
    assert 0 < server.counts.choices <= 5
    code, out, err = said(*asked, "--json")
    assert code == 0, err
    assert server.counts.choices == 9 and json.loads(out)["arms"][0]["calls"]["value"] == 3
    assert said(*asked, "--quiet")[0] == 0 and server.counts.choices == 9
    code, _, err = said(*asked, "--temperature", "0.5")
    assert code == 2 and "sampling.temperature was null and is 0.5" in err
    (Path("checks.py")).write_text(CHECK)
    code, _, err = said(*asked, "--grade", "python:checks.py:grade")
    assert code == 0 and "3 solves are graded again" in err and server.counts.choices == 9


def test_a_configuration_file(said: Any, server: LoopbackServer) -> None:
    Path("bench.toml").write_text(
        f"""
        problems = "problems.jsonl"
        verifier = "python:checks.py:check"
        grade = "python:checks.py:grade"
        seeds = 2
        model = {{ name = "loopback", base_url = "{server.base_url}", max_tokens = 32 }}
        [strategies.few]
        type = "best-of-n"
        n = 2
        stop = {{ type = "threshold", score = 1.0 }}
        [budgets]
        small = {{ calls = 1 }}
        all = "none"
        """
    )
    code, out, err = said("bench", "bench.toml", "--limit", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [a["name"] for a in found["arms"]] == ["few @ small", "few @ all"]
    assert (found["done"], found["config"]["arms"]["few @ small"]["budget"]) == (8, {"calls": 1})
    Path("bench.json").write_text(json.dumps({"problem": "x"}))
    code, _, err = said("bench", "bench.json")
    assert code == 2 and "bench.json: unknown key 'problem'; the keys are" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give either --problems FILE, or --pool FILE"),
        (["--pool", "pool.gz", "--model", "m"], "name is of a model, and a pool takes its place"),
        (["--pool", "pool.gz", "--strategy", "best-of-n:n=4"], "needs a --verifier"),
        (["--pool", "pool.gz", "--strategy", "nothing:n=4"], "--strategy nothing is not known"),
        (["--pool", "pool.gz", "--strategy", "self-consistency:n"], "write FIELD=VALUE"),
        (["--pool", "pool.gz", "--strategy", "self-consistency:m=4"], "has no setting 'm'"),
        (["--pool", "pool.gz", "--strategy", "profile:none"], "profile='none' is not known"),
        (["--pool", "pool.gz", "--budget", "cents=4"], "unknown limit 'cents'"),
        (["--pool", "pool.gz", "--grade", "luck"], "--grade luck is not known"),
        (["--pool", "pool.gz", "--verifier", "recorded:median"], "'median'"),
        (["--pool", "pool.gz", "--larger", "pool.gz"], "--larger FILE and --larger-params N belong together"),
        (["--pool", "pool.gz", "--params", "-1"], "--params -1 must be above 0"),
        (["--pool", "pool.gz", "--verifier-params", "1"], "need --params N"),
        (["nothing.toml"], "nothing.toml cannot be read"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(said: Any, options: list[str], words: str) -> None:
    code, out, err = said("bench", *options)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    assert not Path("bench.sqlite").exists()


def test_a_malformed_line_of_a_pool_is_named(said: Any) -> None:
    Path("pool.jsonl").write_text(
        '{"format": "tts-pool", "version": 1, "model": "m", "dataset": "d"}\n'
        '{"id": "a", "candidates": [{"answer": "1", "correct": true}, {"answer": "1", "correct": "yes"}]}\n'
    )
    code, _, err = said("bench", "--pool", "pool.jsonl")
    assert code == 6 and "pool.jsonl, line 2, candidates[1], correct: 'yes' must be true, false or null" in err


def test_a_recording_goes_on_after_its_budget_and_makes_a_pool(said: Any, server: LoopbackServer) -> None:
    asked = ["record", "problems.jsonl", "--out", "new.gz", "--n", "4", *live(server), "--concurrency", "1",
             "--verifier", "python:checks.py:check", "--licence", "CC0-1.0"]  # fmt: skip
    code, _, err = said(*asked, "--budget-calls", "5")
    assert code == 3 and "run the same command with a larger one" in err
    assert len(Pool.read("new.gz").problems) == 1
    assert server.counts.choices <= 5
    code, _, err = said(*asked)
    assert code == 0, err
    assert "new.gz: 3 problems, 12 samples; " in err and server.counts.choices == 12
    pool = Pool.read("new.gz")
    assert (pool.header.model, pool.header.licence, pool.header.verifier) == ("loopback", "CC0-1.0", "check")
    assert pool.fewest == 4 and pool.exact_tokens and all(p.prompt_tokens for p in pool.problems)
    for c in (c for p in pool.problems for c in p.candidates):
        assert c.tokens and c.score == float(c.answer == "4") == float(bool(c.correct))
    assert not list(Path().glob(".new.gz*"))
    code, _, err = said(*asked)
    assert code == 2 and "new.gz is there already, and complete" in err
    assert said("bench", "--pool", "new.gz", "--verifier", "recorded", "--strategy", "best-of-n:n=4", "-q")[0] == 0


def test_a_run_can_stand_beside_another(said: Any) -> None:
    for name, strategy in (("small", "self-consistency:n=8"), ("large", "self-consistency:n=1")):
        assert said("bench", "--pool", "pool.gz", "--strategy", strategy, "--seeds", "2", "--out", name, "-q")[0] == 0
    beside = ["report", "small", "--params", "1e9", "--larger-params", "9e9", "--larger"]
    code, out, err = said(*beside, "large")
    assert code == 0 and "Beside one answer of synthetic, at the same FLOPs" in out, err
    assert "FLOPs" not in said("report", "small")[1]
    code, out, err = said("report", "small", "--params", "1e9")
    assert code == 0 and "FLOPs" in out and re.search(r"\d\.\d\de\+1[0-9]", out), "parameters alone count too"
    code, _, err = said(*beside, "small")
    assert code == 2 and "no strategy there takes a single answer" in err
    assert said("report", "nowhere")[0] == 6
    with Store.read("small") as store:
        assert store.config["seeds"] == [0, 1]


NAN = "def check(problem, candidate):\n    return float('nan')\n"


def test_problems_without_an_answer_are_told_and_not_counted(said: Any, server: LoopbackServer) -> None:
    lines = [json.dumps({"id": f"p{i}", "prompt": "?", **({"answer": 4} if i < 2 else {})}) for i in range(5)]
    Path("some.jsonl").write_text("\n".join(lines))
    asked = ["bench", "--problems", "some.jsonl", *live(server), "--strategy", "self-consistency:n=2"]
    code, out, err = said(*asked)
    assert code == 0, err
    assert "3 of 5 problems have no answer and are not counted" in out
    code, out, _ = said(*asked, "--json")
    assert json.loads(out)["ungraded_problems"] == ["p2", "p3", "p4"]


def test_an_arm_that_failed_wholly_says_why(said: Any, server: LoopbackServer) -> None:
    Path("nan.py").write_text(NAN)
    asked = ["bench", "--problems", "problems.jsonl", *live(server), "--verifier", "python:nan.py:check",
             "--strategy", "best-of-n:n=2"]  # fmt: skip
    code, out, err = said(*asked)
    words = "best-of-n:n=2: 3 of 3 solves failed; the first: "
    assert code == 1 and err.count(words) == 1 and words not in out and "InvalidScore" in err
    assert "0.000" in out and "not graded" not in out and "★ best-of-n" not in out


def test_a_grade_that_raises_is_named_with_its_problem(said: Any, server: LoopbackServer) -> None:
    Path("grade.py").write_text("def g(problem, candidate):\n    return problem.metadata['gold'] == 4\n")
    code, _, err = said("bench", "--problems", "problems.jsonl", *live(server), "--strategy", "self-consistency:n=1",
                        "--grade", "python:grade.py:g", "--concurrency", "1")  # fmt: skip
    assert code == 6 and "--grade python:grade.py:g: problem 'p0': KeyError: 'gold'" in err
    assert "should not have happened" not in err


def test_a_mended_grade_grades_again_what_was_paid_for(said: Any, server: LoopbackServer) -> None:
    """Regression: the file was refused, and its replies with it."""

    def graded(wrong: str) -> str:
        return f"def g(problem, c):\n    return c.text.endswith('4.') if {wrong} else None\n"

    asked = ["bench", "--problems", "problems.jsonl", *live(server), "--strategy", "self-consistency:n=2", "--json",
             "--grade", "python:grade.py:g"]  # fmt: skip
    Path("grade.py").write_text(graded("False"))
    code, out, err = said(*asked)
    assert code == 0 and json.loads(out)["arms"][0]["accuracy"] is None, err
    paid = server.counts.requests
    Path("grade.py").write_text(graded("True"))
    code, out, err = said(*asked)
    assert code == 0 and "3 solves are graded again" in err
    arm = json.loads(out)["arms"][0]
    assert arm["accuracy"] is not None and arm["selections"]["one"] == 0.5 and server.counts.requests == paid
    with Store.read("bench.sqlite") as store:
        for s in store.solves():
            rows = store.candidates()[s.problem, s.arm, s.seed]
            assert sorted((c.text, c.correct) for c in rows) == [
                ("The answer is 4.", True),
                ("The answer is 5.", False),
            ]
            assert s.tokens > 0 and s.chosen is not None and s.correct is rows[s.chosen].correct
    code, _, err = said(*asked, "--temperature", "1")
    assert code == 2 and "another configuration" in err and server.counts.requests == paid


def test_a_grade_that_raised_is_mended_without_paying_twice(said: Any, server: LoopbackServer) -> None:
    asked = ["bench", "--problems", "problems.jsonl", *live(server), "--strategy", "self-consistency:n=2",
             "--grade", "python:grade.py:g", "--concurrency", "1"]  # fmt: skip
    Path("grade.py").write_text("def g(problem, candidate):\n    return candidate.text == problem.metadata['gold']\n")
    assert said(*asked)[0] == 6
    paid = server.counts.choices
    Path("grade.py").write_text("def g(problem, candidate):\n    return True\n")
    code, _, err = said(*asked)
    assert code == 0, err
    assert server.counts.choices == 6 and paid == 2, "the first problem's candidates were kept"


def test_answers_are_read_as_asked(said: Any, server: LoopbackServer) -> None:
    asked = ["bench", "--problems", "problems.jsonl", *live(server), "--strategy", "self-consistency:n=1"]
    code, _, err = said(*asked, "--answer", r"regex:answer (\w+)")
    assert code == 0, err
    with Store.read("bench.sqlite") as store:
        assert {s.answer for s in store.solves()} == {"is"}
    code, _, err = said(*asked, "--answer", "text")
    assert code == 2 and "another configuration" in err
    code, _, err = said(*asked, "--answer", "nothing", "--out", "other.sqlite")
    assert code == 2 and "--answer='nothing' is not known" in err
    code, _, err = said("record", "problems.jsonl", *live(server), "--n", "1", "--out", "new.gz", "--answer", "text")
    assert code == 0, err
    assert all("the answer is" in str(c.answer).casefold() for p in Pool.read("new.gz").problems for c in p.candidates)


def test_another_grade_on_a_pool_begins_again(said: Any) -> None:
    asked = ["bench", "--pool", "pool.gz", "--verifier", "recorded", "--strategy", "self-consistency:n=2", "--json"]
    first = json.loads(said(*asked)[1])["arms"][0]["accuracy"]["value"]
    Path("grade.py").write_text("def g(problem, candidate):\n    return False\n")
    code, out, err = said(*asked, "--grade", "python:grade.py:g")
    assert code == 0, err
    assert json.loads(out)["arms"][0]["accuracy"]["value"] == 0.0 < first


def test_a_policy_of_a_pool_without_scores_is_used_without_a_verifier(said: Any) -> None:
    pool = Pool.read("pool.gz")
    bare = (replace(p, candidates=tuple(replace(c, score=None, step_scores=()) for c in p.candidates))
            for p in pool.problems)  # fmt: skip
    replace(pool, problems=tuple(bare)).write("bare.gz")
    code, _, err = said("calibrate", "bare.gz", "--out", "bare.json", "--budgets", "4", "--orders", "2")
    assert code == 0, err
    line = next(line for line in err.splitlines() if line.startswith("measure it there: "))
    assert "--verifier" not in line
    code, out, err = said(*line.partition("tts-plugins ")[2].split(), "--json")
    assert code == 0, err
    assert json.loads(out)["arms"][0]["failed"] == 0


def test_one_problem_has_no_interval(said: Any) -> None:
    asked = ["bench", "--pool", "pool.gz", "--verifier", "recorded", "--limit"]
    assert "[" in said(*asked, "2", "--out", "two.sqlite")[1]
    code, out, err = said(*asked, "1", "--out", "one.sqlite")
    assert code == 0, err
    assert re.search(r"self-consistency +\d\.\d{3} +[+-]\d\.\d{3} +8\.0", out)
    assert "Without an interval: one problem was graded" in out


def test_figures_that_are_bounds_are_marked_as_on_the_page(said: Any) -> None:
    with LoopbackServer(reply="The answer is 4.", usage="missing") as server:
        code, out, err = said("bench", "--problems", "problems.jsonl", *live(server), "--strategy",
                              "self-consistency:n=2", "--params", "1e9", "--html", "r.html")  # fmt: skip
    assert code == 0, err
    marks = re.findall(r"≤[\d.,e+]*\d", out)
    assert len(marks) == 2 and "≤: the server did not count" in out
    text = Path("r.html").read_text()
    assert re.findall(r"≤[\d.,e+]*\d", text)[-2:] == marks and "≤: the server did not count" in text


def test_a_recording_names_the_option_that_has_changed(said: Any, server: LoopbackServer) -> None:
    asked = ["record", "problems.jsonl", "--out", "p.gz", *live(server)]
    assert said(*asked, "--n", "2", "--budget-calls", "2")[0] == 3
    code, _, err = said(*asked, "--n", "3")
    assert (
        code == 2
        and "holds a recording of another configuration: give another --out, or what it was started with; --n" in err
    )


def test_a_pool_under_the_wrong_problems_is_told(said: Any) -> None:
    pool = synthetic_pool(30, 8)
    pool.write("sound.gz")
    rows = [p.candidates for p in pool.problems]
    turned = zip(pool.problems, [*rows[1:], rows[0]], strict=True)
    replace(pool, problems=tuple(replace(p, candidates=c) for p, c in turned)).write("turned.gz")
    calibrate = ["calibrate", "--out", "policy.json", "--budgets", "4", "--orders", "2"]
    for command in (calibrate, ["bench", "--strategy", "self-consistency:n=2", "--seeds", "1", "--pool"]):
        assert "wrong problems" not in said(*command, "sound.gz")[2]
        code, _, err = said(*command, "turned.gz", *(["--out", "turned.sqlite"] if command != calibrate else []))
        assert code == 0 and "turned.gz: candidates seem to be stored under the wrong problems (misplaced)" in err


def test_a_calibrated_policy_is_used_from_its_file(said: Any) -> None:
    code, _, err = said("calibrate", "pool.gz", "--out", "policy.json", "--budgets", "4", "--orders", "2")
    assert code == 0, err
    line = next(line for line in err.splitlines() if line.startswith("measure it there: "))
    assert line.endswith("--verifier recorded:last --strategy compute-optimal:file=policy.json")
    code, out, err = said(*line.partition("tts-plugins ")[2].split(), "--strategy", "self-consistency:n=1")
    assert code == 0, err
    assert "compute-optimal:file" in out
    for strategy, ended, words in (("compute-optimal", 2, "needs the file"),
                                   ("compute-optimal:file=no", 6, "no: there is no such file"),
                                   ("compute-optimal:file=policy.json,m=2", 2, "no setting 'm'")):  # fmt: skip
        code, _, err = said("bench", "--pool", "pool.gz", "--verifier", "recorded", "--strategy", strategy)
        assert code == ended and words in err
    code, _, err = said("solve", "?", "--strategy", "compute-optimal:file=no")
    assert code == 6 and "no: there is no such file" in err


def test_a_policy_that_abstains_is_measured_by_what_it_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, policy, store = tmp_path / "pool.jsonl.gz", tmp_path / "policy.json", tmp_path / "run.sqlite"
    synthetic_pool(problems=160, candidates=8).write(pool)
    made = ["calibrate", str(pool), "--out", str(policy), "--budgets", "8", "--orders", "2", "--abstain-risk", "0.1"]
    assert main([*made, "--hold-out", "0"]) == 0
    capsys.readouterr()
    found = ComputeOptimal.from_file(policy).plans[0].abstain
    command = ["bench", "--pool", str(pool), "--verifier", "recorded:last", "--out", str(store), "--seeds", "1"]
    assert main([*command, "--strategy", f"compute-optimal:file={policy}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    with Store.read(store) as kept:
        solves = kept.solves()
    given = [s for s in solves if not s.abstained]
    assert found is not None and found.below is not None and 0 < len(given) < 160
    assert all(s.confidence is not None and s.confidence >= found.below for s in given)
    assert f"is sure enough to answer {len(given)} of 160 solves, " in shown
    assert main(["report", str(store), "--json"]) == 0
    (arm,) = json.loads(capsys.readouterr().out)["arms"]
    assert arm["answered"] == {"solves": len(given), "right": sum(bool(s.correct) for s in given)}
