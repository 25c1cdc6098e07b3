"""What to search with: from arguments, a profile, and a call's `configurable`. Pure but for the profile's files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec

from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency
from tts_plugins.errors import ConfigurationError
from tts_plugins.metering import Prices
from tts_plugins.profiles import load_profile
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.strategies import BaseStrategy

AnyVerifier = Verifier | SetVerifier | Runnable[Any, Any] | Callable[..., Any]
OnExhausted = Literal["return", "raise"]

_BUDGET = ("calls", "tokens", "usd", "seconds")
SPECS = [
    ConfigurableFieldSpec(
        id="tts_strategy", annotation=str, name="Strategy", default=None,
        description="How compute is spent: a registered strategy's name, such as best_of_n or self_consistency.",
    ),
    ConfigurableFieldSpec(
        id="tts_n", annotation=int, name="Candidates", default=None, description="Candidates at most.",
    ),
    ConfigurableFieldSpec(
        id="tts_profile", annotation=str, name="Profile", default=None,
        description="A profile from pyproject.toml, tts-plugins.toml or the environment.",
    ),
    ConfigurableFieldSpec(
        id="tts_seed", annotation=int, name="Seed", default=None, description="The seed of the search.",
    ),
    *(
        ConfigurableFieldSpec(
            id=f"tts_budget_{name}", annotation=float if name in ("usd", "seconds") else int, name=f"Budget: {name}",
            default=None, description=f"The limit on {name} for this call; it replaces the one that was set.",
        )
        for name in _BUDGET
    ),
]  # fmt: skip
"""What `config={"configurable": {…}}` may set for one call."""

_KEYS = {spec.id for spec in SPECS}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one search; None where the default of `tts_plugins.solve` holds."""

    strategy: Strategy | None = None
    verifier: AnyVerifier | None = None
    budget: Budget | Ledger | None = None
    seed: int | None = None
    answer: Callable[[Any], str | None] | None = None
    price: Prices = None
    on_exhausted: OnExhausted = "return"


def resolve(owner: str, base: Settings, *, n: int | None, profile: str | None, config: RunnableConfig) -> Settings:
    """The settings of this call: what was set, else the profile's; what the call's `configurable` says before both.

    Raises:
        ConfigurationError: an unknown strategy, profile or field, or a value that is refused.
    """
    asked = {key: value for key, value in (config.get("configurable") or {}).items() if value is not None}
    if unknown := sorted(key for key in asked if key.startswith("tts_") and key not in _KEYS):
        known = ", ".join(sorted(_KEYS))
        raise ConfigurationError(f"{owner}: configurable {unknown[0]!r} is not known; use one of {known}")
    if name := asked.get("tts_profile", profile):
        base = _with_profile(base, name)
    if "tts_strategy" in asked:
        base = replace(base, strategy=as_strategy(owner, asked["tts_strategy"]))
    if (count := asked.get("tts_n", n)) is not None:
        base = replace(base, strategy=_with_n(owner, base, count))
    if "tts_seed" in asked:
        base = replace(base, seed=asked["tts_seed"])
    limits = {name: asked[f"tts_budget_{name}"] for name in _BUDGET if f"tts_budget_{name}" in asked}
    return replace(base, budget=_with_limits(base.budget, limits)) if limits else base


def without(config: RunnableConfig) -> RunnableConfig:
    """The config for what is inside: what was meant for this search does not reach searches within it."""
    configurable = config.get("configurable") or {}
    if not any(key in _KEYS for key in configurable):
        return config
    return {**config, "configurable": {key: value for key, value in configurable.items() if key not in _KEYS}}


def told(config: RunnableConfig | None) -> dict[str, Any]:
    """What a call's `configurable` says for a search, as an argument for models, which get no config."""
    found = {key: value for key, value in ((config or {}).get("configurable") or {}).items() if key in _KEYS}
    return {"tts": found} if found else {}


def as_strategy(owner: str, value: Any) -> Strategy | None:
    """A strategy, from itself, its name, or its `to_dict`.

    Raises:
        ConfigurationError: it is none, or is not known.
    """
    if isinstance(value, str):
        return BaseStrategy.from_dict({"type": value})
    if isinstance(value, Mapping):
        return BaseStrategy.from_dict(value)
    if value is not None and (isinstance(value, type) or not callable(value)):
        raise ConfigurationError(f"{owner}: strategy={value!r} is no strategy; pass BestOfN(n=8), or 'best_of_n'")
    return cast(Strategy | None, value)


def as_budget(owner: str, value: Any) -> Budget | Ledger | None:
    """A budget, from itself or its limits.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, Mapping):
        if unknown := sorted(set(value) - set(_BUDGET)):
            raise ConfigurationError(
                f"{owner}: budget {unknown[0]!r} is not known; the limits are {', '.join(_BUDGET)}"
            )
        return Budget(**value)
    if value is not None and not isinstance(value, Budget | Ledger):
        raise ConfigurationError(f"{owner}: budget={value!r} is neither a Budget nor a Ledger; pass Budget(calls=32)")
    return value


def as_verifier(owner: str, value: Any) -> AnyVerifier | None:
    """A verifier: one of `tts_plugins.verifiers`, a function, or a runnable.

    Raises:
        ConfigurationError: it is none.
    """
    known = isinstance(value, Verifier | SetVerifier | Runnable) or (callable(value) and not isinstance(value, type))
    if value is not None and not known:
        raise ConfigurationError(
            f"{owner}: verifier={value!r} is no verifier; pass one of tts_plugins.verifiers, a function of the output, "
            "a function of (problem, candidate), or a Runnable"
        )
    return cast(AnyVerifier | None, value)


def _with_profile(base: Settings, name: str) -> Settings:
    profile = load_profile(name)
    return replace(
        base,
        strategy=base.strategy if base.strategy is not None else profile.strategy,
        verifier=base.verifier if base.verifier is not None else profile.verifier,
        budget=base.budget if base.budget is not None else profile.budget,
        seed=base.seed if base.seed is not None else profile.seed,
    )


def _with_n(owner: str, base: Settings, n: Any) -> Strategy:
    strategy: Any = base.strategy
    if strategy is None:
        return BestOfN(n=n) if base.verifier is not None else SelfConsistency(n=n)
    if not dataclasses.is_dataclass(strategy) or "n" not in {f.name for f in dataclasses.fields(strategy)}:
        raise ConfigurationError(f"{owner}: n={n!r} cannot be set, since {strategy!r} has no n; leave it out")
    return cast(Strategy, replace(cast(Any, strategy), n=n))


def _with_limits(budget: Budget | Ledger | None, limits: Mapping[str, Any]) -> Budget | Ledger:
    if isinstance(budget, Ledger):
        return Ledger(Budget(**limits), inside=budget)  # the shared account still pays, and still binds
    return Budget(**{**({} if budget is None else budget.to_dict()), **limits})
