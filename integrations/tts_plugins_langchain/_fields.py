"""The settings that wrappers have as fields: checked when they are made, and the same for all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, ValidationInfo, field_validator

from tts_plugins import Problem, Scored
from tts_plugins.adapters import (
    AdapterOptions,
    ProfileOptions,
    SearchSettings,
    StrategyOptions,
    as_budget,
    as_strategy,
    called_as,
    check_names,
    default_profile,
)
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import StepSettings
from tts_plugins.options import check_common
from tts_plugins_langchain._io.revision import Revised, check_revision
from tts_plugins_langchain._settings import AnyVerifier, OnExhausted, as_escalation, as_verifier, resolve

_SETTINGS = tuple(field.name for field in dataclasses.fields(SearchSettings))


class LangChainOptions(AdapterOptions, StrategyOptions, total=False):
    """What every wrapper of LangChain's takes; see `SearchFields`."""

    verifier: AnyVerifier | None


class ScaleOptions(LangChainOptions, ProfileOptions, total=False):
    """The keyword arguments of `scale`."""

    revision: Revised
    name: str | None


class MiddlewareOptions(LangChainOptions, ProfileOptions, total=False):
    """The keyword arguments of `TestTimeScaling`."""

    revision: Callable[[Problem, Sequence[Scored]], Any] | None
    when_exhausted: Literal["raise", "end"]
    name: str


class ChatModelOptions(LangChainOptions, total=False):
    """The keyword arguments of `ScaledChatModel`, and those of LangChain's chat models that it takes."""

    revision: Revised
    model: BaseChatModel
    bound: BaseChatModel
    tts_profile: str | None
    steps: StepSettings | None
    temperature: float | None
    max_tokens: int | None
    stop: Sequence[str] | None
    sent: dict[str, Any]
    streaming: bool
    cache: BaseCache | bool | None
    callbacks: Any
    tags: list[str] | None
    metadata: dict[str, Any] | None
    verbose: bool
    name: str | None
    rate_limiter: Any
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None
    profile: Any
    custom_get_token_ids: Callable[[str], list[int]] | None


class SearchFields(BaseModel):
    """How to search."""

    strategy: Any = None
    """How compute is spent; BestOfN(n=8) with a verifier, SelfConsistency(n=8) without."""
    verifier: Any = None
    """What scores candidates."""
    budget: Any = None
    """Limits, fresh for every call and batch element; or a Ledger that all of them share."""
    n: int | None = None
    """Candidates at most, where the strategy's own number is not meant."""
    seed: int | None = None
    """Fixes each candidate's seed, every random choice, and the place of samples in a cache."""
    answer: Callable[[Any], str | None] | None = None
    """From an output to the value that votes; the answer found in its text where left out."""
    price: Any = None
    """US dollars per million prompt and completion tokens, for all models or by model name."""
    concurrency: int | None = None
    """Candidates in flight at most, over all calls of this object together."""
    on_exhausted: OnExhausted = "return"
    """When the budget ends the search: return the best answer so far, or raise."""
    abstain_below: Any = None
    """The least confidence with which an input is answered, from 0 to 1."""
    on_abstain: Any = "none"
    """Below it: give no answer, raise `LowConfidence`, or ask what `escalate` says."""
    escalate: Any = None
    """A larger model or chain, a strategy, or "person"."""
    revision: Revised = None
    """How an input carries earlier attempts to what is wrapped: see `scale`."""
    model_config = ConfigDict(arbitrary_types_allowed=True)
    _resolved: tuple[list[Any], SearchSettings] | None = PrivateAttr(default=None)

    @called_as("scale(chain, n=8)")
    def __init__(self, **settings: Any) -> None:
        check_names(type(self).__name__, settings, type(self).model_fields)  # pydantic drops what it does not know
        try:
            super().__init__(**settings)
        except ValidationError as error:  # ours says all there is to say; pydantic's other errors stay pydantic's
            for line in error.errors():
                if isinstance(cause := line.get("ctx", {}).get("error"), ConfigurationError):
                    raise cause from None
            raise

    @field_validator("strategy", mode="before")
    @classmethod
    def _strategy(cls, value: Any) -> Any:
        return None if value is None else as_strategy(cls.__name__, value)

    @field_validator("budget", mode="before")
    @classmethod
    def _budget(cls, value: Any) -> Any:
        return None if value is None else as_budget(cls.__name__, value)

    @field_validator("verifier", mode="before")
    @classmethod
    def _verifier(cls, value: Any) -> Any:
        return as_verifier(cls.__name__, value)

    @field_validator("abstain_below", "on_abstain", mode="before")
    @classmethod
    def _abstain(cls, value: Any, info: ValidationInfo) -> Any:
        check_common(cls.__name__, {str(info.field_name): value})
        return value

    @field_validator("escalate", mode="before")
    @classmethod
    def _escalate(cls, value: Any) -> Any:
        return as_escalation(cls.__name__, value)

    @field_validator("revision", mode="before")
    @classmethod
    def _revision(cls, value: Any) -> Any:
        return check_revision(cls.__name__, value)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """It is, as far as its parts are: functions are not."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where `langchain_core.load` finds it."""
        return ["tts_plugins_langchain"]

    def to_json(self) -> Any:
        """LangChain's serialised form; strategies and budgets as the dicts that their `from_dict` takes.

        A strategy with a part that has no such form (a chat model of a rung, a rule of the user's) stays as it is, for
        LangChain to say that it cannot be loaded again.
        """
        form = super().to_json()  # type: ignore[misc]  # of LangChain's class, which stands behind this one
        for key in ("strategy", "budget") if form["type"] == "constructor" else ():
            if hasattr(form["kwargs"].get(key), "to_dict"):
                with contextlib.suppress(ConfigurationError):
                    form["kwargs"][key] = form["kwargs"][key].to_dict()
        return form

    def _profile_name(self) -> str | None:
        return None

    def _settings(self, config: RunnableConfig) -> SearchSettings:
        """The settings of one call; those of the last one, where the fields alone decide and none has changed."""
        profile = self._profile_name()
        given = [*(getattr(self, name) for name in _SETTINGS), self.n]
        alone, known = profile is None and default_profile() is None and not config.get("configurable"), self._resolved
        if alone and known is not None and all(map(operator.is_, known[0], given)):
            return known[1]
        base = SearchSettings(**dict(zip(_SETTINGS, given, strict=False)))
        made = resolve(type(self).__name__, base, n=self.n, profile=profile, config=config)
        if alone:
            self._resolved = given, made
        return made
