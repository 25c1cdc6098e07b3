"""Measuring: what a strategy reaches, and what it costs."""

from tts_plugins.bench.replay import Replayed, ReplayResult, replay, replay_sync

__all__ = ["ReplayResult", "Replayed", "replay", "replay_sync"]
