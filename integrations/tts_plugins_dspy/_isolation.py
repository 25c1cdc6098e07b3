"""Copies of a program, one for each candidate, where it may keep state: no candidate reads what another one wrote."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import logging
import pathlib
import re
import threading
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from pydantic import BaseModel

from tts_plugins_dspy._state import may_change

_SHARED = frozenset({"history", "callbacks"})  # DSPy's own, to which calls are added
_OWN = ("dspy", "tts_plugins_dspy")
_DEEP = 1_000  # items of a container at most that are looked at one by one
_CONTAINERS = (list, dict, set, tuple, collections.deque, bytearray)
_UNCHANGING = (
    *(type(None), bool, int, float, complex, str, bytes, range, frozenset, type, enum.Enum, re.Pattern, uuid.UUID),
    *(decimal.Decimal, fractions.Fraction, datetime.date, datetime.time, datetime.timedelta, pathlib.PurePath),
    *(types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type(threading.Lock()), type(threading.RLock())),
    *(dspy.BaseLM, BaseCallback, logging.Logger),
)
"""What copies share: it does not change, or is meant to be shared."""


class _NoData(Exception):
    """An object holds more than data: a client, a lock, a file."""


def keeps_state(program: Any) -> bool:
    """Return whether a program may change its attributes, or what these hold.

    It errs on the side of yes: a copy that is not needed costs microseconds. DSPy's own modules keep none. Another
    module keeps none if it holds nothing that could change, and its code only reads attributes of `self`.
    """
    return any(
        any(name not in _SHARED and _could_change(value) for name, value in vars(module).items())
        or any(may_change(kind, vars(module)) for kind in kinds)
        for module in modules_of(program)
        if (kinds := _classes(module)) or any(isinstance(value, types.FunctionType) for value in vars(module).values())
    )


def isolated(program: Any, *, deep: bool = False) -> tuple[Any, dict[int, Any], dict[int, Any]]:
    """Return a copy of a program, its modules by the ids of their copies, and the copies by the ids of the modules.

    Copied are modules, containers, and objects that hold nothing but data. Language models, tools and clients are
    shared, and so are class attributes.

    Args:
        deep: copy other objects too, where they can be copied.
    """
    copying = _Copying({id(module) for module in modules_of(program)}, deep)
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
        held: Any = [item for name, item in vars(value).items() if name not in _SHARED]
    elif isinstance(value, list | dict | set | tuple) and len(value) <= _DEEP:
        held = value.values() if isinstance(value, dict) else value
    else:
        return
    for item in held:
        yield from modules_of(item, seen)


def _classes(module: Any) -> list[type]:
    """A module's own classes, without DSPy's."""
    return [k for k in type(module).__mro__ if k is not object and k.__module__.partition(".")[0] not in _OWN]


class _Copying:
    """One copy of a program.

    Attributes:
        copies: what was copied, by the ids of the originals.
        originals: the program's modules, by the ids of their copies.
    """

    def __init__(self, modules: set[int], deep: bool) -> None:
        self._modules, self._deep = modules, deep
        self._left = 0  # objects that the one that is being copied may still have
        self.copies: dict[int, Any] = {}
        self.originals: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """Return its copy, or the value itself where it is shared."""
        if isinstance(value, _CONTAINERS) and id(value) not in self.copies:
            return self._container(value, self.of)
        before, self._left = dict(self.copies), _DEEP
        try:
            return self._data(value)
        except Exception:  # noqa: BLE001 - `_NoData`, and what a class of the user's may raise as it is copied
            self.copies = before
        if self._deep:
            try:
                return copy.deepcopy(value)
            except Exception:  # noqa: BLE001 - such as clients; DSPy shares these too
                return value
        return value

    def _module(self, module: Any) -> Any:
        new = self.copies[id(module)] = object.__new__(type(module))
        self.originals[id(new)] = module
        for name, held in vars(module).items():
            vars(new)[name] = held if name in _SHARED else self.of(held)
        return new

    def _container(self, value: Any, of: Callable[[Any], Any]) -> Any:
        if isinstance(value, tuple):
            items = [of(item) for item in value]
            if all(new is old for new, old in zip(items, value, strict=True)):
                return value
            made: Callable[..., Any] = getattr(type(value), "_make", type(value))  # a named tuple has `_make`
            return made(items)
        try:
            new = self.copies[id(value)] = copy.copy(value)
        except Exception:  # noqa: BLE001 - a class of the user's
            return value
        if len(value) <= _DEEP and not isinstance(value, set | bytearray):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                new[key] = of(item)
        return new

    def _data(self, value: Any) -> Any:
        """The copy of a module, or of an object that holds data.

        Raises:
            _NoData: it holds something else, or more than can be looked at.
        """
        if isinstance(value, _UNCHANGING) or id(value) in self.copies:
            return self.copies.get(id(value), value)
        if isinstance(value, types.MethodType):  # a tool, or a `forward` that was set on the object
            if isinstance(value.__self__, dspy.Module) and id(value.__self__) not in self._modules:
                return value
            return types.MethodType(value.__func__, self._data(value.__self__))
        if isinstance(value, functools.partial):
            words = {name: self._data(word) for name, word in value.keywords.items()}
            return functools.partial(self._data(value.func), *map(self._data, value.args), **words)
        if isinstance(value, dspy.Module):
            return self._module(value)
        if isinstance(value, _CONTAINERS):
            return self._container(value, self._data)
        self._left -= 1
        if self._left < 0 or not _is_plain(value):
            raise _NoData
        new = self.copies[id(value)] = copy.copy(value) if isinstance(value, BaseModel) else object.__new__(type(value))
        for name, held in vars(value).items():
            vars(new)[name] = self._data(held)
        return new


def _could_change(value: Any) -> bool:
    """Whether it is a container, or an object of data, or has one in it."""
    if isinstance(value, tuple):
        return any(map(_could_change, value))
    if isinstance(value, (dspy.Module, types.MethodType, *_UNCHANGING)):  # modules are looked at themselves
        return False
    return isinstance(value, _CONTAINERS) or _is_plain(value)


def _is_plain(value: Any) -> bool:
    """Whether an object is its attributes and nothing else: it has no slots, no way to be closed, or copied."""
    kind = type(value)
    if isinstance(value, BaseModel | dspy.Example) or dataclasses.is_dataclass(kind):
        return hasattr(value, "__dict__")
    if not hasattr(value, "__dict__") or (type(kind) is not type and not isinstance(value, types.SimpleNamespace)):
        return False
    makers: tuple[Any, ...] = (object.__new__, types.SimpleNamespace.__new__)
    closed = any(hasattr(kind, name) for name in ("__del__", "__enter__", "__aenter__", "close", "__deepcopy__"))
    return kind.__new__ in makers and not closed and all("__slots__" not in vars(k) for k in kind.__mro__[:-1])
