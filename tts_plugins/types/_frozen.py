"""What frozen objects share: an empty mapping, and a quick way to build one of checked values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
