"""What a function can be called with, beside what `inspect` says of its signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tts_plugins._internal.signatures import required_parameters, takes


@functools.wraps(lambda one, two, three: None)
def wrapping(*args: Any) -> None:
    """It has the signature of what it wraps."""


def saying(one: Any) -> None:
    """It says that it has another signature."""


saying.__signature__ = inspect.signature(lambda one, two: None)  # type: ignore[attr-defined]


class Called:
    """An object with a method, and one that can be called itself."""

    def __call__(self, one: Any, two: Any = None) -> None:
        """Nothing."""

    def method(self, one: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("function", "required", "counts"),
    [
        (lambda: None, 0, {0}),
        (lambda one: None, 1, {1}),
        (lambda one, two: None, 2, {2}),
        (lambda one, two=None: None, 1, {1, 2}),
        (lambda one=None, two=None: None, 2, {0, 1, 2}),
        (lambda one, /, two: None, 2, {2}),
        (lambda one, *rest: None, 1, {1, 2, 3}),
        (lambda *rest: None, 0, {0, 1, 2, 3}),
        (lambda one, **rest: None, 1, {1}),
        (lambda one, *, two: None, 1, set()),
        (lambda one, *, two=None: None, 1, {1}),
        (wrapping, 3, {3}),
        (saying, 2, {2}),
        (Called(), 1, {1, 2}),
        (Called().method, 1, {1}),
        (functools.partial(lambda one, two: None, 1), 1, {1}),
    ],
)
def test_places_of_a_function(function: Callable[..., Any], required: int, counts: set[int]) -> None:
    assert required_parameters(function) == required
    assert {given for given in range(4) if takes(function, given)} == counts
