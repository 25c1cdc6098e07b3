"""The problems: what is asked, what checks an answer without knowing it, and what is right."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import demo_heldout
from tts_plugins import BestOfN, Candidate, Problem, solve
from tts_plugins.answers import extract
from tts_plugins.demo import task
from tts_plugins.demo.task import Example
from tts_plugins.errors import DataError
from tts_plugins.testing.scripted import ScriptedModel
from tts_plugins.verifiers import CallableVerifier, CodeTests
from tts_plugins.verifiers.code._program_text import examples_of


@dataclass(frozen=True, kw_only=True)
class Question:
    """One problem; `checkable` says whether a program can tell something of an answer."""

    id: str
    content: Any
    metadata: dict[str, Any]
    verifier: Any
    checkable: bool = True

    def problem(self) -> Problem:
        """A new problem for each solve."""
        return Problem(self.content, id=self.id, metadata=self.metadata)

    def answer(self, text: str) -> str | None:
        """What votes: the record, or whatever the text says."""
        if "record" not in self.metadata:
            return extract(text)
        found = task.parse(text)
        return None if found is None else json.dumps(found, sort_keys=True)

    async def right(self, text: str) -> bool:
        """Whether an answer is right, by what no verifier sees."""
        if "record" in self.metadata:
            return task.matches(self.metadata["record"], text)
        return await _passes(self, "hidden", text)

    async def passes(self, text: str) -> bool:
        """Whether an answer passes what its verifier checks."""
        if "record" in self.metadata:
            return task.check(self.metadata["text"], text)[0] >= 1.0
        return self.checkable and await _passes(self, "examples", text)


def read_questions(path: Path) -> list[Question]:
    """Read problems, a JSON line for each; "demo" are the demo's messages that its settings were not chosen on.

    Raises:
        DataError: a line is not a problem of a kind that is known; names file and line.
    """
    if path == Path("demo"):
        return [_question(asdict(example)) for example in _demo()]
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    out: list[Question] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            out.append(_question(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: {type(error).__name__}: {error}; a problem has id, text and record, or "
                "task_id, prompt, test and entry_point"
            ) from error
    if not out:
        raise DataError(f"{path}: there are no problems in it")
    return out


def _demo() -> list[Example]:
    """The held-out messages and then those of the demo itself, each shuffled, so that a part of them is a sample."""
    both = [demo_heldout.load(), task.load()]
    for examples in both:
        Random(0).shuffle(examples)
    return [*both[0], *both[1]]


def _question(value: dict[str, Any]) -> Question:
    if "record" in value:
        return Question(
            id=value["id"], content=task.messages(value["text"]), verifier=CallableVerifier(_checked),
            metadata={"record": value["record"], "text": value["text"]},
        )  # fmt: skip
    prompt = value["prompt"]
    examples = examples_of(prompt)
    return Question(
        id=str(value["task_id"]), content=f"Complete this Python function. Answer with the whole function.\n\n{prompt}",
        verifier=_code_tests("docstring") if examples else None, checkable=bool(examples),
        metadata={"prompt": prompt, "examples": list(examples),
                  "hidden": [f"{value['test']}\ncheck({value['entry_point']})"]},
    )  # fmt: skip


def _checked(problem: Problem, candidate: Candidate) -> tuple[float, str]:
    return task.check(problem.metadata["text"], candidate.text)


@cache
def _code_tests(kind: str) -> CodeTests:
    """The programs' verifier: by the docstring's examples, or by the tests of one kind in the problem's metadata."""
    if kind == "docstring":
        return CodeTests(examples="docstring", workers=1)
    return CodeTests(tests=lambda problem: problem.metadata[kind], workers=1)


async def _passes(question: Question, kind: str, text: str) -> bool:
    """Whether a text passes tests: as the only sample of a solve, since verifiers score within one."""
    model = ScriptedModel([text or "pass"], max_tokens=None)
    result = await solve(question.problem(), model=model, strategy=BestOfN(n=1), verifier=_code_tests(kind))
    return result.score == 1.0
