"""Solves on more than one machine, on Ray (`pip install 'tts-plugins[ray]'`).

results = await solve_many(problems, model=Factory(OpenAICompatibleModel, "qwen3-4b", base_url=…),
                           budget=Ledger(Budget(usd=20)), engine=RayEngine(workers=8))
"""

from tts_plugins.distributed.dataset import Solve
from tts_plugins.distributed.engine import RayEngine, RayStats
from tts_plugins.distributed.shared_budget import SharedBudget
from tts_plugins.options import Factory

__all__ = ["Factory", "RayEngine", "RayStats", "SharedBudget", "Solve"]
