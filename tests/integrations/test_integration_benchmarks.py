"""The integrations' benchmarks in their short form: they run, and what is not a timing holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "needs", "rows"),
    [("openai_client", "openai", 5), ("langchain", "langchain_openai", 6), ("dspy", "dspy", 5)],
)
def test_it_runs_and_all_but_the_timings_is_met(name: str, needs: str, rows: int, tmp_path: Path) -> None:
    pytest.importorskip(needs)
    paths = [str(ROOT), str(ROOT / "integrations"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--short", "--json", str(tmp_path / "rows.json")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "rows.json").read_text())
    assert {row["number"] for row in written["rows"]} == set(range(1, rows + 1))
    assert all(row["what"] in done.stdout for row in written["rows"])
    assert [row for row in written["rows"] if row["number"] > 2 and not row["met"]] == []
