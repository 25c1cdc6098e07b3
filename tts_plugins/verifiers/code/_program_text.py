"""From what a model wrote to a program, and from what a problem says to tests. Pure."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tts_plugins.verifiers.code._blocks import fenced, tree_of

_PROMPT = re.compile(r"^[ \t]*>>> ?(.*)$")
_MORE = re.compile(r"^[ \t]*\.\.\. ?(.*)$")
# The signs between a call and its value in a docstring: f(1) == 2, f(1) -> 2, f(1) => 2, f(1) ➞ 2, f(1) returns 2.
# What makes of a literal the beginning of an expression: 3 in "3 + 1", "3 if x else 4", "3.real".
_GOES_ON = re.compile(r"[ \t]*(?:[-+*/%<>=!&|^@]|(?:if|and|in|is|not)\b)|[.\w(\[](?!\s|\Z)")
_MEANS = re.compile(r"[ \t]*(?:==?>?|->|➞|→|⇒|returns|should return|should be|gives)[ \t]*")


def program_of(text: str, problem: str) -> str:
    """The program that a candidate wrote: its fenced blocks, else all of its text.

    Where the problem is itself code that ends in a function without a body, the candidate continues it, or, where it
    writes that function anew, stands after it, so that the imports above hold for it. Empty where there is no code.
    """
    code = fenced(text)
    if not code.strip():
        return ""
    stub = open_function(problem)
    if stub is None:
        return code
    anew = re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(stub)}\b", code, re.MULTILINE)
    return f"{problem.rstrip()}\n\n\n{code}" if anew else f"{problem.rstrip()}\n{code}"


def open_function(problem: str) -> str | None:
    """The name of the function that a text of code leaves to be written; None where it is no such text."""
    tree = tree_of(problem) or tree_of(f"{problem.rstrip()}\n    pass\n")
    last = tree.body[-1] if tree is not None and tree.body else None
    if not isinstance(last, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    bodiless = all(
        isinstance(s, ast.Pass | ast.Import | ast.ImportFrom)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        for s in last.body
    )
    return last.name if bodiless else None


def examples_of(problem: str) -> list[str]:
    """The examples in a text as asserts: doctests, lines of `assert`, and `f(x) == y` (also `f(x) -> y` and its kin,
    where y is a literal). In order, each once."""
    found = [*_doctests(problem.splitlines()), *_equations(problem)]
    return list(dict.fromkeys(found))


def asserts_of(texts: Sequence[str], most: int) -> list[str]:
    """The asserts in what a model wrote, those that most of its texts have first, at most so many."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(dict.fromkeys(_asserts(fenced(text)), 1))
    return [test for test, _ in counts.most_common(most)]


def _asserts(code: str) -> Iterator[str]:
    tree = tree_of(code)
    statements = tree.body if tree is not None else [s for line in code.splitlines() for s in _body(line.strip())]
    for node in statements:
        # Those inside of test functions, too, as long as they stand there plainly.
        inner = node.body if isinstance(node, ast.FunctionDef | ast.ClassDef) else [node]
        yield from (ast.unparse(s) for s in inner if isinstance(s, ast.Assert))


def _doctests(lines: Sequence[str]) -> Iterator[str]:
    place = 0
    while place < len(lines):
        first = _PROMPT.match(lines[place])
        place += 1
        if first is None:
            continue
        source, wanted = [first[1]], list[str]()
        while place < len(lines) and (more := _MORE.match(lines[place])):
            source.append(more[1])
            place += 1
        while place < len(lines) and lines[place].strip() and not _PROMPT.match(lines[place]):
            if '"""' in lines[place] or "'''" in lines[place]:
                break
            wanted.append(lines[place].strip())
            place += 1
        expression, value = "\n".join(source), "\n".join(wanted)
        if value and _is_expression(expression) and not value.startswith("Traceback"):
            yield _equals(expression, value) or f"assert repr({expression}) == {value!r}"
        elif not value and any(isinstance(s, ast.Assert) for s in _body(expression)):
            yield expression


def _equations(text: str) -> Iterator[str]:
    name = open_function(text)
    for line in text.splitlines():
        plain = line.strip().lstrip("-*#> ").strip("`")
        if plain.startswith("assert ") and _body(plain):
            yield plain
        elif not _PROMPT.match(line) and (found := _equation(plain, name)):
            yield found


def _equation(line: str, name: str | None) -> str | None:
    call = re.search(rf"\b{re.escape(name) if name else '[A-Za-z_][A-Za-z_0-9]*'}\(", line)
    if call is None or line.startswith(("def ", "async def ")):
        return None
    for end in (m.end() for m in re.finditer(r"\)", line)):
        expression, rest = line[call.start() : end], line[end:]
        means = _MEANS.match(rest)
        if means is None or means.end() == 0 or not _is_expression(expression):
            continue
        value = rest[means.end() :].strip()
        whole = value
        while value:  # the longest beginning that is a literal: what follows is a remark
            found = None if value.endswith(",") else _equals(expression, value)
            if found:
                return None if _GOES_ON.match(whole, len(value)) else found
            value = value[:-1].rstrip()
    return None


def _equals(expression: str, value: str) -> str | None:
    try:
        ast.literal_eval(value)
        left, right = (ast.parse(source.strip(), mode="eval").body for source in (expression, value))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return ast.unparse(ast.Assert(ast.Compare(left, [ast.Eq()], [right])))


def _is_expression(source: str) -> bool:
    body = _body(source)
    return len(body) == 1 and isinstance(body[0], ast.Expr)


def _body(source: str) -> list[ast.stmt]:
    tree = tree_of(source)
    return [] if tree is None else tree.body
