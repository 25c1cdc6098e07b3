"""What several of the integrations' tests are given."""

from __future__ import annotations

import gc
import inspect
import warnings
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the asynchronous tests of DSPy out where LiteLLM may keep their loops from ending."""
    asynchronous = [
        item for item in items
        if item.path.name.startswith("test_dspy_") and inspect.iscoroutinefunction(getattr(item, "function", None))
    ]  # fmt: skip
    if asynchronous:
        from tests.dspy_models import KEEPS_LOOPS

        for item in asynchronous if KEEPS_LOOPS else ():
            item.add_marker(pytest.mark.skip(reason="this LiteLLM may keep a loop from ending"))


# Frameworks keep clients of their own (langchain-openai, LiteLLM, the Agents SDK), and leave their connections open
# when a loop ends. Whoever runs when the collector finds them would be blamed.
_THEIR_CLIENTS = tuple(
    f"test_{name}"
    for name in ("langchain_", "dspy_", "abstention", "examples", "ladders", "server_clients", "integration_benchmarks",
                 "real_servers", "providers")
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _connections_of_frameworks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what the frameworks left behind, with the module that used them."""
    yield
    if request.path.name.startswith(_THEIR_CLIENTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
