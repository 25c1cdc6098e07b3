"""The demo's messages, answered in three lines: a task in steps, whose outcome a program can tell without a human."""

from __future__ import annotations

from typing import Any

from benchmarks import demo_heldout
from tts_plugins.demo import task
from tts_plugins.models import LocalModel, StepSettings
from tts_plugins.types import Candidate, Problem

# The last line has the marker of an answer, so that nobody has to ask whether more follows.
KEYS = {"name": "name", "item": "item", "quantity": "answer"}
SYSTEM = (
    "Copy the record out of the message in three lines. "
    "name: the customer's full name; item: the goods; answer: how many of them (a number)."
)


def problems() -> list[Problem]:
    """The demo's own messages and the 64 others, 128 in all, with the record that is right."""
    examples = [*task.load(), *demo_heldout.load()]
    return [Problem(_chat(e.text), id=e.id, metadata={"answer": _lines(e.record)}) for e in examples]


def model(threads: int | None = None) -> LocalModel:
    """The embedded model, which writes a line a step and says how sure it was of each token."""
    return LocalModel(
        temperature=0.8, max_tokens=64, context=1024, slots=8, logprobs=True, threads=threads,
        steps=StepSettings(by="line", max_tokens=24),
    )  # fmt: skip


def answer(text: str) -> str | None:
    """The record in a form that votes; None where the text is not three lines of it."""
    lines = [line.partition(":") for line in text.strip().splitlines() if line.strip()]
    if [key.strip() for key, _, _ in lines] != list(KEYS.values()):
        return None
    return "\n".join(f"{key.strip()}: {' '.join(value.split()).casefold()}" for key, _, value in lines)


def grade(problem: Problem, candidate: Candidate) -> bool:
    """Whether it is the record; what cannot be read is wrong here, since the form is a part of the task."""
    return candidate.answer is not None and candidate.answer == answer(problem.metadata["answer"])


def _lines(record: dict[str, Any]) -> str:
    return "\n".join(f"{shown}: {record[key]}" for key, shown in KEYS.items())


def _chat(text: str) -> list[dict[str, str]]:
    chat = [{"role": "system", "content": SYSTEM}]
    for question, record in task.EXAMPLES:
        chat += [{"role": "user", "content": question}, {"role": "assistant", "content": _lines(record)}]
    return [*chat, {"role": "user", "content": text}]
