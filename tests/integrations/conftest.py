"""What several of the integrations' tests are given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tts_plugins.models import OpenAICompatibleModel

if TYPE_CHECKING:  # their packages are not there for every test of this folder
    from tests.imitations import ModelOf
    from tts_plugins.testing.loopback import LoopbackServer


@pytest.fixture
async def model_of() -> AsyncIterator[ModelOf]:
    """Makes models of a server's, with further settings; they are closed after the test."""
    made: list[OpenAICompatibleModel] = []

    def make(server: LoopbackServer, **settings: Any) -> OpenAICompatibleModel:
        made.append(OpenAICompatibleModel("m", base_url=server.base_url, max_tokens=50, temperature=0.8, **settings))
        return made[-1]

    yield make
    for model in made:
        await model.aclose()


@pytest.fixture
def dspy_server() -> Iterator[LoopbackServer]:
    """A server whose replies are numbers in a form that DSPy reads, and an empty cache of DSPy's."""
    import dspy

    from tests.dspy_models import numbered
    from tts_plugins.testing.loopback import LoopbackServer

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    with LoopbackServer(reply=numbered, indexing="arrival") as running:
        yield running


@pytest.fixture
def dspy_lm(dspy_server: LoopbackServer) -> Iterator[Any]:
    """The language model of that server, which DSPy is set to use."""
    import dspy

    from tests.dspy_models import close, language_model

    made = language_model(dspy_server)
    with dspy.context(lm=made):
        yield made
    close(made)
