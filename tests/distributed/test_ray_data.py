"""`Solve` in a Ray Data pipeline, and the commands on Ray, with a driver that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import work
from tts_plugins import BestOfN, Budget, Problem
from tts_plugins.bench.storage.store import Store
from tts_plugins.cli import main
from tts_plugins.distributed import Factory, SharedBudget, Solve
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.pools import Pool
from tts_plugins.testing.loopback import LoopbackServer

pytestmark = pytest.mark.usefixtures("cluster")
LONG = 300  # seconds that a child process may take on a machine with much else to do


# Ray Data sets deprecated fields of its own while it reads its settings.
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_a_data_set_is_solved_within_one_budget() -> None:
    import ray

    shared = SharedBudget(Budget(calls=150), workers=1)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        found = (
            ray.data.from_items([{"prompt": f"q{i}", "id": i} for i in range(48)])
            .map_batches(
                Solve, batch_size=12, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.5,
                fn_constructor_kwargs={"model": Factory(work.model, 0.002), "strategy": BestOfN(n=4), "id": "id",
                                       "verifier": work.perfect, "budget": shared},
            )
            .take_all()
        )  # fmt: skip
        spent = shared.figures()["spent"].calls
    finally:
        shared.close()
    assert len(found) == 48
    solved = [row for row in found if not row["tts_error"]]
    assert 0.9 * 150 <= spent <= 150  # what is left at the end may be too little for one more
    assert sum(row["tts_calls"] for row in solved) <= spent
    assert all(row["tts_text"].startswith(row["prompt"]) for row in solved)
    assert {row["tts_error"].split(":")[0] for row in found if row["tts_error"]} == {"BudgetExhausted"}


def batches(table: Any) -> dict[str, Any]:
    """The same batch in each format, as Ray makes it."""
    from ray.data.block import BlockAccessor

    block = BlockAccessor.for_block(table)
    made = {name: block.to_batch_format(name) for name in ("numpy", "pandas", "pyarrow")}
    made["pandas"].index = range(7, 7 + len(made["pandas"]))  # as of a block that was filtered
    return made


def as_table(made: Any) -> Any:
    from ray.data.block import BlockAccessor

    return BlockAccessor.for_block(BlockAccessor.batch_to_block(made)).to_arrow()


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_every_batch_format_is_solved_and_keeps_its_columns(kind: str) -> None:
    import pyarrow

    rows = [{"prompt": f"é漢 {i}", "id": i, "tags": ["a"] * i, "meta": {"x": i}, "level": i * 0.5} for i in range(4)]
    asked = batches(pyarrow.Table.from_pylist(rows))[kind]

    def seen(problem: Problem, candidate: object) -> float:
        return 1.0 if problem.metadata == {"tags": ["a"] * int(problem.id or 0)} else 0.0

    step = Solve(model=work.model(), strategy=BestOfN(n=2), verifier=seen, id="id", metadata=["tags"])
    made = as_table(step(asked))
    assert made.select(["prompt", "id", "tags", "meta", "level"]).to_pylist() == rows
    assert [text.split(":")[0] for text in made["tts_text"].to_pylist()] == [row["prompt"] for row in rows]
    assert made["tts_score"].to_pylist() == [1.0] * 4 and made["tts_calls"].to_pylist() == [2] * 4
    # Of a block in which nobody failed, so that the files of a data set have one schema.
    types = {name: str(made.schema.field(f"tts_{name}").type).removeprefix("large_") for name in ("error", "abstained")}
    assert set(types.values()) == {"string"}
    none = as_table(step(batches(pyarrow.Table.from_pylist(rows).slice(0, 0))[kind]))
    assert none.num_rows == 0 and "tts_text" in none.column_names


@pytest.mark.parametrize("kind", ["numpy", "pandas", "pyarrow"])
def test_a_row_without_a_problem_fails_alone_and_costs_nothing(kind: str) -> None:
    import pyarrow

    model = work.model()
    step = Solve(model=model, strategy=BestOfN(n=2), verifier=work.perfect, id="id")
    asked = pyarrow.table({"prompt": ["a", None, " ", "b"], "id": ["p", "q", "r", None]})
    made = as_table(step(batches(asked)[kind]))
    errors = made["tts_error"].to_pylist()
    assert errors[0] is None and made["tts_calls"].to_pylist() == [2, None, None, None]
    assert "row q, prompt: " in errors[1] and "neither a text nor a list" in errors[1]
    assert "row r, prompt: " in errors[2] and "it has no id" in errors[3]
    assert len(model.requests) == 2


def test_what_is_wrong_with_a_batch_is_named_before_anything_is_paid() -> None:
    model = work.model()
    step = Solve(model=model, strategy=BestOfN(n=2), verifier=work.perfect)
    with pytest.raises(DataError, match="no column 'prompt'; the columns are question"):
        step({"question": ["a"]})
    with pytest.raises(DataError, match=r"a column tts_error already, .* give another `prefix`"):
        step({"prompt": ["a"], "tts_error": [None]})
    for row in ("What?", [{"role": "user", "content": "What?"}], None):  # as of `map`, `flat_map` and `filter`
        with pytest.raises(ConfigurationError, match=r"one row, as `map`.*use dataset.map_batches"):
            step({"prompt": row})
    assert not model.requests
    with pytest.raises(ConfigurationError, match="must be a SharedBudget"):
        Solve(model=work.model(), budget=Budget(calls=3))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"metadata='level' must be a list"):
        Solve(model=work.model(), metadata="level")


# The commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply="The answer is 4.", latency=0.02) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tts-plugins.toml").write_text(
        '[profiles.careful]\nstrategy = { type = "self-consistency", n = 2 }\nseed = 3\n'
    )
    rows = [{"id": f"q{i}", "prompt": f"What is {i}?", "answer": "4"} for i in range(160)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def ray_options(server: LoopbackServer) -> list[str]:
    import ray

    address = ray.get_runtime_context().gcs_address
    return ["--model", "m", "--base-url", server.base_url, "--max-tokens", "16", "--engine", "ray",
            "--address", address, "--workers", "2", "--concurrency", "8"]  # fmt: skip


def test_bench_record_and_rollouts_run_on_ray(home: Path, server: LoopbackServer) -> None:
    options = ray_options(server)
    code = main(["bench", "--problems", "in.jsonl", "--limit", "6", "--strategy", "self-consistency:n=2", *options])
    assert code == 0
    with Store.read("bench.sqlite") as store:
        assert len(store.solves()) == 6 and all(solve.correct for solve in store.solves())
    assert main(["record", "in.jsonl", "--limit", "4", "--n", "3", "--out", "pool.gz", *options]) == 0
    assert Pool.read("pool.gz").fewest == 3
    arguments = ["rollouts", "in.jsonl", "--limit", "3", "--out", "labels.jsonl", "--solutions", "2", "--rollouts", "2"]
    assert main([*arguments, "--no-logprobs", *options]) == 0
    assert len(Pool.read("labels.jsonl").problems) == 3


def test_a_driver_that_is_stopped_or_killed_goes_on_where_it_was(home: Path) -> None:
    with LoopbackServer(reply="The answer is 4.") as server:
        command = [sys.executable, "-m", "tts_plugins", "batch", "in.jsonl", "out.jsonl", "--profile", "careful",
                   "--budget-calls", "5000", *ray_options(server)]  # fmt: skip
        kept: dict[str, Any] = {}
        for ended, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
            last = (
                server.counts.requests + 40
            )  # what is asked for after it is never answered: it is stopped in the midst
            server.configure(latency=lambda number, last=last: 0.02 if number < last else LONG)
            with (home / "said").open("wb") as said:
                process = subprocess.Popen(command, stdout=said, stderr=said)
            acknowledged_at_least(home / "out.jsonl.journal", len(kept) + 5, process)
            process.send_signal(ended)
            assert process.wait(LONG) == code, (home / "said").read_text()
            kept = acknowledged(home / "out.jsonl.journal")
        server.configure(latency=0.02)
        before = server.counts.choices
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == [f"q{i}" for i in range(160)]
        assert {row["id"]: row for row in rows if row["id"] in kept} == kept, "what was acknowledged is as it was"
        # Workers of the killed driver may have sent a little more before they ended.
        assert server.counts.choices - before <= 2 * (160 - len(kept)) + 2 * 16 * 2


def acknowledged(path: Path) -> dict[str, Any]:
    import sqlite3

    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    except sqlite3.Error:
        return {}
    try:
        return {name: json.loads(row) for name, row in db.execute("SELECT id, row FROM results")}
    except sqlite3.Error:
        return {}
    finally:
        db.close()


def acknowledged_at_least(path: Path, count: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    import time

    end = time.monotonic() + LONG
    while time.monotonic() < end:
        assert process.poll() is None, (path.parent / "said").read_text()
        if len(found := acknowledged(path)) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"only {len(acknowledged(path))} results in {LONG} s")
