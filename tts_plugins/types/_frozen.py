"""What frozen objects share: an empty mapping, a quick way to build one, and outputs that are built when looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class _Empty(Mapping[str, Any]):
    """A mapping of nothing that cannot be changed; unlike a proxy of a dict, it can be pickled and copied."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def get(self, key: str, default: Any = None) -> Any:
        return default  # without an exception on the way

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY: Mapping[str, Any] = _Empty()


def from_checked(kind: type[T], values: dict[str, Any]) -> T:
    """Build a frozen object of values that were checked before; `__init__` would set and check them one by one."""
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", values)
    return made


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
