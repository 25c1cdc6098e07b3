"""Outcomes of strategies that cannot be replayed on recorded samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tts_plugins.strategies import BaseStrategy


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Outcomes of a strategy that cannot be replayed on recorded samples, such as a step search or a revision.

    Attributes:
        strategy: the strategy, configured as it is to run.
        right, samples, tokens: the share of right answers and the mean cost, by problem id. A probe before it is
            charged in addition.
    """

    strategy: BaseStrategy
    right: Mapping[str, float]
    samples: Mapping[str, float]
    tokens: Mapping[str, float]
