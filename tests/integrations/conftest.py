"""What several of the integrations' tests are given."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
