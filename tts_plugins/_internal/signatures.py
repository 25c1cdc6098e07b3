"""What a function can be called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature; None if it has none to read, like some built-ins."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def takes(function: Callable[..., Any], given: int, *by_name: str) -> bool:
    """Return whether it can be called with so many positional arguments; True if nobody can tell.

    Args:
        by_name: what else it gets, if it has parameters of these names.
    """
    if not by_name and (known := _places(function)) is not None:
        return known[0] <= given <= known[1]
    if (signature := signature_of(function)) is None:
        return True
    try:
        signature.bind(*[None] * given, **dict.fromkeys(name for name in by_name if name in signature.parameters))
    except TypeError:
        return False
    return True


def required_parameters(function: Callable[..., Any]) -> int:
    """Return how many positional parameters are required, or, if none is, accepted; 2 if nobody can tell."""
    if (known := _places(function)) is not None:
        return known[0] or known[1]
    if (signature := signature_of(function)) is None:
        return 2
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in signature.parameters.values() if p.kind in kinds]
    return len([p for p in places if p.default is inspect.Parameter.empty]) or len(places)


def _places(function: Callable[..., Any]) -> tuple[int, int] | None:
    """Return how many positional arguments a plain function requires, and how many it accepts; else None.

    Searches ask it of the same functions again and again, and a signature takes long to make.
    """
    if type(function) is not FunctionType or vars(function):  # it may say that it has another signature
        return None
    code = function.__code__
    if code.co_kwonlyargcount or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - len(function.__defaults__ or ()), code.co_argcount
