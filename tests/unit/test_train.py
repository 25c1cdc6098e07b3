"""`tts-plugins rollouts` and `train-verifier`, as a user meets them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("aiohttp")

from tts_plugins.cli import main
from tts_plugins.pools import Pool
from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.verifiers import LearnedHead


def reply(body: dict[str, Any], index: int) -> Reply:
    """Two lines: a working, then the answer, which is right three times in four after the good working."""
    last = body["messages"][-1]
    rng = random.Random(f"{body.get('seed')} {index} {len(body['messages'])}")
    if last["role"] != "assistant":
        return Reply(rng.choice(["good way", "bad way"]))
    if "k7q2" in last["content"]:  # the question that finds out how this server continues a text
        return Reply(" five six seven eight")
    right = rng.random() < (0.75 if "good" in last["content"] else 0.1)
    return Reply(f"Answer: {7 if right else 9}")


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    lines = [{"id": f"p{i}", "prompt": f"What is 3 + 4, in round {i}?", "answer": "7"} for i in range(12)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


@pytest.fixture
def made(problems: Path, tmp_path: Path, capsys: Any) -> Path:
    out = tmp_path / "rollouts.jsonl"
    with LoopbackServer(reply=reply) as server:
        options = ["--model", "m", "--base-url", server.base_url, "--api-key-env", "KEY", "--steps", "line",
                   "--solutions", 6, "--rollouts", 2, "--temperature", 0.8, "--no-logprobs"]  # fmt: skip
        code = run("rollouts", problems, "--out", out, *options)
        assert code == 0, capsys.readouterr().err
        asked = server.counts.requests
        assert run("rollouts", problems, "--out", out, *options, "--json") == 0
        assert server.counts.requests == asked  # all is there
    said = json.loads(capsys.readouterr().out)
    assert said["problems"] == 12 and said["solutions"] > 50
    return out


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "-")


def test_from_problems_to_a_verifier(made: Path, tmp_path: Path, capsys: Any) -> None:
    pool = Pool.read(made)
    assert all(len(c.step_scores) == len(c.extra["steps"]) for p in pool.problems for c in p.candidates)
    out, page = tmp_path / "v.npz", tmp_path / "page.html"
    with LoopbackServer() as server:
        options = ["--embedding-model", "e", "--base-url", server.base_url, "--held-out", 0.4]
        assert run("train-verifier", made, "--out", out, *options, "--html", page) == 0
        text = capsys.readouterr().out
        assert run("train-verifier", made, "--out", out, *options, "--json") == 0
        said = json.loads(capsys.readouterr().out)
    assert "held out: 5 problems" in text and "AUC 0." in text and "predicted" in text
    assert said["embedding"] == "e" and said["held_out"]["problems"] == 5
    low, high = said["held_out"]["auc"][1:]
    assert 0 <= low <= said["held_out"]["auc"][0] <= high <= 1
    head = LearnedHead.load(out)
    assert head.embedding == "e" and not head.logprobs and head.about["problems"] == 7 and head.size == 8
    assert head.about["separator"] == "\n"
    assert "<svg" in page.read_text() and "AUC" in page.read_text()


def test_what_was_trained_is_a_verifier_of_solve(made: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "v.npz"
    with LoopbackServer(reply=["good way\nAnswer: 7", "bad way\nAnswer: 9"]) as server:
        there = ["--base-url", server.base_url, "--api-key-env", "KEY"]
        assert run("train-verifier", made, "--out", out, "--embedding-model", "e", *there) == 0
        capsys.readouterr()
        asked = ["solve", "What is 3 + 4?", "--model", "loopback", *there, "--n", 4, "--verifier", out, "--json"]
        assert run(*asked) == 0, capsys.readouterr().err
        said = json.loads(capsys.readouterr().out)
        embedded = [r for r in server.requests if r.path.endswith("/embeddings")][-1]
    assert 0 < said["score"] < 1
    assert embedded.body["model"] == "e" and len(embedded.body["input"]) == 2, "a text for each line"
    assert run("solve", "x", "--verifier", out) == 2
    assert "it was trained on vectors of 'e'; give --base-url" in capsys.readouterr().err
    assert run("solve", "x", "--verifier", tmp_path / "none.npz") == 6
    assert "no learned verifier" in capsys.readouterr().err


def test_few_problems_say_nothing(made: Path, tmp_path: Path, capsys: Any) -> None:
    options = ["--embedding-model", "e", "--held-out", 0.2]
    with LoopbackServer() as server:
        assert run("train-verifier", made, "--out", tmp_path / "v.npz", *options, "--base-url", server.base_url) == 0
    text = capsys.readouterr().out
    assert "held out: 2 problems" in text and "too few to say" in text and "AUC" not in text
    assert (tmp_path / "v.npz").exists()


def test_what_cannot_be_measured_is_trained_and_said(problems: Path, tmp_path: Path, capsys: Any) -> None:
    """Regression: nothing was written, after all had been embedded, because those held out were all right."""
    made, out, page, check = (tmp_path / name for name in ("r.jsonl", "v.npz", "page.html", "check.py"))
    held_out = [f"p{i}" for i in (2, 4, 5, 7, 9)]
    check.write_text(f"def right(problem, c):\n    return problem.id in {held_out} or '7' in c.text\n")
    with LoopbackServer(reply=reply) as server:
        there = ["--base-url", server.base_url, "--api-key-env", "KEY"]
        code = run("rollouts", problems, "--out", made, "--model", "m", *there, "--steps", "line", "--solutions", 6,
                   "--rollouts", 2, "--no-logprobs", "--check", f"python:{check}:right",
                   "--concurrency", 1)  # fmt: skip
        assert code == 0, capsys.readouterr().err
        asked = ["train-verifier", made, "--out", out, "--embedding-model", "e", *there, "--held-out", 0.4]
        assert run(*asked, "--html", page) == 0
        assert "5 problems, which cannot tell what it is worth: " in capsys.readouterr().out
        assert run(*asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["held_out"] is None
    assert LearnedHead.load(out).about["problems"] == 7
    assert "cannot tell" in page.read_text() and "<svg" not in page.read_text()


def test_what_was_left_out_is_said(problems: Path, tmp_path: Path, capsys: Any) -> None:
    def cut(body: dict[str, Any], index: int) -> Reply:
        said = reply(body, index)
        return said if "Answer" not in said.text or index % 2 else Reply("Answer: 7 " * 9)

    with LoopbackServer(reply=cut) as server:
        code = run("rollouts", problems, "--out", tmp_path / "r.jsonl", "--model", "m", "--base-url", server.base_url,
                   "--api-key-env", "KEY", "--steps", "line", "--solutions", 6, "--rollouts", 1, "--no-logprobs",
                   "--max-tokens", 6, "--limit", 2, "--json")  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    said = json.loads(out)
    assert said["problems"] == 2 and 0 < said["dropped"]["truncated"] <= 12 - said["solutions"]
    assert "cut at --max-tokens or --step-tokens" in err
    kept = Pool.read(tmp_path / "r.jsonl").problems
    assert sum(p.extra["dropped"]["truncated"] for p in kept if p.extra) == said["dropped"]["truncated"]


def test_a_check_of_ones_own(problems: Path, tmp_path: Path, capsys: Any) -> None:
    check = tmp_path / "check.py"
    check.write_text("def right(problem, candidate):\n    return '9' in candidate.text\n")
    with LoopbackServer(reply=reply) as server:
        code = run("rollouts", problems, "--out", tmp_path / "r.jsonl", "--model", "m", "--base-url", server.base_url,
                   "--api-key-env", "KEY", "--steps", "line", "--solutions", 3, "--rollouts", 1, "--no-logprobs",
                   "--check", f"python:{check}:right")  # fmt: skip
    assert code == 0, capsys.readouterr().err
    candidates = [c for p in Pool.read(tmp_path / "r.jsonl").problems for c in p.candidates]
    assert candidates and all(c.correct == ("9" in (c.text or "")) for c in candidates)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "there is no problem in it"),
        ("{", "line 1: not JSON"),
        ('{"id": "a"}', 'neither "prompt" nor "messages"'),
        ('{"id": "a", "prompt": "x"}', "answer: is missing"),
        ('{"id": "a", "messages": [{"role": "user"}, 5], "answer": 1}', "line 1: problem"),
    ],
)
def test_problems_that_are_none(text: str, says: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    assert run("rollouts", path, "--out", tmp_path / "r.jsonl", "--model", "m", "--base-url", "http://127.0.0.1:9") == 6
    assert says in capsys.readouterr().err and not (tmp_path / "r.jsonl").exists()


def test_wrong_options(problems: Path, tmp_path: Path, capsys: Any) -> None:
    out, absent = tmp_path / "o", tmp_path / "absent" / "o"
    for arguments in (
        ["rollouts", problems, "--out", out, "--steps", "word"],
        ["rollouts", problems, "--out", absent],
        ["rollouts", problems, "--out", out, "--check", "json-schema:x"],
        ["train-verifier", problems, "--out", out, "--held-out", "1"],
        ["train-verifier", problems, "--out", out, "--aggregate", "sum"],
        ["train-verifier", problems, "--out", absent],
    ):
        assert run(*arguments) == 2, arguments
        assert "tts-plugins: " in capsys.readouterr().err
    for path, says in (
        (problems, "is not a pool"),
        (tmp_path / "none", "there is no such file"),
        (tmp_path, "that is a folder"),
    ):
        assert run("train-verifier", path, "--out", out) == 6
        assert says in capsys.readouterr().err
    assert not out.exists()
