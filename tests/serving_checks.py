"""Verifiers that the tests' profiles name."""

from __future__ import annotations

from typing import Any


def is_four(problem: Any, candidate: Any) -> float:
    return 1.0 if candidate.text == "4" else 0.1


def step_scores(problem: Any, candidate: Any) -> list[float]:
    return [0.9] * max(1, len(candidate.steps))
