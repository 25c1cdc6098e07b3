"""The foundation's benchmark in its short form: it runs, its table has every row, and what is not a timing holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one run prints, and what it writes."""
    file = tmp_path_factory.mktemp("benchmark") / "rows.json"
    command = [sys.executable, "-m", "benchmarks.foundation", "--short", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def figures(reported: tuple[str, dict[str, Any]], number: int, part: str = "") -> dict[str, Any]:
    (row,) = [r for r in reported[1]["rows"] if r["number"] == number and part in r["what"]]
    found: dict[str, Any] = row["figures"]
    return found


def test_prints_every_row_and_writes_the_same(reported: tuple[str, dict[str, Any]]) -> None:
    printed, written = reported
    assert {row["number"] for row in written["rows"]} == set(range(1, 9))
    assert written["short"] is True
    assert written["machine"]["cores"] == os.cpu_count()
    for row in written["rows"]:
        assert row["what"] in printed
        assert row["ours"] in printed
        assert (row["met"] is None) == (row["must"] == "")


def test_walls_are_no_shorter_than_their_critical_path(reported: tuple[str, dict[str, Any]]) -> None:
    for form in ("8 requests", "one of n=8"):
        ratios = figures(reported, 1, form)
        assert ratios["pairs"] == 2
        assert ratios["ours_s"]["low"] >= 0.1
        assert ratios["bare_s"]["low"] >= 0.1
        assert figures(reported, 2, form)["ratio"]["low"] >= 1


def test_a_decided_vote_asks_for_nine_of_sixteen(reported: tuple[str, dict[str, Any]]) -> None:
    for form in ("16 requests", "one of n=16"):
        assert figures(reported, 3, form)["samples"] == [9]


def test_a_crowd_never_spends_more_than_the_account_holds(reported: tuple[str, dict[str, Any]]) -> None:
    crowd = figures(reported, 4, "overshoot")
    assert crowd["counted_without_limit"] == crowd["need"]  # without faults, ours is the server's count to the token
    assert crowd["overshoot"] == 0
    assert crowd["server_tokens"] <= crowd["spent"] <= crowd["limit"]
    assert crowd["open_holds"] == crowd["held"] == 0
    assert sum(crowd["ends"].values()) == 12


def test_nothing_is_left_after_cancelling(reported: tuple[str, dict[str, Any]]) -> None:
    left = figures(reported, 6)
    assert left["in_flight"] > 0
    names = ("tasks", "holds", "held", "connections_closed", "active_before_close", "not_cancelled")
    assert {name: left[name] for name in names} == dict.fromkeys(names, 0)
    assert left["client_sockets"] <= 0
    assert left["server_tokens"] <= left["charged"]


def test_budgets_that_exactly_fit_come_to_an_end(reported: tuple[str, dict[str, Any]]) -> None:
    nested = figures(reported, 7, "nested")
    assert nested["ends"] == {"inner complete": 3, "outer complete": 1}
    assert nested["server_choices"] == nested["spent_calls"] == 9
    resets = figures(reported, 7, "reset")
    assert sum(resets["ends"].values()) == resets["requests"] == 8
    refused = figures(reported, 7, "refused")
    assert refused["ends"] == {"complete": 8}
    assert refused["requests"] == 16


def test_importing_the_package_leaves_openai_alone(reported: tuple[str, dict[str, Any]]) -> None:
    (row,) = [r for r in reported[1]["rows"] if "import" in r["what"]]
    assert "without" in row["ours"].split(";")[1]


def test_a_row_that_does_not_exist_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.foundation", "--only", "9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--only" in done.stderr


def test_best_of_k_is_exact_and_its_pool_grows_with_what_it_could_buy() -> None:
    from benchmarks._serving.search_live import TASKS, Samples, _affordable
    from tts_plugins import Usage

    one = Samples(4, 1, Usage(calls=4, prompt_tokens=5, completion_tokens=40))
    assert one.best_of(1) == 0.25 and one.best_of(2) == 0.5 and one.best_of(1.5) == 0.375
    assert one.best_of(4) == one.best_of(9) == 1 and one.best_of(-1) == 0
    both = one.plus(Samples(4, 3, Usage(calls=4, prompt_tokens=5, completion_tokens=40)))
    assert (both.count, both.right, both.usage.completion_tokens) == (8, 4, 80)
    assert _affordable([both], tokens=110) == 10  # ten tokens of prompt, then ten for each
    assert set(TASKS) == {"lines", "five", "two"}


def test_throughput_in_its_short_form(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--short", "--only", "1", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 8 and all(row["what"].startswith("engine alone: ") for row in rows)
    assert all(value > 0 for row in rows for values in row["figures"].values() for value in values)


def test_throughput_over_http_in_its_short_form(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--short", "--only", "2", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["failures in all of these"]["ours"] == "0"
    (crowd,) = [row for what, row in rows.items() if "a ledger of half their need" in what]
    assert crowd["figures"]["overshoot"] == 0
    assert all(what in done.stdout for what in rows)


def test_the_reliability_benchmark_runs(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.reliability", "--short", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert file.exists(), done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1)) and all(
        r["what"] in done.stdout for r in rows
    )
    assert all(row["met"] is not False for row in rows if row["must"] in ("ok", "0"))


def test_other_stop_rules_are_told_where_none_of_them_keeps_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks._pools.shipped import Recorded, tell
    from tts_plugins.testing.synthetic import synthetic_pool

    pools = [Recorded(name, synthetic_pool(2, 2), "majority") for name in ("a", "b")]
    rules = {("lead", "k=1, fade=0"): (0.2, 4.0), ("lead", "k=2, fade=0"): (0.1, 2.0)}
    tell("lead", dict.fromkeys(pools, rules), "n=8")
    said = capsys.readouterr().out
    assert "in hindsight k=2, fade=0 saves 2.00 times and loses at most 0.1000" in said
    assert "chosen without each pool: saves 2.00 times there, loses at most 0.1000 (b, k=2, fade=0)" in said
