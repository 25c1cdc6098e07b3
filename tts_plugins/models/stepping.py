"""Single steps from chat models, for adapters that give a framework's model the same."""

from tts_plugins.models._chat.step_format import StepSettings
from tts_plugins.models._chat.stepping import Stepping

__all__ = ["StepSettings", "Stepping"]
