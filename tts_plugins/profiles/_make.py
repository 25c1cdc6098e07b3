"""A profile's settings, made of its table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tts_plugins._internal.config import secret_of
from tts_plugins._internal.values import is_whole
from tts_plugins.answers import AnswerKey
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.options import check_common
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.strategies import BaseStrategy
from tts_plugins.types import OnAbstain

_FIELDS = ("strategy", "policy", "verifier", "budget", "seed", "answer", "abstain_below", "on_abstain")
_LIMITS = ("calls", "tokens", "usd", "seconds")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Settings of `solve` under one name; None where the profile does not say.

    A policy is a strategy that chooses among strategies: `policy = …` in a file is `strategy` here.
    """

    name: str
    strategy: Strategy | None = None
    verifier: Verifier | SetVerifier | None = None
    budget: Budget | None = None
    seed: int | None = None
    answer: AnswerKey | None = None
    abstain_below: float | None = None
    on_abstain: OnAbstain | None = None

    @property
    def lacks(self) -> str | None:
        """What a solve needs besides it, in words: the model to escalate to, which a profile cannot hold."""
        if self.on_abstain != "escalate":
            return None
        return (
            f"profile {self.name!r}: on_abstain='escalate' needs a model to ask, which a profile cannot hold; make its "
            "strategy a ladder with signal = 'confidence'"
        )

    def settings(self) -> dict[str, Any]:
        """What is set, as the arguments of `solve`."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}
        return {name: value for name, value in given.items() if value is not None}


def make_profile(name: str, table: Mapping[str, Any]) -> Profile:
    """Make the profile that a table describes.

    Raises:
        ConfigurationError: a field is wrong.
    """
    if unknown := sorted(set(table) - set(_FIELDS)):
        raise ConfigurationError(f"unknown field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}")
    if "strategy" in table and "policy" in table:
        raise ConfigurationError("strategy and policy are both given; a policy is a strategy, so give one of them")
    seed = table.get("seed")
    if seed is not None and not is_whole(seed):
        raise ConfigurationError(f"seed={seed!r} must be a whole number")
    field = "policy" if "policy" in table else "strategy"
    abstaining = {name: table[name] for name in ("abstain_below", "on_abstain") if name in table}
    check_common("profile", abstaining)
    return Profile(
        name=name,
        strategy=_strategy(table.get(field), field),
        verifier=_verifier(table.get("verifier")),
        budget=_budget(table.get("budget")),
        seed=seed,
        answer=_answer(table.get("answer")),
        **abstaining,
    )


def _strategy(value: Any, field: str) -> Strategy | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping) or "type" not in value:
        raise ConfigurationError(f'{field}={value!r} must be a name or a table with a type: {{ type = "best-of-n" }}')
    return BaseStrategy.from_dict(value)


def _budget(value: Any) -> Budget | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"budget={value!r} must be a table of limits: {{ tokens = 20000, seconds = 30 }}")
    if unknown := sorted(set(value) - set(_LIMITS)):
        raise ConfigurationError(f"budget: unknown field {unknown[0]!r}; the limits are {', '.join(_LIMITS)}")
    return Budget(**value)


def _answer(given: object) -> AnswerKey | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise ConfigurationError(f"answer={given!r} must be a text, such as 'choice' or '/answer'")
    from tts_plugins.verifiers.grouping.named import named_answer

    return named_answer(given, "answer")


def _verifier(value: Any) -> Verifier | SetVerifier | None:
    """A preset; a function or verifier, "package.module:name"; or one of this package, by its class and arguments."""
    if value is None:
        return None
    from tts_plugins import verifiers

    settings = dict(value) if isinstance(value, Mapping) else {"type": value}
    kind = settings.pop("type", None)
    if not isinstance(kind, str):
        shown = f"verifier with {', '.join(sorted(settings))}" if isinstance(value, Mapping) else f"verifier={value!r}"
        raise ConfigurationError(f'{shown} must be "package.module:name" or a table with a type')
    if "model" in settings:
        settings["model"] = _model(settings["model"])
    name, _, argument = kind.partition(":")
    if name.replace("_", "-") in verifiers.PRESETS:
        return verifiers.preset(name, *([argument] if argument else []), **settings)
    ours = getattr(verifiers, kind) if kind in verifiers.__all__ else None
    made: Any = _imported(kind) if ":" in kind else ours
    if made is None:
        known = ", ".join([*verifiers.PRESETS, *(n for n in verifiers.__all__ if n[0].isupper() and not n.isupper())])
        raise ConfigurationError(f'verifier={kind!r} is not known; use one of {known}, or "package.module:name"')
    if isinstance(made, type):
        try:
            made = made(**settings)
        except TypeError as error:
            raise ConfigurationError(f"verifier {kind}: {error}") from error
    elif settings:
        raise ConfigurationError(f"verifier {kind}: it is not a class, so it does not take {sorted(settings)[0]!r}")
    return verifiers.callable.as_verifier(f"verifier {kind}", made)


def _model(value: Any) -> Any:
    """The model of a judge: `{ type, … }` with the arguments of its class; the key by the name of its variable."""
    from tts_plugins import models

    kinds = {
        "openai": models.OpenAICompatibleModel, "local": models.LocalModel,
        "embedding": models.EmbeddingModel, "local-embedding": models.LocalEmbeddingModel,
    }  # fmt: skip
    settings = dict(value) if isinstance(value, Mapping) else {"model": value}
    kind = settings.pop("type", "openai")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigurationError(f"model: type={kind!r} is not known; use one of {', '.join(kinds)}")
    if "api_key" in settings:
        raise ConfigurationError('model: api_key would stand in a file; name its variable: api_key_env = "NAME"')
    if (variable := settings.pop("api_key_env", None)) is not None:
        settings["api_key"] = secret_of("model: api_key_env=", variable)
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise ConfigurationError(f"model {kind}: {error}") from error


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ConfigurationError(f'verifier={path!r} does not name a function; write "package.module:name"')
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module raises while it is imported
        text = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"verifier={path!r} cannot be imported: {text}; check the name, and Python's path for its folder"
        ) from error
    return found
