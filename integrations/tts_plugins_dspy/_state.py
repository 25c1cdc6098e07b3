"""Whether the code of a class may change the objects that it is called on. Pure."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

_CHANGING = frozenset({"STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"})
_METHODS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem", "popleft"}
    | {"remove", "reverse", "setdefault", "sort", "update", "subtract", "setattr", "delattr", "vars", "__dict__"}
)
_READING = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_NAMING = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
_SETUP = frozenset({"__init__", "__setstate__", "__getstate__", "load_state", "dump_state", "__repr__"})


def may_change(kind: type, held: Mapping[str, Any]) -> bool:
    """Return whether a method of a class, or a function held by an object of it, may change the object.

    Args:
        held: the object's attributes.
    """
    return _class_may_change(kind) or any(
        _code_may_change(function.__code__) for value in held.values() for function in _functions(value)
    )


@functools.lru_cache(maxsize=1024)  # each search of a program asks anew
def _class_may_change(kind: type) -> bool:
    for name, value in vars(kind).items():
        if name in _SETUP:
            continue
        if isinstance(value, functools.cached_property):
            return True
        if any(_code_may_change(function.__code__) for function in _functions(value)):
            return True
    return False


def _functions(value: Any) -> Iterator[FunctionType]:
    parts = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
    for part in parts:
        function = getattr(part, "__func__", part)
        while isinstance(function, FunctionType):
            yield function
            function = getattr(function, "__wrapped__", None)


@functools.lru_cache(maxsize=4096)
def _code_may_change(code: CodeType, self_name: str = "") -> bool:
    """Whether code, or a function in it, changes anything that is not its own variable, or lets `self` out of hand."""
    own = code.co_varnames[0] if code.co_argcount and not self_name else self_name
    if not _METHODS.isdisjoint(code.co_names):
        return True
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PRECALL")]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if step.opname in _CHANGING:
            return True
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        if not own or own not in names or not step.opname.startswith(_NAMING):
            continue
        if own != names[-1] or following is None or not following.opname.startswith(_READING):
            return True  # `self` is given away, to a function that may change it
    return any(_code_may_change(const, own) for const in code.co_consts if isinstance(const, CodeType))
