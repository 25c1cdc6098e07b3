"""What to search with: from arguments, a profile, and a call's `configurable`. Pure but for the profile's files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.utils import ConfigurableFieldSpec

from tts_plugins.adapters import LIMITS, SearchSettings, default_profile, signature_of, takes
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.strategies.escalation import Escalation
from tts_plugins.verifiers import CallableVerifier
from tts_plugins_langchain._io.graph_checks import check_memory

AnyVerifier = Verifier | SetVerifier | Runnable[Any, Any] | Callable[..., Any]
OnExhausted = Literal["return", "raise"]

SHOW = "tts_show_candidates"
SPECS = [
    ConfigurableFieldSpec(
        id="tts_strategy", annotation=str, name="Strategy", default=None,
        description="How compute is spent: a registered strategy's name, such as best-of-n or self-consistency.",
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
        for name in LIMITS
    ),
    ConfigurableFieldSpec(
        id="tts_show_candidates", annotation=bool, name="Show candidates", default=None,
        description="Streams and events show every candidate, and not the chosen answer alone.",
    ),
]  # fmt: skip
"""What `config={"configurable": {…}}` may set for one call."""

_FROM_LANGCHAIN = ("config", "run_manager")
"""What a `RunnableLambda` gives its function besides the input, where it takes it."""

_KEYS = {spec.id for spec in SPECS}


def resolve(
    owner: str, base: SearchSettings, *, n: int | None, profile: str | None, config: RunnableConfig
) -> SearchSettings:
    """The settings of this call: what was set, else the profile's; what the call's `configurable` says before both.

    Raises:
        ConfigurationError: an unknown strategy, profile or field, or a value that is refused.
    """
    asked = {key: value for key, value in (config.get("configurable") or {}).items() if value is not None}
    if unknown := sorted(key for key in asked if key.startswith("tts_") and key not in _KEYS):
        known = ", ".join(sorted(_KEYS))
        raise ConfigurationError(f"{owner}: configurable {unknown[0]!r} is not known; use one of {known}")
    limits = {name: asked[f"tts_budget_{name}"] for name in LIMITS if f"tts_budget_{name}" in asked}
    if (named := asked.get("tts_profile", profile) or default_profile()) is not None:
        base = base.changed(owner, {"profile": named})
    return base.changed(
        owner,
        {
            "strategy": asked.get("tts_strategy"), "n": asked.get("tts_n", n), "seed": asked.get("tts_seed"),
            "budget": limits or None,
        },
    )  # fmt: skip


def without(config: RunnableConfig) -> RunnableConfig:
    """The config for what is inside: what was meant for this search does not reach searches within it."""
    configurable = config.get("configurable") or {}
    if not any(key in _KEYS for key in configurable):
        return config
    return {**config, "configurable": {key: value for key, value in configurable.items() if key not in _KEYS}}


def search_arguments(config: RunnableConfig | None) -> dict[str, Any]:
    """What a call's `configurable` says for a search, as an argument for models, which get no config."""
    found = {key: value for key, value in ((config or {}).get("configurable") or {}).items() if key in _KEYS}
    return {"tts": found} if found else {}


def as_escalation(owner: str, value: Any) -> Any:
    """What `escalate` may be: a runnable, a strategy, or a person.

    Raises:
        ConfigurationError: it is none, or is a model of `tts_plugins`, whose answers are not LangChain's.
    """
    if value is None or isinstance(value, Runnable):
        return value
    made = Escalation.of(owner, value)
    if made.model is not None:
        raise ConfigurationError(
            f"{owner}: escalate={value!r} is a model of tts_plugins, whose answers are not LangChain's messages; pass "
            "a chat model or a chain"
        )
    return made


def as_verifier(owner: str, value: Any) -> AnyVerifier | None:
    """A verifier: one of `tts_plugins.verifiers`, a function, or a runnable.

    Raises:
        ConfigurationError: it is not a verifier, takes other arguments, or is a graph with a checkpointer of its own.
    """
    known = isinstance(value, Verifier | SetVerifier | Runnable) or (callable(value) and not isinstance(value, type))
    if value is not None and not known:
        raise ConfigurationError(
            f"{owner}: verifier={value!r} is not a verifier; pass one of tts_plugins.verifiers, a function of the "
            "output, a function of (problem, candidate), or a Runnable"
        )
    if isinstance(value, Runnable):
        check_memory(f"{owner}: verifier", value, "compile it without one")
    if callable(value) and not isinstance(value, Verifier | SetVerifier | Runnable):
        CallableVerifier(value)  # refuses what could not be called, before anything is paid for
    for name in ("func", "afunc") if isinstance(value, RunnableLambda) else ():
        function = getattr(value, name, None)
        if function is not None and not takes(function, 1, *_FROM_LANGCHAIN):
            raise ConfigurationError(
                f"{owner}: verifier {value.get_name()}: its function{signature_of(function)} must take one argument, a "
                "dict with input, output, question, text and answer"
            )
    return cast(AnyVerifier | None, value)
