"""The base class of a policy's parts, which gives them a form in JSON files; and what they were fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from tts_plugins._internal.config import Configured
from tts_plugins.errors import ConfigurationError


def check_list(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a list, a tuple, an array or the like."""
    if not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping):
        raise ConfigurationError(f"{owner}: {name}={value!r:.80} must be a list")


class Part(Configured):
    """A configured part of a policy.

    Raises:
        ConfigurationError: a field is of another kind than it says, as in a file that was edited by hand.
    """

    family: ClassVar[str] = "policies"

    def __post_init__(self) -> None:
        check_kinds(self)


def check_kinds(made: Any) -> None:
    """Raise unless each field of a dataclass holds what its annotation says."""
    cls: Any = type(made)
    hints = _hints(cls)
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        if field.init and not _is(value, hints[field.name]):
            raise ConfigurationError(
                f"{type(made).__name__}: {field.name}={value!r:.80} is not of the kind {_said(hints[field.name])}"
            )


@cache
def _hints(cls: Any) -> Mapping[str, Any]:
    return get_type_hints(cls)


def _is(value: object, hint: Any) -> bool:
    kinds = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_is(value, kind) for kind in kinds)
    if get_origin(hint) is Literal:
        return value in kinds
    if get_origin(hint) is tuple:
        wanted = kinds[:1] * len(value) if isinstance(value, tuple) and kinds[-1] is Ellipsis else kinds
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_is, value, wanted))
    if hint in (int, float):  # numpy's numbers too
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, get_origin(hint) or hint)


def _said(hint: Any) -> str:
    """Return an annotation in words: without the modules that names stand in."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_said, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"list of {_said(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return "null" if hint is type(None) else str(hint.__name__)


def same_name(fitted: str | None, given: str | None) -> bool:
    """Return whether what is given may be what was fitted to, or either is not known.

    A replay counts as its model, and a provider's prefix says nothing of the model: "openai/small" is "small".
    """
    if fitted is None or given is None:
        return True
    return fitted in (given.removeprefix("replay of "), given.partition("/")[2])
