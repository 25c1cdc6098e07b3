"""What chooses by what has been seen: rules and strategies that are fitted to recorded runs."""

from tts_plugins.policies.learned_stopping import LearnedStopping

__all__ = ["LearnedStopping"]
