"""Public suites, read from checkouts that are not part of this repository. Nothing of them is copied."""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def cases(folder: Path, name: str) -> list[dict[str, Any]]:
    """The cases of one file of `shared/cases`."""
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines() if line.strip()]


def math_verify_pairs(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Gold, prediction, and whether they are equal: the parametrised tests of a checkout of Math-Verify."""
    for path in sorted((folder / "tests").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and len(mark.args) == 2 and isinstance(mark.args[1], ast.List):
                    yield from _parametrised(mark.args[0], mark.args[1])


def _parametrised(named: ast.expr, listed: ast.List) -> Iterator[tuple[str, str, bool]]:
    try:
        names = ast.literal_eval(named)
    except ValueError:
        return
    fields = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    for each in listed.elts:
        try:
            values = dict(zip(fields, ast.literal_eval(each), strict=False))
        except (ValueError, TypeError):
            continue
        expected = values.get("expected", values.get("result"))
        if "gold" in values and "pred" in values and not isinstance(expected, list):
            yield values["gold"], values["pred"], bool(expected)


def simple_evals_markers(folder: Path) -> list[str]:
    """The answer markers of simple-evals in all languages, as they stand in a reply."""
    source = (folder / "common.py").read_text("utf-8")
    block = source[source.index("MULTILINGUAL_ANSWER_REGEXES") :].partition("]")[0]
    return [marker.replace("\\s*", "") for marker in re.findall(r'"([^"]+)"', block)]


def mgsm(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """MGSM's answer prefixes (of simple-evals' file), and its exemplars' answers with their numbers."""
    scope: dict[str, Any] = {}
    exec((folder / "mgsm" / "exemplars.py").read_text("utf-8"), scope)  # data only: a dict of texts
    sentences = [
        (exemplars[place]["a"], str(number))
        for exemplars in scope["MGSM_EXEMPLARS"].values()
        for place, number in zip(sorted(exemplars), scope["EXEMPLAR_NUMBER_ANSWERS"], strict=True)
    ]
    return [], sentences


def prefixes(folder: Path) -> list[str]:
    """MGSM's answer prefixes, from simple-evals."""
    source = (folder / "mgsm_eval.py").read_text("utf-8")
    block = source[source.index("LANG_TO_ANSWER_PREFIX") :].partition("}")[0]
    return re.findall(r': "([^"]+)"', block)


def human_eval(path: Path) -> list[dict[str, str]]:
    """The tasks of HumanEval.jsonl.gz."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def wrapped(prompt: str, solution: str) -> list[str]:
    """A canonical solution as models hand it in: alone, with its prompt, and both in a block of code."""
    whole = prompt + solution
    return [solution, whole, f"Here it is:\n\n```python\n{whole}\n```\nIt works.", f"```python\n{solution}\n```"]
