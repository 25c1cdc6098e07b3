"""What a benchmark on `orders.jsonl` needs: a check that sees the message only, and a grade that knows the record."""

from __future__ import annotations

import json

from tts_plugins import Candidate, Problem
from tts_plugins.demo import task


def check(problem: Problem, candidate: Candidate) -> tuple[float, str]:
    """The verifier: what can be found wrong with a reply without knowing the record."""
    return task.check(problem.text, candidate.text)


def grade(problem: Problem, candidate: Candidate) -> bool:
    """Whether the reply is the record. For measuring only."""
    return task.matches(json.loads(problem.metadata["answer"]), candidate.text)
