"""Native objects that are built when they are first looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Deferred:
    """A native object that is built when it is first looked at: most candidates' are not.

    Args:
        build: a function of a module, so that this can be pickled.
        data: its argument.
    """

    __slots__ = ("_build", "_data", "_made")

    def __init__(self, build: Callable[[Any], Any], data: Any) -> None:
        self._build, self._data = build, data

    @property
    def data(self) -> Any:
        """What it is built from."""
        return self._data

    def __call__(self) -> Any:
        """The object; the same one each time."""
        if not hasattr(self, "_made"):
            self._made = self._build(self._data)
        return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return Deferred, (self._build, self._data)


class Output:
    """The field `output`, whose value may be `Deferred`."""

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        if owner is None:
            return self
        value = vars(owner)["output"]
        if type(value) is Deferred:
            value = vars(owner)["output"] = value()
        return value

    def __set__(self, owner: object, value: Any) -> None:
        vars(owner)["output"] = value


def held_output(thing: object) -> Any:
    """Return the `output` of a generation or candidate as it is held: it may be `Deferred` still."""
    return vars(thing)["output"]
