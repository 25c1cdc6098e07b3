"""Copies of a program, one for each candidate, where it may keep state: no candidate reads what another one wrote."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import dspy

from tts_plugins_dspy._copying import DEEP, SHARED, Copying, could_change
from tts_plugins_dspy._state import may_change

_OWN = ("dspy", "tts_plugins_dspy")
_KEEPING = (types.FunctionType, dspy.PythonInterpreter)
"""What DSPy's own modules keep no state without: a `forward` that was set, and, before 3.3, an interpreter."""


def keeps_state(program: Any) -> bool:
    """Return whether a program may change its attributes, or what these hold.

    It errs on the side of yes: a copy that is not needed costs microseconds. DSPy's own modules keep none, unless they
    hold an interpreter. Another module keeps none if it holds nothing that could change, and its code only reads
    attributes of `self`.
    """
    return any(
        any(name not in SHARED and could_change(value) for name, value in vars(module).items())
        or any(may_change(kind, vars(module)) for kind in kinds)
        for module in modules_of(program)
        if (kinds := _classes(module)) or any(isinstance(value, _KEEPING) for value in vars(module).values())
    )


def isolated(program: Any, *, deep: bool = False) -> tuple[Any, dict[int, Any], dict[int, Any]]:
    """Return a copy of a program, its modules by the ids of their copies, and the copies by the ids of the modules.

    Copied are modules, containers, and objects that hold nothing but data. Language models, tools and clients are
    shared, and so are class attributes.

    Args:
        deep: copy other objects too, where they can be copied.
    """
    copying = Copying({id(module) for module in modules_of(program)}, deep)
    return copying.of(program), copying.originals, copying.copies


def modules_of(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """Yield a program and all modules in it, frozen ones too.

    `dspy.Module.named_parameters` looks at each of up to 10,000 entries of a history; this looks at none.
    """
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dspy.Module):
        yield value
        held: Any = [item for name, item in vars(value).items() if name not in SHARED]
    elif isinstance(value, list | dict | set | tuple) and len(value) <= DEEP:
        held = value.values() if isinstance(value, dict) else value
    else:
        return
    for item in held:
        yield from modules_of(item, seen)


def _classes(module: Any) -> list[type]:
    """A module's own classes, without DSPy's."""
    return [k for k in type(module).__mro__ if k is not object and k.__module__.partition(".")[0] not in _OWN]
