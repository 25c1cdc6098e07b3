"""What `CodeTests` refuses, says, and asks. Pure."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tts_plugins._internal.untrusted_text import neutralise
from tts_plugins.errors import ConfigurationError
from tts_plugins.prompts import Messages, problem_text
from tts_plugins.types import Problem
from tts_plugins.verifiers.code._blocks import tree_of


def first_failure(tests: Sequence[str], outcomes: Sequence[str | None]) -> str:
    """The first failure in words, and how many there are; empty where all passed."""
    failed = [(test, why) for test, why in zip(tests, outcomes, strict=True) if why is not None]
    if not failed:
        return ""
    test, why = failed[0]
    if why.startswith(("the program does not load", "there is no code")):
        return neutralise(why)
    shown = test.strip() if len(test) <= 300 else f"{test.strip()[:300]}…"
    return neutralise(f"{len(failed)} of {len(tests)} tests failed; the first: {shown} failed: {why}")


def writing_messages(problem: Problem) -> Messages:
    """The messages that ask a model for tests."""
    system = (
        "You write tests for a function before it is written. Reply with one block of Python that holds ten "
        "statements of the form `assert f(arguments) == value`, one a line: usual cases first, then edge cases. "
        "Do not write the function."
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": problem_text(problem)}]


def check_tests(name: str, tests: object, *, parse: bool = True) -> None:
    """Raise unless `tests` is a list of tests, or a function, which is asked later."""
    if tests is None or callable(tests):
        return
    if isinstance(tests, str) or not isinstance(tests, Sequence) or not all(isinstance(t, str) for t in tests):
        raise ConfigurationError(f"CodeTests: {name}={str(tests)[:80]!r} must be a list of texts, one a test")
    for i, test in enumerate(tests if parse else ()):
        if not parses(test):
            raise ConfigurationError(f"CodeTests: {name}[{i}]={test[:80]!r} is not Python; write it as an assert")
        if not tests_something(test):
            raise ConfigurationError(
                f"CodeTests: {name}[{i}]={test[:80]!r} tests nothing; write an assert, a call, or a function test_…"
            )


def tests_something(test: str) -> bool:
    """Whether anything in it could fail: an assert or a call that is reached, or a function `test_…`."""
    for node in ast.parse(test).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            return True
        if any(isinstance(part, ast.Assert | ast.Call | ast.Raise) for part in ast.walk(node)):
            return True
    return False


def parses(test: str) -> bool:
    """Whether it is Python, and not empty."""
    tree = tree_of(test)
    return tree is not None and bool(tree.body)
