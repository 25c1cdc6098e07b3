"""Run a candidate's program against tests inside of the sandbox, and report each outcome as a line."""

from __future__ import annotations

import ast
import json
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

SHOWN = 160  # characters of a value or a message
Send = Callable[[object], None]


def run(program: str, tests: Sequence[str], first: int, send: Send) -> None:
    """Load the program, then try the tests from number `first` on.

    Sends ["loaded"] or ["broken", why]; for each test [number, None] or [number, why it failed]; and ["done"].
    """
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses and pickles look for it
    try:
        exec(compile(program, "<program>", "exec"), module.__dict__)
    except BaseException as error:  # noqa: BLE001 - whatever the program raises is the report
        send(["broken", said(error)])
        return
    send(["loaded"])
    for number in range(first, len(tests)):
        try:
            failure = trial(tests[number], module.__dict__)
        except BaseException as error:  # noqa: BLE001 - as above
            failure = said(error)
        send([number, failure])
    send(["done"])


def trial(test: str, names: dict[str, Any]) -> str | None:
    """Return why a test fails, or None if it passes; raise what the test raises."""
    tree = ast.parse(test, "<test>")
    (only,) = tree.body if len(tree.body) == 1 else (None,)
    comparison = only.test if isinstance(only, ast.Assert) else None
    if isinstance(comparison, ast.Compare) and len(comparison.ops) == 1 and isinstance(comparison.ops[0], ast.Eq):
        got = _value(comparison.left, names)
        wanted = _value(comparison.comparators[0], names)
        if got == wanted and not (_is_literal(comparison.comparators[0]) and _own_equality(got, names)):
            return None
        return f"it gave {shown(got)}"
    exec(compile(tree, "<test>", "exec"), names)
    for node in tree.body:  # as a test runner would call them
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and not node.args.args:
            names[node.name]()
    return None


def said(error: BaseException) -> str:
    """Return an error in words, with the line of the program where it arose."""
    if isinstance(error, SystemExit):
        return f"it ended the process (exit {shown(error.code)})"
    place, lines = error.__traceback__, []
    while place is not None:
        if place.tb_frame.f_code.co_filename == "<program>":
            lines.append(place.tb_lineno)
        place = place.tb_next
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == "<program>" else None
    at = f" (line {lines[-1] if lines else line})" if lines or line else ""
    words = error.msg if isinstance(error, SyntaxError) else _text(error)
    return f"{type(error).__name__}{': ' + words if words else ''}"[: 2 * SHOWN] + at


def shown(value: object) -> str:
    """Return a value as text, cut if it is long."""
    try:
        text = repr(value)
    except BaseException as error:  # noqa: BLE001 - a `__repr__` of the program
        text = f"a {type(value).__name__} whose repr raises {type(error).__name__}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:SHOWN]
    except BaseException:  # noqa: BLE001 - a `__str__` of the program
        return ""


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<test>", "eval"), names)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        return False
    return True


def _own_equality(value: object, names: dict[str, Any]) -> bool:
    """Return whether the program itself defines what the value is equal to: that would pass every test."""
    equality = getattr(type(value), "__eq__", None)
    code = getattr(equality, "__code__", None)
    if code is not None and code.co_filename == "<program>":
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    return any(_own_equality(part, names) for part in list(parts)[:1000])


def sender(write: Callable[[bytes], object], key: str) -> Send:
    """Sends lines that carry a key, which a program's own writing to the same pipe lacks."""

    def send(message: object) -> None:
        write(f"{key} {json.dumps(message)}\n".encode())

    return send
