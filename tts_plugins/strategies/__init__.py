"""How compute is spent on one problem."""

from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies.best_of_n import BestOfN
from tts_plugins.strategies.self_consistency import SelfConsistency

__all__ = ["BaseStrategy", "BestOfN", "SelfConsistency"]
