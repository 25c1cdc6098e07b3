"""Read values of unknown kinds: parts of a reply or of an error, whatever it is made of; numbers, which True is not."""

from __future__ import annotations

import functools
import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard


def once_made(shown: Callable[[Any], str]) -> Callable[[Any], str]:
    """Have a `__repr__` show an object too whose constructor has failed: a traceback with local variables has it."""

    @functools.wraps(shown)
    def __repr__(self: Any) -> str:
        try:
            return shown(self)
        except AttributeError:
            return f"<{type(self).__name__}, not made>"

    return __repr__


def field(thing: Any, name: str) -> Any:
    """Return the value under a name; None if there is none."""
    if type(thing) is dict:  # most are, and checking for a mapping takes ten times as long
        return thing.get(name)
    if thing is None:
        return None
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def fields_of(thing: Any) -> Mapping[str, Any]:
    """Return all names and values of a mapping or an object, without conversion of what is inside."""
    if type(thing) is dict or isinstance(thing, Mapping):
        return thing
    if hasattr(type(thing), "model_fields"):  # pydantic: what the server added is kept separately
        return {**vars(thing), **(getattr(thing, "model_extra", None) or {})}
    return vars(thing) if hasattr(thing, "__dict__") else {}


def listed(value: Any) -> list[Any]:
    """Return the value if it is a list, else []: servers send null, strings and mappings in its place."""
    return value if isinstance(value, list) else []


def linked(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it leads to, each once, the nearest first: causes, contexts, members of groups.

    A context counts even if it is suppressed: one HTTP client hides what the system said.
    """
    found, seen = [error], {id(error)}
    for each in found:
        yield each
        # `os_error` is aiohttp's, `exceptions` a group's, and `errors` that of `AllCandidatesFailed`.
        held = [attribute_of(each, name) for name in ("os_error", "exceptions", "errors")]
        inside = [one for part in held for one in (part if isinstance(part, list | tuple) else (part,))]
        for one in (each.__cause__, each.__context__, *inside):
            if isinstance(one, BaseException) and id(one) not in seen:
                seen.add(id(one))
                found.append(one)


def attribute_of(error: BaseException | None, name: str) -> Any:
    """Return an attribute of an error of any class; None where it has none, or where its own code fails.

    What that code raises must not take the place of the error.
    """
    try:
        return getattr(error, name, None)
    except Exception:  # noqa: BLE001 - as above
        return None


def is_whole(value: object, least: float = -math.inf) -> TypeGuard[int]:
    """Return whether the value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Return whether the value is a finite number, and a whole one is not too large for a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_whole(value) and abs(value) <= sys.float_info.max


def as_plain_number(value: Any) -> Any:
    """Return a number of another library's type, such as `numpy.int64`, as Python's own; anything else as it is."""
    if isinstance(value, bool | int | float) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def effort_fields(effort: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a call that ask for a reasoning effort: `reasoning_effort`, or those that are given."""
    if effort is None:
        return {}
    return {"reasoning_effort": effort} if isinstance(effort, str) else dict(effort)


def is_ours(thing: object) -> bool:
    """Return whether a function, or an object by its class, is of this package or one of its integrations."""
    return str(getattr(thing, "__module__", "")).startswith(("tts_plugins.", "tts_plugins_"))


def name_of(thing: object) -> str | None:
    """Return the name of a model or a verifier; where it stands for another one, that one's."""
    name: str | None = getattr(thing, "stands_for", None) or getattr(thing, "name", None)
    return name
