"""What a function can be called with, and errors that say so."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any, ParamSpec, TypeVar, cast

from tts_plugins.errors import UnknownSettingError

P = ParamSpec("P")
R = TypeVar("R")


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


def called_as(example: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function so that arguments that do not fit its signature are an error which shows how to call it.

    It costs nothing but a call: the signature is read once Python has refused the arguments. What `inspect` calls a
    coroutine function or an asynchronous generator function stays one.

    Args:
        example: the call to write: "Scaled(module, n=8)"; by default it is made from the signature.

    Raises:
        UnknownSettingError: by the function, in the place of Python's bare `TypeError`, which it is too.
    """

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError:
                wrong = _misfit(function, example, args, kwargs)
                if wrong is None:  # the function itself has raised it
                    raise
                raise UnknownSettingError(wrong) from None
            finally:
                del args, kwargs  # they may hold a key, which no traceback shows

        return _of_its_kind(function, call)

    return decorated


def _of_its_kind(function: Callable[P, R], call: Callable[P, R]) -> Callable[P, R]:
    """Return `call` as what `inspect` says that `function` is: a coroutine or an asynchronous generator function."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def iterated(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with contextlib.aclosing(cast(Any, call(*args, **kwargs))) as made:
                del args, kwargs
                async for each in made:
                    yield each

        return cast(Callable[P, R], iterated)
    if not inspect.iscoroutinefunction(function):
        return call

    @functools.wraps(function)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
        made = cast(Any, call(*args, **kwargs))
        del args, kwargs  # of thousands in flight, none need keep them
        return await made

    return cast(Callable[P, R], awaited)


def explain_calls(classes: Iterable[object]) -> None:
    """Have wrong arguments of these classes raise an error that shows how to call them, as `called_as` does."""
    for cls in classes:
        for name in ("__init__", "__new__"):
            if isinstance(cls, type) and name in vars(cls):
                setattr(cls, name, called_as()(getattr(cls, name)))


def _misfit(function: Callable[..., Any], example: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Return what does not fit and what to write; None if all fit, or nobody can tell."""
    if (signature := signature_of(function)) is None:
        return None
    try:
        signature.bind(*args, **kwargs)
        return None
    except TypeError as error:
        misfit = str(error)
    known = list(signature.parameters.values())
    owner = function.__name__
    if owner in ("__init__", "__new__"):
        made, known, args = args[0], known[1:], args[1:]
        owner = (made if isinstance(made, type) else type(made)).__name__
    by_place = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in known if p.kind is p.KEYWORD_ONLY]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known)
    surplus = args[len(by_place) :]
    example = example or f"{owner}({', '.join(_arguments(by_place, by_name, surplus))})"
    if surplus:
        return f"{owner}: {_shown(surplus[0])} is given by its place, and settings are given by name; write {example}"
    if not takes_any and (wrong := unknown_name(kwargs, [p.name for p in by_place] + by_name)):
        return f"{owner}: {wrong}"
    return f"{owner}: {misfit}; write {example}"


def _arguments(by_place: list[inspect.Parameter], by_name: list[str], surplus: tuple[Any, ...]) -> Iterator[str]:
    yield from (p.name for p in by_place if p.default is p.empty or surplus)
    for name, value in zip(by_name, surplus, strict=False):
        yield f"{name}={value!r}" if isinstance(value, int | float) else f"{name}=…"
    if by_name and not surplus:
        yield f"{by_name[0]}=…"


def _shown(value: Any) -> str:
    """Return the value as an error may show it: a text may be a key."""
    return repr(value) if value is None or isinstance(value, int | float) else f"a value of type {type(value).__name__}"


def unknown_name(given: Iterable[str], known: Collection[str]) -> str | None:
    """Return what is wrong with the first name that is not known, and the one that may be meant; else None."""
    for name in sorted(name for name in given if name not in known):
        near = difflib.get_close_matches(name, sorted(known), 1)
        meant = f"did you mean {near[0]!r}? Or " if near else ""
        listed = f"use one of {', '.join(sorted(known))}" if known else "it takes none"
        return f"{name!r} is not a setting; {meant}{listed}"
    return None


def check_names(owner: str, given: Collection[str], known: Collection[str]) -> None:
    """Check the names of settings.

    Raises:
        UnknownSettingError: one is not known; the message has the one that may be meant, and all that are known.
    """
    if wrong := unknown_name(given, known):
        raise UnknownSettingError(f"{owner}: {wrong}")
