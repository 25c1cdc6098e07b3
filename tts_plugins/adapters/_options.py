"""The keyword arguments that every adapter takes, declared once: for type checkers and editors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from tts_plugins.budget import Budget
from tts_plugins.ledger import Ledger
from tts_plugins.metering import Prices
from tts_plugins.options import CommonOptions
from tts_plugins.protocols import Strategy


class AdapterOptions(CommonOptions, total=False):
    """What every adapter takes, as `SearchSettings` says. Each adds its `verifier`, of which it takes its own kinds."""

    budget: Budget | Ledger | Mapping[str, Any] | None
    answer: Callable[[Any], str | None] | None
    n: int | None
    price: Prices
    concurrency: int | None


class StrategyOptions(TypedDict, total=False):
    """For adapters that leave the choice of strategy open."""

    strategy: Strategy | str | Mapping[str, Any] | None


class ProfileOptions(TypedDict, total=False):
    """For adapters where `profile` means one of `tts_plugins.profiles`: on a chat model of LangChain it does not."""

    profile: str | None


class SearchOptions(AdapterOptions, StrategyOptions, ProfileOptions, total=False):
    """All of these, as most adapters take them."""
