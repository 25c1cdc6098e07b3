"""Verifiers that the tests' profiles name."""

from __future__ import annotations

from typing import Any


def is_four(problem: Any, candidate: Any) -> float:
    return 1.0 if candidate.text == "4" else 0.1


def step_scores(problem: Any, candidate: Any) -> list[float]:
    return [0.9] * max(1, len(candidate.steps))


def varied(problem: Any, candidate: Any) -> list[float]:
    """Step scores that differ from candidate to candidate, and are the same at each run."""
    return [((hash_of(step.text) % 97) / 97) for step in candidate.steps] or [0.5]


def hash_of(text: str) -> int:
    return sum((i + 1) * ord(c) for i, c in enumerate(text))
