"""What scores candidates."""

from tts_plugins.verifiers.agreement import AnswerAgreement
from tts_plugins.verifiers.callable import CallableVerifier
from tts_plugins.verifiers.json_schema import JSONSchemaVerifier

__all__ = ["AnswerAgreement", "CallableVerifier", "JSONSchemaVerifier"]
