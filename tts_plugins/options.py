"""The keyword arguments of `solve`, `solve_many` and every adapter, declared once, with their defaults and checks.

To add a setting that `solve` and all adapters take, add it to `CommonOptions` (for type checkers), to `CommonSettings`
(with its default) and to `check_common`. It then reaches the engine's settings and those of every adapter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Required, TypedDict

from tts_plugins._internal.config import secret_of
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
_LOGIN = re.compile(r"://[^\s/?#@]*:[^\s/?#@]+@")  # an address with a password
_SECRET = re.compile(r"(^|[-_])(auth\w*|api-?key|key|token|secret|password|cookie)$", re.IGNORECASE)  # a header


class CommonOptions(TypedDict, total=False):
    """What `solve` and every adapter take, with the same meaning. `solve` says what each is for."""

    seed: int | None
    on_exhausted: OnExhausted
    abstain_below: float | None
    on_abstain: OnAbstain
    escalate: Any


class _EngineOptions(CommonOptions, total=False):
    """What every way into the engine takes besides, for one problem or many."""

    budget: Budget | Ledger | None
    answer: AnswerKey
    profile: str | None
    attempts: int
    listener: Listener | None


class SolveOptions(_EngineOptions, total=False):
    """The keyword arguments of `solve`, `solve_sync` and `solve_events`."""

    model: Required[Model]
    strategy: Strategy | None
    verifier: Verifier | SetVerifier | Callable[..., Any] | None


@dataclass(frozen=True)
class Factory:
    """A recipe for an object that cannot be sent to another machine, such as a model with its connections.

    `Factory(OpenAICompatibleModel, "qwen3-4b", base_url="http://10.0.0.5:8000/v1")`: the first argument is called with
    the rest where the object is needed. A key has no place in it, since it is sent as it stands: read it from the
    environment there, `Factory(make_model)` with a function of yours, or give `api_key_env`, the name of the variable.
    Arguments may be factories themselves: `Factory(LLMJudge, Factory(OpenAICompatibleModel, "qwen3-4b"))`.
    """

    make: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, make: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
        object.__setattr__(self, "make", make)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "keywords", keywords)
        self._check()

    def _check(self) -> None:
        if not callable(self.make):
            raise ConfigurationError(f"Factory: make={self.make!r} cannot be called; pass a class or a function")
        given = {**(self.make.keywords if isinstance(self.make, functools.partial) else {}), **self.keywords}
        named = [name for name, value in given.items() if "key" in name and name != "api_key_env" and value]
        named += [name for name, value in given.items() if isinstance(value, Mapping) and any(map(_secret, value))]
        named += [name for name, value in given.items() if isinstance(value, str) and _LOGIN.search(value)]
        if named:
            raise ConfigurationError(
                f"Factory: {named[0]}=… would be sent and stored with the jobs; give api_key_env, the name of the "
                "environment variable that holds it where the jobs run"
            )

    def __call__(self) -> Any:
        """Make the object.

        Raises:
            ConfigurationError: the environment variable that should hold the key is not set here.
        """
        keywords = {name: made(value) for name, value in self.keywords.items()}
        if (variable := keywords.pop("api_key_env", None)) is not None:
            keywords["api_key"] = secret_of("api_key_env=", variable, " where the jobs run")
        return self.make(*map(made, self.arguments), **keywords)

    def __repr__(self) -> str:
        return f"Factory({getattr(self.make, '__name__', type(self.make).__name__)}, …)"


def _secret(header: object) -> bool:
    return isinstance(header, str) and _SECRET.search(header) is not None


def made(value: Any) -> Any:
    """Return what a factory makes; anything else as it is."""
    return value() if isinstance(value, Factory) else value


class ManyOptions(_EngineOptions, total=False):
    """The keyword arguments of `solve_many` and `solve_stream` that are those of `solve`.

    The model, the strategy and the verifier may each be a `Factory`, which an engine on other machines needs for what
    cannot be pickled.
    """

    model: Required[Model | Factory]
    strategy: Strategy | Factory | None
    verifier: Verifier | SetVerifier | Callable[..., Any] | Factory | None


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
