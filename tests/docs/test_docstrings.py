"""Docstrings and signatures agree: what is listed as an argument is one, and no argument is left out of a list."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
MODULES = sorted({m for p in REFERENCE.glob("*.md") for m in re.findall(r"automodule:: (\S+)", p.read_text("utf-8"))})


def members(module: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and classes of a module, and the public methods that those classes define."""
    for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
        value = getattr(module, name)
        if not callable(value) or not str(getattr(value, "__module__", "")).startswith("tts_plugins"):
            continue
        yield name, value
        if inspect.isclass(value):
            for inner, method in vars(value).items():
                function = getattr(method, "__func__", method)
                if not inner.startswith("_") and inspect.isfunction(function):
                    yield f"{name}.{inner}", function


def documented(text: str) -> list[str]:
    """The names that stand under `Args:`; several before one colon are several."""
    section = re.search(r"^Args:\n((?:(?: {4}.*)?\n)+)", inspect.cleandoc(text) + "\n", re.MULTILINE)
    body = section[1] if section else ""
    heads = re.findall(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:(?: |\n)", body, re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in head.split(", ")]


def arguments(value: Any) -> tuple[set[str], set[str], bool]:
    """Its own arguments, those of an unpacked TypedDict (documented there), and whether others are taken too."""
    function = value.__init__ if inspect.isclass(value) else value
    names: set[str] = set()
    shared: set[str] = set()
    more = False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            names.add(parameter.name)
            continue
        hint = parameter.annotation
        unpacked = typing.get_args(eval(hint, inspect.unwrap(function).__globals__) if isinstance(hint, str) else hint)
        if unpacked and typing.is_typeddict(unpacked[0]):
            shared |= set(typing.get_type_hints(unpacked[0]))
        else:
            more = True
    return names - {"self", "cls"}, shared, more


@pytest.mark.parametrize("name", MODULES)
def test_what_is_documented_is_taken(name: str) -> None:
    module = pytest.importorskip(name)
    wrong = []
    for path, value in members(module):
        listed = documented(value.__doc__ or "")
        if not listed:
            continue
        taken, shared, more = arguments(value)
        if not more and (unknown := set(listed) - taken - shared):
            wrong.append(f"{path} documents {sorted(unknown)}, and takes {sorted(taken)}")
        if missing := taken - set(listed):
            wrong.append(f"{path} takes {sorted(missing)}, which it does not document")
    assert not wrong, "\n".join(wrong)
