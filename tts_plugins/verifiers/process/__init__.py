"""Process verifiers: a score for every step."""

from tts_plugins.verifiers.process._reward_families import RewardFamily

__all__ = ["RewardFamily"]
