"""`Solve` in a Ray Data pipeline, and the commands on Ray, with a driver that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed import work
from tts_plugins import BestOfN, Budget
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
    assert 0.97 * 150 <= spent <= 150
    assert sum(row["tts_calls"] for row in solved) <= spent
    assert all(row["tts_text"].startswith(row["prompt"]) for row in solved)
    assert {row["tts_error"].split(":")[0] for row in found if row["tts_error"]} == {"BudgetExhausted"}


def test_what_is_wrong_with_a_batch_is_named() -> None:
    step = Solve(model=work.model(), strategy=BestOfN(n=2), verifier=work.perfect)
    made = step({"prompt": np.array(["a", "b"], dtype=object)})
    assert [text[0] for text in made["tts_text"]] == ["a", "b"]
    with pytest.raises(DataError, match="no column 'prompt'; the columns are question"):
        step({"question": ["a"]})
    with pytest.raises(DataError, match="row 0, prompt"):
        step({"prompt": [""]})
    with pytest.raises(ConfigurationError, match="must be a SharedBudget"):
        Solve(model=work.model(), budget=Budget(calls=3))  # type: ignore[arg-type]


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


def test_a_driver_that_is_killed_goes_on_where_it_was(home: Path, server: LoopbackServer) -> None:
    command = [sys.executable, "-m", "tts_plugins", "batch", "in.jsonl", "out.jsonl", "--profile", "careful",
               "--budget-calls", "5000", *ray_options(server)]  # fmt: skip
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    kept = acknowledged_at_least(home / "out.jsonl.journal", 30, process)
    process.send_signal(signal.SIGKILL)
    process.wait(LONG)
    kept = acknowledged(home / "out.jsonl.journal")
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
