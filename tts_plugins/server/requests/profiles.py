"""The search behind a model's name, and what a caller may change of it. Pure, except that it reads profiles."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.profiles import Profile, load_profile, profile_names
from tts_plugins.protocols import Strategy
from tts_plugins.server.budgets.tenants import tightest
from tts_plugins.server.errors import APIError, bad_field
from tts_plugins.server.requests.fields import ChatRequest, check_size
from tts_plugins.server.settings import ServerSettings
from tts_plugins.strategies import BaseStrategy, BestOfN, RecursiveAggregation, Revision, SelfConsistency

_DEFAULT_N = 8


@dataclass(frozen=True, kw_only=True)
class Search:
    """How one request is answered. `single`: by one sample, which is passed on as it arrives."""

    upstream: str
    profile: str | None
    strategy: Strategy
    verifier: Any
    budget: Budget | None
    seed: int | None
    single: bool
    abstain_below: float | None = None


class Profiles:
    """The profiles of a server, read when it starts.

    One that escalates is for programs that pass the model to ask: it is not served, and stops no others.

    Raises:
        ConfigurationError: a profile is wrong, or the server's own is not one to serve; the message names it.
    """

    def __init__(self, settings: ServerSettings) -> None:
        directory = settings.directory
        read = {name: load_profile(name, directory=directory) for name in profile_names(directory=directory)}
        self.known = {name: profile for name, profile in read.items() if profile.lacks is None}
        self._lacking = {name: profile.lacks for name, profile in read.items() if profile.lacks is not None}
        if settings.profile in self._lacking:
            raise ConfigurationError(f"serve: {self._lacking[settings.profile]}")
        self._settings = settings
        if settings.profile is not None and settings.profile not in self.known:
            load_profile(settings.profile, directory=directory)  # which has the words for it

    def named(self, name: str) -> Profile:
        """Return a profile.

        Raises:
            APIError: 404, with the nearest name; 400 for one that escalates.
        """
        if name in self._lacking:
            raise bad_field("model", self._lacking[name])
        if name not in self.known:
            raise unknown_model(name, list(self.known), "profile")
        return self.known[name]

    def split(self, model: str) -> tuple[str | None, str | None]:
        """Return the profile and the upstream's model that a name means; None for what it does not say."""
        names = self.known.keys() | self._lacking.keys()
        if model in names:
            return model, None
        head, _, rest = model.partition("/")
        return (head, rest) if rest and head in names else (self._settings.profile, model)

    def misspelt(self, model: str) -> str | None:
        """Return what `PROFILE/MODEL` may mean if its profile is not known, and its name is close to a known one."""
        head, _, rest = model.partition("/")
        near = [] if head in self.known or not rest else difflib.get_close_matches(head, self.known, 1, 0.7)
        return f"{near[0]}/{rest}" if near else None

    def search(self, request: ChatRequest, models: Sequence[str]) -> Search:
        """Return how a request is answered; `models` are those that callers may name, any where there are none.

        Raises:
            APIError: 404 for a profile or model that is not there; 400 for settings that do not go together.
        """
        name, upstream = self.split(request.model)
        name = request.profile or name
        profile = self.named(name) if name is not None else Profile(name="")
        if upstream is None:
            if not models:
                raise bad_field("model", f"the upstream has no default model; write {name}/MODEL")
            upstream = models[0]
        if models and upstream not in models:
            known = [*models, *self.known, *(f"{p}/{m}" for p in self.known for m in models)]
            raise unknown_model(request.model, known, "model")
        strategy, single = self._strategy(request, profile)
        return Search(
            upstream=upstream, profile=name, strategy=strategy, verifier=profile.verifier,
            budget=tightest(profile.budget, request.budget),
            seed=profile.seed if request.seed is None else request.seed,
            single=single and profile.abstain_below is None,  # what was passed on cannot be withheld
            abstain_below=profile.abstain_below,
        )  # fmt: skip

    def _strategy(self, request: ChatRequest, profile: Profile) -> tuple[Strategy, bool]:
        asked, n = request.strategy, request.candidates
        strategy: Strategy | None = None if isinstance(asked, str) else asked or profile.strategy
        if isinstance(asked, str):
            strategy = BaseStrategy.from_dict({"type": asked})
            n = n or _count(profile.strategy) or _DEFAULT_N
        if strategy is None:
            if profile.verifier is None and n is None and not profile.name:
                # No search was asked for: as many samples as choices.
                return SelfConsistency(n=request.n), request.n == 1
            strategy = (SelfConsistency if profile.verifier is None else BestOfN)(n=n or _DEFAULT_N)
        elif n is not None:
            strategy = with_candidates(strategy, n)
        if asked is not None or n is not None:
            check_size("tts", strategy, self._settings)
        most = _count(strategy)
        if request.n > 1 and most is not None and request.n > most:
            raise bad_field("n", f"{request.n} choices are asked of a search over {most} candidates; raise tts.n")
        if request.temperature == 0 and most is not None and most > 1:
            raise bad_field(
                "temperature", f"{most} samples at temperature 0 would be the same one; use about 0.8, or tts.n = 1"
            )
        plain = isinstance(strategy, SelfConsistency | BestOfN) and strategy.n == 1
        return strategy, plain and profile.verifier is None and request.n == 1


def with_candidates(strategy: Any, n: int) -> Strategy:
    """Return the strategy with another number of candidates.

    Raises:
        APIError: 400 where it has no such number.
    """
    try:
        if isinstance(strategy, Revision):
            chains = max(k for k in range(1, math.isqrt(n) + 1) if n % k == 0)
            return replace(strategy, chains=chains, rounds=n // chains)
        if isinstance(strategy, RecursiveAggregation):
            return replace(strategy, population=n)
        if dataclasses.is_dataclass(strategy) and hasattr(strategy, "n"):
            changes: dict[str, Any] = {"n": n}
            if (width := getattr(strategy, "beam_width", None)) is not None:
                changes["beam_width"] = max(k for k in range(1, width + 1) if n % k == 0)
            changed: Any = dataclasses.replace(strategy, **changes)  # type: ignore[type-var]
            return cast(Strategy, changed)
    except ConfigurationError as error:
        raise bad_field("tts.n", str(error)) from error
    raise bad_field("tts.n", "the strategy of this profile has no number of candidates")


def _count(strategy: Any) -> int | None:
    if isinstance(strategy, Revision):
        return strategy.chains * strategy.rounds
    if isinstance(strategy, RecursiveAggregation):
        return strategy.population
    n = getattr(strategy, "n", None)
    return n if isinstance(n, int) else None


def unknown_model(name: str, known: Sequence[str], what: str) -> APIError:
    """Return a 404 with the nearest name."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    listed = f" There are {', '.join(sorted(known)[:20])}." if known else ""
    shown = name if len(name) <= 80 else name[:79] + "…"
    return APIError(404, f"The {what} {shown!r} does not exist.{meant}{listed}", code="model_not_found", param="model")
