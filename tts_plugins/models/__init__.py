"""Generators: adapters around somebody's server, function or local weights."""

from tts_plugins.models.callable import CallableModel
from tts_plugins.models.local import LocalModel
from tts_plugins.models.openai_compatible import OpenAICompatibleModel

__all__ = ["CallableModel", "LocalModel", "OpenAICompatibleModel"]
