"""A process verifier that is trained on a model's own solutions, without human labels: features, head, file."""

from tts_plugins.verifiers.learned._saved_head import LearnedHead
from tts_plugins.verifiers.learned.verifier import LearnedVerifier, labelled

__all__ = ["LearnedHead", "LearnedVerifier", "labelled"]
