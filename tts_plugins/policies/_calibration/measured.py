"""What a strategy reached that recorded samples cannot replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tts_plugins.strategies import BaseStrategy


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What a strategy reached that recorded samples cannot replay: a search over steps, revision.

    Attributes:
        strategy: as it is to run.
        right, samples, tokens: by problem id: the share of right answers, and means of what was paid for. The samples
            of a probe before it are counted on top.
    """

    strategy: BaseStrategy
    right: Mapping[str, float]
    samples: Mapping[str, float]
    tokens: Mapping[str, float]
