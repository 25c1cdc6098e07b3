"""Copies of modules, and of the data that they hold."""

from __future__ import annotations

import abc
import array
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import itertools
import logging
import pathlib
import random
import re
import threading
import types
import typing
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import numpy as np
from dspy.utils.callback import BaseCallback
from pydantic import BaseModel

SHARED = frozenset({"history", "callbacks"})
"""Attributes of DSPy's own, to which calls are added."""
DEEP = 1_000
"""Items of a container at most that are looked at one by one."""
_BYTES = 1_000_000  # of an array at most that is copied: a larger one is an index, or a model
_CONTAINERS = (list, dict, set, tuple, collections.deque, bytearray)
_BUFFERS = (array.array, io.StringIO, io.BytesIO)
_UNCHANGING = (
    *(type(None), bool, int, float, complex, str, bytes, range, frozenset, type, enum.Enum, re.Pattern, uuid.UUID),
    *(decimal.Decimal, fractions.Fraction, datetime.date, datetime.time, datetime.timedelta, pathlib.PurePath),
    *(types.FunctionType, types.ModuleType, type(threading.Lock()), type(threading.RLock()), np.generic),
    *(random.Random, np.random.Generator, itertools.count),  # copies would all draw the same
    *(dspy.BaseLM, BaseCallback, logging.Logger),
)
"""What copies share: it does not change, or is meant to be shared."""
_UNSTARTED = {"deno_process": None, "_owner_thread": None, "_mounted_files": False, "_tools_registered": False}
"""What a `dspy.PythonInterpreter` holds of the process that it has started."""
_METACLASSES = (type, abc.ABCMeta, type(typing.Protocol))


class _NoData(Exception):
    """An object holds more than data: a client, a thread, a file."""


class Copying:
    """One copy of a program.

    Args:
        modules: the ids of the program's modules.
        deep: copy other objects too, where they can be copied.

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
        before, self._left = dict(self.copies), DEEP
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
            vars(new)[name] = held if name in SHARED else self.of(held)
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
        if len(value) <= DEEP and not isinstance(value, set | bytearray):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                new[key] = of(item)
        for name, held in getattr(new, "__dict__", {}).items():  # of a class of the user's
            vars(new)[name] = of(held)
        return new

    def _data(self, value: Any) -> Any:
        """The copy of a module, or of an object that holds data.

        Raises:
            _NoData: it holds something else, or more than can be looked at.
        """
        if isinstance(value, _UNCHANGING) or id(value) in self.copies:
            return self.copies.get(id(value), value)
        if isinstance(value, types.MethodType | types.BuiltinFunctionType | functools.partial):
            return self._function(value)
        if isinstance(value, dspy.Module):
            return self._module(value)
        if isinstance(value, _CONTAINERS):
            return self._container(value, self._data)
        if isinstance(value, dspy.PythonInterpreter):
            return self._interpreter(value)
        self._left -= 1
        if self._left < 0 or not (_is_buffer(value) or is_plain(value)):
            raise _NoData
        return self._buffer(value) if _is_buffer(value) else self._object(value)

    def _function(self, value: Any) -> Any:
        """A tool, a `forward` that was set on the object, or a method of what it holds."""
        if isinstance(value, functools.partial):
            words = {name: self._data(word) for name, word in value.keywords.items()}
            return functools.partial(self._data(value.func), *map(self._data, value.args), **words)
        owner = value.__self__
        if isinstance(value, types.BuiltinFunctionType):
            return getattr(self._data(owner), value.__name__) if isinstance(owner, _CONTAINERS) else value
        if isinstance(owner, dspy.Module) and id(owner) not in self._modules:
            return value
        return types.MethodType(value.__func__, self._data(owner))

    def _interpreter(self, value: Any) -> Any:
        """An interpreter as it was before it was started: one that runs belongs to a single thread."""
        new = self.copies[id(value)] = copy.copy(value)
        for name, held in vars(value).items():
            vars(new)[name] = _UNSTARTED.get(name, copy.copy(held) if isinstance(held, _CONTAINERS) else held)
        return new

    def _buffer(self, value: Any) -> Any:
        new = self.copies[id(value)] = copy.copy(value)
        return new

    def _object(self, value: Any) -> Any:
        kind: Any = type(value)
        if isinstance(value, BaseModel):
            new = copy.copy(value)
        else:
            new = (types.SimpleNamespace if isinstance(value, types.SimpleNamespace) else object).__new__(kind)
        self.copies[id(value)] = new
        for name, held in getattr(value, "__dict__", {}).items():
            vars(new)[name] = self._data(held)
        for name in _slots(kind):
            if hasattr(value, name):
                object.__setattr__(new, name, self._data(getattr(value, name)))
        return new


def could_change(value: Any) -> bool:
    """Return whether it is a container, or an object of data, or has one in it."""
    if isinstance(value, tuple):
        return any(map(could_change, value))
    if isinstance(value, functools.partial):
        return could_change((value.func, *value.args, *value.keywords.values()))
    if isinstance(value, types.MethodType | types.BuiltinFunctionType):
        return not isinstance(value.__self__, dspy.Module) and could_change(value.__self__)
    if isinstance(value, (dspy.Module, *_UNCHANGING)):  # modules are looked at themselves
        return False
    return isinstance(value, (*_CONTAINERS, dspy.PythonInterpreter)) or _is_buffer(value) or is_plain(value)


def _is_buffer(value: Any) -> bool:
    return isinstance(value, _BUFFERS) or (isinstance(value, np.ndarray) and value.nbytes <= _BYTES)


def is_plain(value: Any) -> bool:
    """Return whether an object is its attributes and nothing else: it has no way to be closed, or copied."""
    kind = type(value)
    if isinstance(value, BaseModel | dspy.Example) or dataclasses.is_dataclass(kind):
        return True
    if type(kind) not in _METACLASSES or isinstance(value, threading.Thread):
        return False
    makers: tuple[Any, ...] = (object.__new__, types.SimpleNamespace.__new__)
    closed = any(hasattr(kind, name) for name in ("__del__", "__enter__", "__aenter__", "close", "__deepcopy__"))
    # What is neither in `__dict__` nor in slots would be lost: it is code in C that knows of it.
    written = hasattr(value, "__dict__") or all("__slots__" in vars(base) for base in kind.__mro__[:-1])
    return kind.__new__ in makers and not closed and written


def _slots(kind: type) -> Iterator[str]:
    """Yield the names of the attributes that are in slots, as Python stores them."""
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            private = name.startswith("__") and not name.endswith("__")
            if name not in ("__dict__", "__weakref__"):
                yield f"_{base.__name__.lstrip('_')}{name}" if private else name
