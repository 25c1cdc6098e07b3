"""The keyword arguments of `solve` and of every adapter, declared once, with their defaults and their checks.

To add a setting that `solve` and all adapters take, add it to `CommonOptions` (for type checkers), to `CommonSettings`
(with its default) and to `check_common`. It then reaches the engine's settings and those of every adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Required, TypedDict

from tts_plugins._internal.values import is_whole
from tts_plugins._trace.recorder import Listener
from tts_plugins.answers import AnswerKey
from tts_plugins.budget import Budget
from tts_plugins.confidence import check_threshold
from tts_plugins.errors import ConfigurationError, UnknownSettingError
from tts_plugins.ledger import Ledger
from tts_plugins.protocols import Model, SetVerifier, Strategy, Verifier
from tts_plugins.types import OnAbstain

OnExhausted = Literal["return", "raise"]
PROFILE_VARIABLE = "TTS_PLUGINS_PROFILE"
"""The environment variable that names the profile of solves and wrappers which are given none."""


class CommonOptions(TypedDict, total=False):
    """What `solve` and every adapter take, with the same meaning. `solve` says what each is for."""

    seed: int | None
    on_exhausted: OnExhausted
    abstain_below: float | None
    on_abstain: OnAbstain
    escalate: Any


class SolveOptions(CommonOptions, total=False):
    """The keyword arguments of `solve`, `solve_sync`, `solve_many` and `solve_events`."""

    model: Required[Model]
    strategy: Strategy | None
    verifier: Verifier | SetVerifier | Callable[..., Any] | None
    budget: Budget | Ledger | None
    answer: AnswerKey
    profile: str | None
    attempts: int
    listener: Listener | None


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """The values of `CommonOptions`, with their defaults."""

    seed: int | None = None
    on_exhausted: OnExhausted = "return"
    abstain_below: float | None = None
    on_abstain: OnAbstain = "none"
    escalate: Any = None

    def common(self) -> dict[str, Any]:
        """Return these settings as keyword arguments of `solve`."""
        return {field.name: getattr(self, field.name) for field in fields(CommonSettings)}


def check_common(owner: str, given: Mapping[str, Any]) -> None:
    """Check the values of `CommonOptions`, of those that are given.

    Raises:
        ConfigurationError: a value is wrong.
    """
    seed = given.get("seed")
    if seed is not None and not is_whole(seed):
        raise ConfigurationError(f"{owner}: seed={seed!r} must be a whole number, or None to draw one")
    on_exhausted = given.get("on_exhausted", "return")
    if on_exhausted not in ("return", "raise"):
        raise ConfigurationError(f"{owner}: on_exhausted={on_exhausted!r} is not known; use 'return' or 'raise'")
    check_threshold(owner, given.get("abstain_below"))
    on_abstain = given.get("on_abstain", "none")
    if on_abstain not in ("none", "raise", "escalate"):
        raise ConfigurationError(f"{owner}: on_abstain={on_abstain!r} is not known; use 'none', 'raise' or 'escalate'")


def check_placed(call: str, placed: Sequence[Any]) -> None:
    """Check that no setting was given by its place in a call.

    Args:
        call: how the call begins, with what may be given by place: "Scaled(module".

    Raises:
        UnknownSettingError: some were; the message has the call to write.
    """
    if placed:
        opening = call if call.endswith("(") else f"{call}, "
        named = ", ".join(f"{_meant(value)}={_short(value)}" for value in placed)
        raise UnknownSettingError(
            f"{call.partition('(')[0]}: {_short(placed[0])} is given by its place, and settings are given by name; "
            f"write {opening}{named})"
        )


def _meant(value: Any) -> str:
    """The setting that a value without a name is probably for."""
    if isinstance(value, Budget | Ledger | Mapping):
        return "budget"
    if isinstance(value, str) or (callable(value) and hasattr(value, "to_dict")):
        return "strategy"
    if callable(value) or isinstance(value, Verifier | SetVerifier):
        return "verifier"
    return "n" if is_whole(value) else "…"


def _short(value: Any) -> str:
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else f"{value!r:.80}"
