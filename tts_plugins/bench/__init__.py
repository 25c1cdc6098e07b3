"""Benchmarks: what a strategy reaches, and what it costs."""

from tts_plugins.bench.plan import Arm, Plan
from tts_plugins.bench.problems import ProblemSet, read_problems
from tts_plugins.bench.replay import Replayed, ReplayResult, replay, replay_sync
from tts_plugins.bench.runner import Progress, bench
from tts_plugins.bench.storage.store import Store

__all__ = [
    "Arm", "Plan", "ProblemSet", "Progress", "ReplayResult", "Replayed", "Store", "bench", "read_problems", "replay",
    "replay_sync",
]  # fmt: skip
