"""The settings that `Scaled`, its short forms and `ScaledLM` take: checked in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from tts_plugins.adapters import (
    AdapterOptions,
    ProfileOptions,
    SearchOptions,
    SearchSettings,
    StrategyOptions,
    as_plain_number,
    is_number,
    is_whole,
)
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import SetVerifier, Verifier

AnyVerifier = Verifier | SetVerifier | Callable[..., Any]


class Held(SearchSettings):
    """Settings that copies of a program share: optimisers copy programs, and a ledger or a judge is one."""

    def __deepcopy__(self, memo: Any) -> Held:
        return self


class LMOptions(SearchOptions, total=False):
    """The keyword arguments of `ScaledLM`."""

    verifier: AnyVerifier | None
    temperature: float | None


class ShortFormOptions(AdapterOptions, ProfileOptions, total=False):
    """The keyword arguments of `BestOfN` and `Refine`, which are strategies themselves."""

    verifier: AnyVerifier | None
    temperature: float | None
    copy: bool | Literal["auto"]


class ProgramOptions(ShortFormOptions, StrategyOptions, total=False):
    """The keyword arguments of `Scaled`."""


def check_temperature(owner: str, value: Any) -> float | None:
    """Return the temperature for calls that set none, or None, with which none is sent.

    Raises:
        ConfigurationError: it is not a number above 0 and at most 2: samples at 0 would all be the same.
    """
    if value is None:
        return None
    number = as_plain_number(value)
    if not is_number(number) or not 0 < number <= 2:
        raise ConfigurationError(
            f"{owner}: temperature={value!r} must be a number above 0 and at most 2; pass None to send none"
        )
    return float(number)


def check_copy(owner: str, value: Any) -> bool | str:
    """Return what `copy=` says.

    Raises:
        ConfigurationError: it is neither True, nor False, nor "auto".
    """
    if not isinstance(value, bool) and value != "auto":
        raise ConfigurationError(f"{owner}: copy={value!r} is not known; use 'auto', True or False")
    made: bool | str = value
    return made


def check_fail_count(owner: str, value: Any) -> int | None:
    """Return how many attempts may fail before the failure is raised; None for all but the last one.

    Raises:
        ConfigurationError: it is not a whole number of at least 0.
    """
    if value is not None and not is_whole(value, 0):
        raise ConfigurationError(f"{owner}: fail_count={value!r} must be a whole number of at least 0, or left out")
    return value
