"""Test-time scaling for the OpenAI client: the same `chat.completions.create`, answered by a search."""

from tts_plugins_openai.client import result_of, scale

__all__ = ["result_of", "scale"]
