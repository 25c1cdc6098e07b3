"""Contract tests for models, verifiers and strategies of your own.

Derive a test class, say how the object is made, and pytest runs every promise that the engine relies on::

    from tts_plugins.testing.contracts import VerifierContract

    class TestMyVerifier(VerifierContract):
        def make(self):
            return MyVerifier(threshold=0.5)

Each test makes a fresh object and runs its own event loop, so neither pytest-asyncio nor any setting is needed. An
object that needs a server or a file may use a pytest fixture: override `make` and read what an autouse fixture left
on `self`.
"""

from tts_plugins.testing.contracts._model import ModelContract
from tts_plugins.testing.contracts._strategy import StrategyContract
from tts_plugins.testing.contracts._verifier import VerifierContract

__all__ = ["ModelContract", "StrategyContract", "VerifierContract"]
