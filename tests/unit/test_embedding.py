"""EmbeddingModel against a real server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from aiohttp import web
from aiohttp.test_utils import TestServer

from tts_plugins import Problem
from tts_plugins.errors import AuthenticationFailed, CallTimedOut, ConfigurationError, MalformedResponse, ServerFailed
from tts_plugins.models import EmbeddingModel, LocalEmbeddingModel
from tts_plugins.protocols import Model
from tts_plugins.testing.loopback import Fault, LoopbackServer, RawReply, RawServer
from tts_plugins.verifiers._vectors import cosine

pytestmark = pytest.mark.usefixtures("transport")
TEXTS = ("one", "two words", "three words here")


async def vectors(server: LoopbackServer | RawServer, content: Any = TEXTS, **settings: Any) -> Any:
    model = EmbeddingModel("e", base_url=server.base_url, **settings)
    try:
        return await model.generate(Problem(content), [None])
    finally:
        await model.aclose()


async def test_a_vector_for_each_text_in_order() -> None:
    with LoopbackServer() as server:
        reply = await vectors(server, price=2.0)
        alone = await vectors(server, "two words")
        assert [r.path for r in server.requests] == ["/v1/embeddings"] * 2
    found = reply.generations[0].output
    assert len(found) == 3 and {len(v) for v in found} == {8}
    assert found[1] == alone.generations[0].output[0]
    used = reply.usage
    assert (used.calls, used.requests, used.completion_tokens) == (0, 1, 0)
    assert used.prompt_tokens > 0 and used.usd == pytest.approx(used.prompt_tokens * 2e-6)


async def test_the_bound_is_no_less_than_the_count() -> None:
    model: Model = EmbeddingModel("e", base_url="http://127.0.0.1:9/v1", price=1.0)
    bound = await model.bound(Problem(TEXTS))
    assert bound is not None and bound.prompt_tokens >= 6 and bound.completion_tokens == 0
    assert bound.usd == pytest.approx(bound.prompt_tokens / 1e6)
    assert (await EmbeddingModel("text-embedding-3-small", api_key="-").bound(Problem("x"))).usd is None


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.status(500), ServerFailed), (Fault.status(401), AuthenticationFailed), (Fault.html(), MalformedResponse)],
)
async def test_failures_are_those_of_every_model(fault: Fault, error: Any) -> None:
    with LoopbackServer(faults=fault) as server, pytest.raises(error, match=r"e at http://127\.0\.0\.1"):
        await vectors(server)


async def test_a_server_that_does_not_answer() -> None:
    with LoopbackServer(latency=5.0) as server, pytest.raises(CallTimedOut, match=r"timeout=0\.2"):
        await vectors(server, timeout=0.2)


@pytest.fixture
async def odd() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A server whose answer is what the dict says."""
    said: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(said)

    app = web.Application()
    app.router.add_post("/v1/embeddings", answer)
    running = TestServer(app)
    await running.start_server()
    yield str(running.make_url("/v1")), said
    await running.close()


def data(*rows: list[float]) -> dict[str, Any]:
    listed = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    return {"object": "list", "model": "e", "data": listed[::-1]}  # out of order, as some servers answer


async def test_vectors_that_are_none_are_errors_and_no_count_is_charged_at_the_bound(odd: Any) -> None:
    url, said = odd
    model = EmbeddingModel("e", base_url=url)
    said.update(data([1.0, 2.0], [3.0, 4.0]))
    reply = await model.generate(Problem(("a", "b")), [None])
    assert reply.generations[0].output == ((1.0, 2.0), (3.0, 4.0)) and reply.usage is None
    for rows in ([[1.0]], [[1.0], [1.0, 2.0]], [[], []]):
        said.clear()
        said.update(data(*rows))
        with pytest.raises(MalformedResponse, match="for 2 texts"):
            await model.generate(Problem(("a", "b")), [None])
    await model.aclose()


@pytest.mark.parametrize(
    ("rows", "usage", "tokens"),
    [
        ([{"embedding": [1, 0]}, {"embedding": [0, 1]}], {"prompt_tokens": 7}, 7),  # in the order of the texts
        ([{"index": 1, "embedding": [0, 1]}, {"index": 0, "embedding": [1, 0]}], {"prompt_tokens": "7"}, 7),
        ([{"index": 0, "embedding": "AACAPwAAAAA="}, {"index": 1, "embedding": [0, 1]}], {"total_tokens": 7.0}, 7),
        ([{"index": 0, "embedding": [1, 0]}, {"index": 1, "embedding": [0, 1]}], {"prompt_tokens": 10**15}, None),
        (
            [{"index": 0, "embedding": [1, 0]}, {"index": 0, "embedding": [0, 1]}],
            {"prompt_tokens": 7},
            MalformedResponse,
        ),
        ([{"index": 0, "embedding": None}, {"index": 1, "embedding": [0, 1]}], None, MalformedResponse),
        ([{"index": 0, "embedding": [[1, 0]]}, {"index": 1, "embedding": [[0, 1]]}], None, MalformedResponse),
        ([{"index": 0, "embedding": "no"}, {"index": 1, "embedding": [0, 1]}], None, MalformedResponse),
        ([1, 2], None, MalformedResponse),
    ],
)
async def test_other_forms_of_vectors_and_counts(rows: Any, usage: Any, tokens: Any) -> None:
    with RawServer(lambda request: RawReply({"data": rows, "usage": usage})) as server:
        if tokens is MalformedResponse:
            with pytest.raises(MalformedResponse):
                await vectors(server, TEXTS[:2])
            return
        reply = await vectors(server, TEXTS[:2])
    assert reply.generations[0].output == ((1.0, 0.0), (0.0, 1.0))
    assert (None if reply.usage is None else reply.usage.prompt_tokens) == tokens


def test_wrong_settings() -> None:
    for settings in ({"model": ""}, {"timeout": 0}, {"price": -1.0}):
        with pytest.raises(ConfigurationError):
            EmbeddingModel(**{"model": "e", "base_url": "http://h", **settings})
    for settings in ({"pooling": "max"}, {"context": 0}, {"slots": 0}):
        with pytest.raises(ConfigurationError):
            LocalEmbeddingModel(**settings)


@pytest.mark.parametrize("content", [("a", ""), ({"a": 1},), 5])
async def test_what_is_no_text(content: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a text or texts"):
        await EmbeddingModel("e", base_url="http://h").bound(Problem(content))


@pytest.mark.engine
async def test_the_local_model_embeds() -> None:
    pytest.importorskip("xllamacpp")
    model = LocalEmbeddingModel(context=256, slots=2)
    assert model.name == "SmolLM2-135M-Instruct, last"
    try:
        reply = await model.generate(Problem(("A cat sat.", "A cat sat.", "Stocks fell by 3 %.")), [None])
    finally:
        await model.aclose()
    a, b, c = reply.generations[0].output
    assert len(a) == 576 and a == pytest.approx(b, abs=1e-3)
    assert sum(x * y for x, y in zip(a, b, strict=True)) > sum(x * y for x, y in zip(a, c, strict=True))
    assert reply.usage is not None and reply.usage.prompt_tokens > 10


@pytest.mark.engine
@pytest.mark.parametrize("pooling", ["mean", "last"])
async def test_the_vector_of_a_text_does_not_depend_on_what_is_computed_beside_it(pooling: Any) -> None:
    text = "The bridge opened on Monday after three years of work, and many people came."
    others = ["Hi.", "A longer text about something else entirely. " * 8, "King.", "Ghent is a city in Belgium."]
    pytest.importorskip("xllamacpp")
    with LocalEmbeddingModel(pooling=pooling, context=256, slots=4, threads=1) as model:
        (alone,) = (await model.generate(Problem((text,)), [0])).generations[0].output
        mixed = [each for other in others for each in (text, other)]  # more tokens than one batch holds
        found = (await model.generate(Problem(tuple(mixed)), [0])).generations[0].output
    assert all(cosine(alone, vector) > 0.999 for vector in found[::2])
    assert all(cosine(alone, vector) < 0.99 for vector in found[1::2])
