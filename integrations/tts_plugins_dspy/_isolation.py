"""Copies of a program, one for each candidate, where it keeps state: what one writes to `self` no other one reads."""

from __future__ import annotations

import copy
import dis
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

import dspy

_CHANGED = frozenset({"STORE_ATTR", "DELETE_ATTR"})
_ITEMS = frozenset({"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"})
_METHODS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem", "popleft"}
    | {"remove", "reverse", "setdefault", "sort", "update"}
)
_CONTAINERS = (list, dict, set)
_SHARED = frozenset({"history", "callbacks"})  # DSPy's own, to which calls are added
_SETUP = frozenset({"__init__", "__setstate__", "__getstate__", "load_state", "dump_state"})
_DEEP = 1_000  # items of a container at most that are looked at one by one


def keeps_state(program: Any) -> bool:
    """Return whether the code of a program changes its attributes, or the lists and dicts that these hold.

    It errs on the side of yes: a copy that is not needed costs microseconds. It reads the classes that are not DSPy's,
    and cannot see a change that another function or object makes.
    """
    for module in _modules(program, set()):
        held = {name for name, value in vars(module).items() if isinstance(value, _CONTAINERS) and name not in _SHARED}
        if any(_changes(code, held) for function in _functions(module) for code in _codes(function.__code__)):
            return True
    return False


def isolated(program: Any, *, deep: bool = False) -> tuple[Any, dict[int, Any], dict[int, Any]]:
    """Return a copy of a program, its modules by the ids of their copies, and the copies by the ids of the modules.

    Args:
        deep: copy objects too that are not modules, where they can be copied.
    """
    copies: dict[int, Any] = {}
    originals: dict[int, Any] = {}
    return _copied(program, copies, originals, deep), originals, copies


def _copied(value: Any, made: dict[int, Any], originals: dict[int, Any], deep: bool) -> Any:
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, dspy.Module):
        new = made[id(value)] = object.__new__(type(value))
        originals[id(new)] = value
        for name, held in vars(value).items():
            vars(new)[name] = held if name in _SHARED else _copied(held, made, originals, deep)
        return new
    if isinstance(value, MethodType) and id(value.__self__) in made:
        return MethodType(value.__func__, made[id(value.__self__)])  # a `forward` that was set on the object
    kind = type(value)
    if kind in _CONTAINERS or kind is tuple:
        return _copied_container(value, made, originals, deep)
    if deep and not isinstance(value, dspy.BaseLM | dspy.Example | type | FunctionType | MethodType):
        try:
            return copy.deepcopy(value)
        except Exception:  # noqa: BLE001 - such as locks and clients; DSPy shares these too
            return value
    return value


def _copied_container(value: Any, made: dict[int, Any], originals: dict[int, Any], deep: bool) -> Any:
    if len(value) > _DEEP:
        return copy.copy(value)
    if type(value) is dict:
        entries = dict[Any, Any]()
        made[id(value)] = entries
        entries.update((key, _copied(item, made, originals, deep)) for key, item in value.items())
        return entries
    if type(value) is list:
        made[id(value)] = items = list[Any]()
        items.extend(_copied(item, made, originals, deep) for item in value)
        return items
    return type(value)(_copied(item, made, originals, deep) for item in value)


def _modules(value: Any, seen: set[int]) -> Iterator[Any]:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dspy.Module):
        yield value
        held: Any = [item for name, item in vars(value).items() if name not in _SHARED]
    elif isinstance(value, (*_CONTAINERS, tuple)) and len(value) <= _DEEP:
        held = value.values() if isinstance(value, dict) else value
    else:
        return
    for item in held:
        yield from _modules(item, seen)


def _functions(module: Any) -> Iterator[FunctionType]:
    """The functions of a module's own classes, and those that were set on the object."""
    for kind in type(module).__mro__:
        if kind is object or kind.__module__.partition(".")[0] in ("dspy", "tts_plugins_dspy"):
            continue
        for name, value in vars(kind).items():
            if name not in _SETUP:
                yield from _plain(value)
    for value in vars(module).values():
        yield from _plain(value)


def _plain(value: Any) -> Iterator[FunctionType]:
    parts: tuple[Callable[..., Any] | None, ...] = (value,)
    if isinstance(value, property):
        parts = (value.fget, value.fset)
    for part in parts:
        function = getattr(part, "__func__", part)
        function = getattr(function, "__wrapped__", function)
        if isinstance(function, FunctionType):
            yield function


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _changes(code: CodeType, held: set[str]) -> bool:
    """Whether it sets an attribute, or changes something while it uses one of the containers that are held."""
    steps = list(dis.get_instructions(code))
    if any(step.opname in _CHANGED for step in steps) or "setattr" in code.co_names:
        return True
    return bool(held & set(code.co_names)) and (
        any(step.opname in _ITEMS for step in steps) or not _METHODS.isdisjoint(code.co_names)
    )
