"""How compute is spent on one problem."""

from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies.beam_search import BeamSearch
from tts_plugins.strategies.best_of_n import BestOfN
from tts_plugins.strategies.dvts import DVTS
from tts_plugins.strategies.particle_filter import ParticleFilter
from tts_plugins.strategies.recursive_aggregation import RecursiveAggregation
from tts_plugins.strategies.revision import Revision
from tts_plugins.strategies.self_consistency import SelfConsistency
from tts_plugins.strategies.tree_search import TreeSearch

__all__ = [
    "DVTS", "BaseStrategy", "BeamSearch", "BestOfN", "ParticleFilter", "RecursiveAggregation", "Revision",
    "SelfConsistency", "TreeSearch",
]  # fmt: skip
