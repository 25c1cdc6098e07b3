"""The keyword arguments that adapters take, declared once: for type checkers and editors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from tts_plugins.budget import Budget
from tts_plugins.ledger import Ledger
from tts_plugins.metering import Prices
from tts_plugins.protocols import Strategy


class SearchOptions(TypedDict, total=False):
    """How to search, as `SearchSettings` says. Each adapter adds its `verifier`, of which it takes kinds of its own."""

    strategy: Strategy | str | Mapping[str, Any] | None
    budget: Budget | Ledger | Mapping[str, Any] | None
    seed: int | None
    answer: Callable[[Any], str | None] | None
    n: int | None
    price: Prices
    on_exhausted: Literal["return", "raise"]
    concurrency: int | None
