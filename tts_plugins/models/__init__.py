"""Generators: adapters around somebody's server, function or local weights."""

from tts_plugins._internal.signatures import explain_calls as _explain_calls
from tts_plugins.models._chat.step_format import StepSettings
from tts_plugins.models.callable import CallableModel
from tts_plugins.models.embedding import EmbeddingModel, LocalEmbeddingModel
from tts_plugins.models.local import LocalModel
from tts_plugins.models.openai_compatible import OpenAICompatibleModel
from tts_plugins.models.provider import ProviderModel
from tts_plugins.models.replay import ReplayModel, recorded_answer

__all__ = [
    "CallableModel", "EmbeddingModel", "LocalEmbeddingModel", "LocalModel", "OpenAICompatibleModel", "ProviderModel",
    "ReplayModel", "StepSettings", "recorded_answer",
]  # fmt: skip

_explain_calls(globals()[name] for name in __all__)
