"""`tts-plugins batch` here: each problem once, whatever ends it; what is wrong with a file is said before it costs."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import Budget, Problem, SelfConsistency
from tts_plugins.batch import BatchWork, Journal, read_rows, run_batch
from tts_plugins.batch.rows import write_rows
from tts_plugins.cli import main
from tts_plugins.distributed.local_account import local_account
from tts_plugins.engine import LocalEngine
from tts_plugins.errors import DataError, JobFailed, RequestRefused, ServerFailed, TTSError
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.testing.scripted import ScriptedModel

Said = Callable[..., tuple[int, str, str]]


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{i}", "prompt": f"What is {i} + 1?", "level": i % 3} for i in range(count)]


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(tmp_path)
    Path("tts-plugins.toml").write_text(
        '[profiles.careful]\nstrategy = { type = "self-consistency", n = 2 }\nseed = 3\n'
        '[profiles.other]\nstrategy = { type = "self-consistency", n = 3 }\n'
    )
    lines(Path("in.jsonl"), questions(12))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def server() -> Any:
    with LoopbackServer() as made:
        yield made


def asked(server: LoopbackServer, *more: str, out: str = "out.jsonl", profile: str = "careful") -> list[str]:
    return ["batch", "in.jsonl", out, "--profile", profile, "--model", "loopback", "--base-url", server.base_url,
            "--max-tokens", "32", *more]  # fmt: skip


def test_each_problem_is_solved_once_and_in_order(said: Said, server: LoopbackServer) -> None:
    code, out, err = said(*asked(server, "--json", "--candidates"))
    assert code == 0, err
    assert json.loads(out) == {"rows": 12, "solved": 12, "failed": 0, "fresh": 12, "complete": True, "out": "out.jsonl"}
    rows = written(Path("out.jsonl"))
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(12)]
    assert all(row["calls"] == 2 and row["text"] and row["error"] is None for row in rows)
    assert all(len(row["candidates"]) == 2 for row in rows)
    sent = server.counts.choices
    assert sent == 24
    code, out, err = said(*asked(server, "--json", "--candidates"))
    assert (code, json.loads(out)["fresh"], server.counts.choices) == (0, 0, sent), err
    lines(Path("in.jsonl"), questions(14))
    code, out, err = said(*asked(server, "--json", "--candidates"))
    assert (code, json.loads(out)["fresh"], server.counts.choices) == (0, 2, sent + 4), err
    assert len(written(Path("out.jsonl"))) == 14


def test_a_budget_of_all_is_remembered_and_a_larger_one_goes_on(said: Said, server: LoopbackServer) -> None:
    code, _, err = said(*asked(server, "--budget-calls", "9", "--concurrency", "2"))
    assert code == 3 and "the same command with a larger one goes on" in err
    rows = written(Path("out.jsonl"))
    assert 3 <= len(rows) <= 4 and server.counts.choices <= 9
    code, _, err = said(*asked(server, "--budget-calls", "9"))
    assert code == 3 and server.counts.choices <= 9
    code, _, err = said(*asked(server, "--budget-calls", "40"))
    assert code == 0, err
    assert len(written(Path("out.jsonl"))) == 12 and server.counts.choices <= 40


def test_what_is_under_way_when_the_budget_ends_is_kept(said: Said) -> None:
    """Regression: the first row that found no room cancelled all others, whose calls were paid."""
    with Path("tts-plugins.toml").open("a") as file:
        file.write('[profiles.single]\nstrategy = { type = "self-consistency", n = 1 }\n')
    with LoopbackServer(reply="4", latency=0.3) as server:
        code, out, _ = said(*asked(server, "--budget-calls", "6", "--concurrency", "8", "--json", profile="single"))
        sent = server.counts.choices
    assert code == 3 and sent == len(written(Path("out.jsonl"))) == 6
    assert json.loads(out) == {"rows": 12, "solved": 6, "failed": 0, "fresh": 6, "complete": False, "out": "out.jsonl"}


def test_other_settings_are_refused(said: Said, server: LoopbackServer) -> None:
    assert said(*asked(server))[0] == 0
    code, _, err = said(*asked(server, profile="other"))
    assert code == 2 and "profile was" in err and "another output" in err


def test_the_problems_are_not_overwritten_and_results_of_others_are_told(said: Said, server: LoopbackServer) -> None:
    before = Path("in.jsonl").read_text()
    Path("link.jsonl").symlink_to("in.jsonl")
    for out in ("in.jsonl", "link.jsonl"):
        code, _, err = said(*asked(server, out=out))
        assert code == 2 and "is the file of the problems" in err
    assert Path("in.jsonl").read_text() == before and not server.counts.choices
    assert said(*asked(server))[0] == 0
    lines(Path("in.jsonl"), [{"id": "new", "prompt": "What else?"}])
    code, _, err = said(*asked(server))
    assert code == 0 and "12 results are of problems that are not in this input" in err


def test_a_file_that_is_none_of_its_results_is_not_replaced(said: Said, server: LoopbackServer) -> None:
    Path("out.jsonl").write_text("mine\n")
    code, _, err = said(*asked(server))
    assert code == 2 and "OUT out.jsonl exists, and out.jsonl.journal, from which it would be made, does not" in err
    assert Path("out.jsonl").read_text() == "mine\n" and not server.counts.choices
    Path("out.jsonl").write_text("")
    assert said(*asked(server))[0] == 0


def test_no_login_of_an_address_is_kept(said: Said, server: LoopbackServer) -> None:
    address = server.base_url.replace("://", "://me:sk-secret-secret@")
    common = ["--model", "m", "--base-url", address, "--max-tokens", "9"]
    assert said("batch", "in.jsonl", "out.jsonl", "--profile", "careful", *common)[0] == 0
    lines(Path("graded.jsonl"), [{"id": "q1", "prompt": "What?", "answer": "4"}])
    assert said("bench", "--problems", "graded.jsonl", "--strategy", "self-consistency:n=1", *common)[0] == 0
    assert said("record", "graded.jsonl", "--n", "1", "--out", "pool.jsonl", *common)[0] == 0
    made = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert {"out.jsonl.journal", "bench.sqlite", "pool.jsonl"} <= made.keys()
    assert [name for name, content in made.items() if b"sk-secret" in content] == []
    assert server.base_url.encode() in made["out.jsonl.journal"]


def test_half_a_character_in_an_error_is_written_to_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"id": "a", "error": "said \ud800", "candidates": [{"text": "\udc00"}]}
    assert write_rows(tmp_path / "out.parquet", [row]) == 1
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist()[0]["error"] == "said \ufffd"


def test_parquet_in_and_out(said: Said, server: LoopbackServer) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(questions(5)), "in.parquet")
    arguments = asked(server, "--candidates", out="out.parquet")
    arguments[1] = "in.parquet"
    code, _, err = said(*arguments)
    assert code == 0, err
    rows = parquet.read_table("out.parquet").to_pylist()
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(5)]
    assert rows[0]["calls"] == 2 and len(json.loads(rows[0]["candidates"])) == 2
    Path("torn.parquet").write_bytes(Path("in.parquet").read_bytes()[:100])
    arguments[1] = "torn.parquet"
    code, _, err = said(*arguments)
    assert code == 6 and "torn.parquet: the file cannot be read as Parquet" in err


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_an_answer_that_is_withheld_says_why(said: Said, out: str) -> None:
    with Path("tts-plugins.toml").open("a") as file:
        file.write('[profiles.unsure]\nstrategy = { type = "self-consistency", n = 2 }\nabstain_below = 0.9\n')
    with LoopbackServer(reply=lambda body, index: f"answer: {index}", indexing="arrival") as server:
        code, _, err = said(*asked(server, "--limit", "1", profile="unsure", out=out))
    assert code == 0, err
    if out.endswith("parquet"):
        (row,) = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    else:
        (row,) = written(Path(out))
    assert (row["text"], row["answer"], row["confidence"], row["agreement"]) == ("", None, 0.5, 0.5)
    assert row["abstained"].startswith("the confidence is 0.50, below 0.9; a tie")


def test_names_that_say_nothing_are_refused(said: Said, server: LoopbackServer) -> None:
    code, _, err = said(*asked(server, out="out.csv"))
    assert code == 2 and "OUT out.csv: its name must end in .jsonl" in err
    assert said("batch", "none.jsonl", "o.jsonl", "--profile", "careful")[0] == 6


# Files that are wrong -------------------------------------------------------------------------------------------------

GOOD = {"id": "a", "prompt": "What?", "level": 1}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"prompt": "What?", "level": 1}, "line 2, id: a field that this row lacks"),
        ({"id": "a", "prompt": "More?", "level": 1}, "line 2, id: 'a' occurs twice"),
        ({"id": "", "prompt": "What?", "level": 1}, "line 2, id: '' is neither"),
        ({"id": True, "prompt": "What?", "level": 1}, "line 2, id: True is neither"),
        ({"id": 7, "prompt": "What?", "level": 1}, "line 2, id: 7 is of another type"),
        ({"id": "\ud800", "prompt": "What?", "level": 1}, "half a character"),
        ({"id": "b", "prompt": "What?"}, "line 2, level: a field that this row lacks"),
        ({"id": "b", "prompt": "What?", "level": 1, "more": 2}, "line 2, more: a field that this row has"),
        ({"id": "b", "messages": [], "level": 1}, "line 2, messages: a field that this row has"),
        ({"id": "b", "prompt": "", "level": 1}, 'line 2, prompt: give either "prompt"'),
        ({"id": "b", "prompt": ["x"], "level": 1}, "line 2, prompt: ['x'] must be a text"),
        ([1], "line 2: list, but an object is needed"),
    ],
)
def test_a_wrong_row_is_named_before_anything_is_paid(tmp_path: Path, second: Any, words: str) -> None:
    path = lines(tmp_path / "in.jsonl", [GOOD, second])
    with Journal(tmp_path / "j", {}) as journal, pytest.raises(DataError) as caught:
        journal.register(read_rows(path))
    assert words in str(caught.value) and "in.jsonl" in str(caught.value)


def test_no_id_at_all_and_broken_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1, id: is missing; give each row an id"):
        list(read_rows(lines(tmp_path / "a.jsonl", [{"prompt": "x"}])))
    (tmp_path / "b.jsonl").write_text('{"id": 1, "prompt": "x"}\n{"id": 2, "pro')
    with pytest.raises(DataError, match=r"b.jsonl, line 2: not JSON"):
        list(read_rows(tmp_path / "b.jsonl"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 50)[:-9])
    with pytest.raises(DataError, match=r"c.jsonl.gz: the file cannot be read"):
        list(read_rows(tmp_path / "c.jsonl.gz"))


def test_an_id_that_was_another_problem_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", {}) as journal:
        journal.register(read_rows(lines(tmp_path / "in.jsonl", [GOOD])))
        with pytest.raises(DataError, match="'a' was another problem"):
            journal.register(read_rows(lines(tmp_path / "in.jsonl", [{**GOOD, "prompt": "Else?"}])))


def test_a_result_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")

    def rows() -> Any:
        yield {"id": "a"}
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_rows(path, rows())
    assert path.read_text() == "before\n" and os.listdir(tmp_path) == ["out.jsonl"]


# The runner -----------------------------------------------------------------------------------------------------------


async def batched(tmp_path: Path, model: Any, count: int = 10, **more: Any) -> Any:
    path = lines(tmp_path / "in.jsonl", questions(count))
    work = BatchWork({"model": model, "strategy": SelfConsistency(n=2)})
    with Journal(tmp_path / "j", {}) as journal:
        journal.register(read_rows(path))
        report = await run_batch(read_rows(path), journal, work, engine=LocalEngine(4), **more)
        return report, list(journal.results())


async def test_a_problem_that_fails_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    def refuse(problem: Problem, number: int) -> Any:
        return RequestRefused("too long") if problem.id == "q3" else "4"

    report, rows = await batched(tmp_path, ScriptedModel(refuse))
    assert (report.solved, report.failed, report.complete) == (9, 1, True)
    assert "too long" in rows[3]["error"]
    model = ScriptedModel(["4"])
    report, rows = await batched(tmp_path, model)
    assert (report.solved, report.failed, report.fresh) == (10, 0, 1) and len(model.requests) == 2


async def test_a_job_whose_workers_die_is_a_row_that_failed(tmp_path: Path) -> None:
    class Deadly:
        async def run(self, jobs: Any, work: Any, *, ledger: Any = None) -> Any:
            handle = work(ledger)
            for number, row in enumerate(jobs):
                yield number, JobFailed("4 workers died") if row.id == "q1" else await handle(row)

    path = lines(tmp_path / "in.jsonl", questions(3))
    with Journal(tmp_path / "j", {}) as journal:
        journal.register(read_rows(path))
        work = BatchWork({"model": ScriptedModel(["4"]), "strategy": SelfConsistency(n=2)})
        report = await run_batch(read_rows(path), journal, work, engine=Deadly())
        assert (report.solved, report.failed, report.complete) == (2, 1, True)
        assert [row["error"] for row in journal.results()] == [None, "JobFailed: 4 workers died", None]


async def test_a_server_that_is_down_ends_it_and_keeps_what_there_is(tmp_path: Path) -> None:
    model = ScriptedModel(lambda p, n: ServerFailed("down") if p.id == "q6" else "4", latency=0.001)
    path = lines(tmp_path / "in.jsonl", questions(10))
    work = BatchWork({"model": model, "strategy": SelfConsistency(n=1), "attempts": 1})
    with Journal(tmp_path / "j", {}) as journal:
        journal.register(read_rows(path))
        with pytest.raises(TTSError, match="down"):
            await run_batch(read_rows(path), journal, work, engine=LocalEngine(1))
        assert journal.counts() == (6, 0)


async def test_the_limit_of_one_problem_is_not_that_of_all(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", questions(6))
    work = BatchWork({"model": ScriptedModel(["4"]), "strategy": SelfConsistency(n=5), "budget": Budget(calls=2)})
    with Journal(tmp_path / "j", {}) as journal:
        journal.register(read_rows(path))
        async with local_account(Budget(calls=7), tmp_path / "account") as ledger:
            report = await run_batch(read_rows(path), journal, work, engine=LocalEngine(1), ledger=ledger)
        rows = list(journal.results())
    assert not report.complete
    assert [row["calls"] for row in rows] == [2, 2, 2] and {row["stopped"] for row in rows} == {"budget"}


async def test_a_full_disk_says_where_and_what_to_do(tmp_path: Path) -> None:
    path = lines(tmp_path / "in.jsonl", questions(40))
    work = BatchWork({"model": ScriptedModel(["4" * 2000]), "strategy": SelfConsistency(n=1)})
    with Journal(tmp_path / "j", {}) as journal:
        journal.register(read_rows(path))
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 3}")
        with pytest.raises(DataError, match=r"j: the disk is full .*make room and run the same command again"):
            await run_batch(read_rows(path), journal, work, engine=LocalEngine(4))
        journal._db.execute("PRAGMA max_page_count = 100000")
        report = await run_batch(read_rows(path), journal, work, engine=LocalEngine(4))
    assert report.complete and report.solved == 40


KILLED = """
import asyncio, sys
from pathlib import Path
from tts_plugins import BestOfN, Budget
from tts_plugins.batch import BatchWork, Journal, read_rows, run_batch
from tts_plugins.distributed.local_account import local_account
from tts_plugins.engine import LocalEngine
from tts_plugins.testing.scripted import ScriptedModel

folder = Path(sys.argv[1])
calls = (folder / "calls").open("a", buffering=1)
acknowledged = (folder / "acknowledged").open("a", buffering=1)

def tell(problem, number):
    calls.write(problem.id + "\\n")
    return "4"

def seen(row):
    acknowledged.write(row["id"] + "\\n")
    if sys.argv[2] == "tell":
        print(row["id"], flush=True)

async def main():
    path = folder / "in.jsonl"
    model = ScriptedModel(tell, latency=0.01)
    work = BatchWork({"model": model, "strategy": BestOfN(n=2), "verifier": lambda p, c: 1.0})
    with Journal(folder / "j", {}) as journal:
        journal.register(read_rows(path))
        async with local_account(Budget(calls=10000), folder / "account") as ledger:
            engine = LocalEngine(8)
            report = await run_batch(read_rows(path), journal, work, engine=engine, ledger=ledger, on_result=seen)
        print("spent", report.solved, flush=True)

asyncio.run(main())
"""


def test_kill_9_loses_and_repeats_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    lines(tmp_path / "in.jsonl", questions(400))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), "tell"], stdout=subprocess.PIPE, text=True
        )

    process = start()
    assert process.stdout is not None
    for _ in range(60):
        assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = (tmp_path / "acknowledged").read_text().split()
    before = (tmp_path / "calls").read_text().split()
    with sqlite3.connect(tmp_path / "j") as db:
        kept = {name for (name,) in db.execute("SELECT id FROM results")}
    db.close()
    assert set(first) <= kept
    process = start()
    out, _ = process.communicate(timeout=300)
    assert "spent 400" in out
    after = (tmp_path / "calls").read_text().split()[len(before) :]
    assert not kept & set(after), "an acknowledged problem was asked again"
    spent = sqlite3.connect(tmp_path / "account")
    total = json.loads(spent.execute("SELECT amount FROM settled").fetchone()[0])[0]
    spent.close()
    assert total >= len(before) + len(after), "what was in flight at the kill is charged"
    assert total <= len(before) + len(after) + 8 * 2 * 2
