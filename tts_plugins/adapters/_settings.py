"""The settings of a search, as users of an adapter give them, and as one call changes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from tts_plugins._internal.config import check_price
from tts_plugins._internal.signatures import check_names
from tts_plugins._internal.values import as_plain_number
from tts_plugins.adapters._shapes import candidates_of, shaped
from tts_plugins.adapters._texts import answer_key
from tts_plugins.budget import Budget
from tts_plugins.engine.solve import default_profile
from tts_plugins.errors import ConfigurationError
from tts_plugins.ledger import Ledger
from tts_plugins.metering import Prices
from tts_plugins.options import CommonSettings, check_common
from tts_plugins.profiles import load_profile
from tts_plugins.protocols import Strategy
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency
from tts_plugins.strategies.abstaining import check_together

LIMITS = ("calls", "tokens", "usd", "seconds")
_DEFAULT_N = 8  # of `solve`


@dataclass(frozen=True, kw_only=True)
class SearchSettings(CommonSettings):
    """The settings of a search; None where the default of `tts_plugins.solve` holds.

    Attributes:
        verifier: as it was given: each framework has kinds of its own.
        answer: from the native output of a candidate to the value that votes.
        price: US dollars per million prompt and completion tokens.
    """

    strategy: Strategy | None = None
    verifier: Any = None
    budget: Budget | Ledger | None = None
    answer: Callable[[Any], str | None] | None = None
    price: Prices = None

    @classmethod
    def of(cls, owner: str, given: Mapping[str, Any]) -> Self:
        """The settings that an adapter is set up with; without a `profile`, the environment's default fills them.

        Raises:
            ConfigurationError: as for `changed`.
        """
        return cls().changed(owner, {"profile": default_profile(), **given})

    def changed(self, owner: str, asked: Mapping[str, Any]) -> Self:
        """With what `asked` says: the fields, `n`, and `profile`, which gives what is not set otherwise.

        A strategy may be its name, with as many candidates as the one that stands, or its `to_dict`. A budget may be
        a dict of limits, which are laid over those that stand, and inside a `Ledger` that is shared.

        Raises:
            ConfigurationError: an unknown name or field, or a value that is refused.
        """
        check_names(owner, asked, {field.name for field in dataclasses.fields(self)} | {"n", "profile"})
        given = {key: as_plain_number(value) for key, value in asked.items() if value is not None}
        n, profile = given.pop("n", None), given.pop("profile", None)
        if "strategy" in given:
            bare = isinstance(given["strategy"], str)
            given["strategy"] = as_strategy(owner, given["strategy"])
            count = candidates_of(self.strategy) if n is None else n
            if bare and count is not None and (fitted := shaped(owner, given["strategy"], count)) is not None:
                given["strategy"], n = fitted, None
        if "budget" in given:
            given["budget"] = as_budget(owner, given["budget"], self.budget)
        check_common(owner, given)
        if "price" in given:
            prices = given["price"]
            for one in prices.values() if isinstance(prices, Mapping) else (prices,):
                check_price(owner, one)
        if "answer" in given and not callable(given["answer"]):
            raise ConfigurationError(f"{owner}: answer={given['answer']!r} must be a function of a candidate's output")
        made = replace(self, **given)
        if profile is not None:
            made = made._filled(profile)
        made = made if n is None else replace(made, strategy=made._with_n(owner, n))
        check_together(owner, made.abstain_below, made.on_abstain, made.escalate, made.strategy)
        return made

    def shown(self) -> str:
        """The strategy, and what else was set, as an object that searches shows them in its `repr`."""
        strategy = self.strategy or (BestOfN if self.verifier is not None else SelfConsistency)(n=_DEFAULT_N)
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.repr}
        common = self.common()
        shown = {**{name: own[name] for name in own if name not in common}, **common, "strategy": strategy}
        plain = {f.name: f.default for f in dataclasses.fields(self)}
        shown = {name: value for name, value in shown.items() if value != plain[name]}
        return ", ".join(f"{name}={_named(value)}" for name, value in shown.items())

    @property
    def n(self) -> int | None:
        """Candidates at most; None where the strategy does not say."""
        if self.strategy is None:
            return _DEFAULT_N
        n = getattr(self.strategy, "n", None)
        return n if isinstance(n, int) else None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `solve`, but for the model and the verifier."""
        return {
            **self.common(),
            "profile": None,  # it was read when these were made
            "strategy": self.strategy,
            "budget": self.budget,
            "answer": answer_key(self.answer),
        }

    def _filled(self, profile: str) -> Self:
        lacking = {k: v for k, v in load_profile(profile).settings().items() if getattr(self, k) is None}
        return replace(self, **lacking)

    def _with_n(self, owner: str, n: Any) -> Strategy:
        strategy: Any = self.strategy
        if strategy is None:
            return BestOfN(n=n) if self.verifier is not None else SelfConsistency(n=n)
        if not dataclasses.is_dataclass(strategy) or "n" not in {f.name for f in dataclasses.fields(strategy)}:
            raise ConfigurationError(f"{owner}: n={n!r} cannot be set, since {strategy!r} has no n; leave it out")
        return cast(Strategy, replace(cast(Any, strategy), n=n))


def _named(value: Any) -> str:
    """A function by its name, whose own form tells an address besides; all else as it is."""
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) and not isinstance(value, type) else repr(value)


def as_strategy(owner: str, value: Any) -> Strategy:
    """A strategy, from itself, its name, or its `to_dict`.

    Raises:
        ConfigurationError: it is not a strategy, or its name is not known.
    """
    if isinstance(value, str):
        if value.strip().replace("_", "-") == "compute-optimal":
            raise ConfigurationError(
                f"{owner}: strategy={value!r} is read from a file that `tts-plugins calibrate` wrote; its bare name "
                "says none; pass ComputeOptimal.from_file('policy.json') where the search is set up, or its `to_dict`"
            )
        value = {"type": value}
    if isinstance(value, Mapping):
        return BaseStrategy.from_dict(value)
    if isinstance(value, type) or not callable(value):
        raise ConfigurationError(f"{owner}: strategy={value!r} is not a strategy; pass BestOfN(n=8), or 'best-of-n'")
    return cast(Strategy, value)


def as_budget(owner: str, value: Any, standing: Budget | Ledger | None = None) -> Budget | Ledger:
    """A budget, from itself or from limits, which are laid over those that stand.

    Raises:
        ConfigurationError: it is not a budget, or a limit is not known.
    """
    if not isinstance(value, Mapping):
        if not isinstance(value, Budget | Ledger):
            raise ConfigurationError(f"{owner}: budget={value!r} must be a Budget or a Ledger; pass Budget(calls=32)")
        return value
    if unknown := sorted(set(value) - set(LIMITS)):
        raise ConfigurationError(f"{owner}: budget {unknown[0]!r} is not known; the limits are {', '.join(LIMITS)}")
    if isinstance(standing, Ledger):
        return Ledger(Budget(**value), inside=standing)  # the shared account still pays, and still binds
    return Budget(**{**({} if standing is None else standing.to_dict()), **value})
