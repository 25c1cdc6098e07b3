"""For tests: fakes with known answers, contract tests to reuse, and `testing.loopback`, a real server on loopback."""

from tts_plugins.testing.scripted import ScriptedModel, ScriptedReviseModel, ScriptedStepModel, TableVerifier

__all__ = ["ScriptedModel", "ScriptedReviseModel", "ScriptedStepModel", "TableVerifier"]
