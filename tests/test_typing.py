"""Type checkers see the right calls as right and the wrong ones as wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CALLS = ROOT / "tests" / "typed_calls.py"
WRONG = {i for i, line in enumerate(CALLS.read_text("utf-8").splitlines(), 1) if line.endswith("# wrong")}


def errors_of(*command: str) -> set[int]:
    """The lines of the calls' file that a checker finds errors in."""
    env = {**os.environ, "MYPYPATH": f"{ROOT}:{ROOT / 'integrations'}", "PYTHONPATH": f"{ROOT}:{ROOT / 'integrations'}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env, cwd=ROOT)
    said = done.stdout + done.stderr
    lines = {int(found) for found in re.findall(r"typed_calls\.py:(\d+)(?::\d+)?(?: -|:) error", said)}
    assert lines or done.returncode == 0, said
    return lines


def test_mypy_tells_right_calls_from_wrong_ones() -> None:
    for package in ("mypy", "dspy", "langchain_core"):
        pytest.importorskip(package)
    assert errors_of(sys.executable, "-m", "mypy", "--strict", str(CALLS)) == WRONG


def test_pyright_does_too() -> None:
    for package in ("pyright", "dspy", "langchain_core"):
        pytest.importorskip(package)
    try:
        found = errors_of(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(CALLS))
    except AssertionError as error:
        pytest.skip(f"pyright does not run here: {error}")  # it fetches itself from npm
    assert found == WRONG
