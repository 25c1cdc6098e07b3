"""Texts as vectors: any server with OpenAI's /v1/embeddings, or llama.cpp on this machine."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.error_bodies import error_in
from tts_plugins._internal.http_errors import reply_error, shown_address
from tts_plugins._internal.secrets import cleaned, hidden, hidden_address
from tts_plugins._internal.token_usage import count_of, prompt_count
from tts_plugins._internal.values import field, fields_of, listed, once_made
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import CallTimedOut, ConfigurationError, MalformedResponse, TTSError
from tts_plugins.models._llama_cpp.served_model import EMBEDDED, PLACEHOLDER, Served
from tts_plugins.models._llama_cpp.server import Pooling
from tts_plugins.models._openai.clients import Clients
from tts_plugins.models._openai.error_mapping import translate
from tts_plugins.types import Generation, Problem, Reply, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_SPARE = 8  # tokens that a server may put around a text


class EmbeddingModel:
    """Embeddings of any compatible server: vLLM (`--runner pooling`), llama.cpp (`--embeddings`), OpenAI.

    It is a `Model`, so that its calls are held to the budget, retried and traced: the problem's content is the texts,
    and the one generation's `output` a tuple with a vector for each, in order.

    Args:
        model: the server's name for the model.
        base_url, api_key, client: as for `OpenAICompatibleModel`.
        price: US dollars per million tokens; 0 for a server of your own, unknown if no address is given.
        timeout: seconds for one request.
        concurrency: requests in flight at most.

    Raises:
        ConfigurationError: a field is out of range.
    """

    batch = 1
    embeds = True  # it gives vectors, not texts

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: AsyncOpenAI | None = None,
        price: float | None = None,
        timeout: float = 120.0,
        concurrency: int | None = 16,
    ) -> None:
        base_url, api_key = hidden_address(base_url), hidden(api_key)
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError(f"EmbeddingModel: model={model!r} must be the server's name for the model")
        if not timeout > 0 or (price is not None and not 0 <= price < math.inf):
            raise ConfigurationError(
                f"EmbeddingModel: timeout={timeout!r} must be above 0 seconds and price={price!r} at least 0"
            )
        self.name, self.limits = model, Limits(concurrency=concurrency)
        self._base_url = base_url if client is None else str(client.base_url)
        self._price = 0.0 if price is None and base_url is not None else price
        self._timeout, self._asked = timeout, model
        self._clients = Clients(base_url=base_url, api_key=api_key, client=client, timeout=timeout)

    @once_made
    def __repr__(self) -> str:
        where = f", base_url={shown_address(self._base_url)!r}" if self._base_url else ""
        return f"{type(self).__name__}({self.name!r}{where})"

    async def bound(self, problem: Problem) -> Bound:
        """Return the bytes of the texts: a tokeniser makes at most one token of each."""
        tokens = sum(len(text.encode("utf-8", "replace")) + _SPARE for text in texts_of(problem))
        return Bound(calls=0, prompt_tokens=tokens, usd=self._usd(tokens))  # it generates nothing

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Ask for the vectors of all the texts, in one request.

        Raises:
            ModelError: of the kind that says whether to retry and what to charge.
        """
        try:
            return await self._embedded(list(texts_of(problem)))
        except TTSError as error:
            raise cleaned(error, self._clients.secrets) from error.__cause__

    async def _embedded(self, texts: list[str]) -> Reply:
        where = f"{self.name} at {shown_address(self._base_url)}" if self._base_url else self.name
        try:
            async with asyncio.timeout(self._timeout):
                client = await self._clients.get()
                answer = await client.embeddings.create(model=self._asked, input=texts, encoding_format="float")
        except TTSError:
            raise
        except TimeoutError as error:
            raise CallTimedOut(f"{where}: no complete answer within timeout={self._timeout:g} s") from error
        except Exception as error:
            raise translate(error, where, self._clients.secrets) from error
        if (wrong := error_in(fields_of(answer))) is not None:
            raise reply_error(200, f"{where}: the answer is an error", wrong, now=time.time())
        vectors = _vectors(answer, len(texts), where)
        tokens = prompt_count(field(answer, "usage"))
        used = None  # charged at the bound
        if tokens is not None:
            used = Usage(requests=1, prompt_tokens=tokens, usd=self._usd(tokens))
        return Reply(generations=(Generation(text=f"{len(vectors)} vectors", output=vectors),), usage=used)

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens new ones."""
        await self._clients.close()

    def _usd(self, tokens: int) -> float | None:
        return None if self._price is None else tokens * self._price / 1e6


class LocalEmbeddingModel(Served, EmbeddingModel):
    """Embeddings of a GGUF on this machine, by llama.cpp in a child process (the extra `local`).

    Args:
        path: a GGUF file; the embedded SmolLM2-135M-Instruct if left out.
        pooling: "last", the hidden state of the last token, which has read all the others; or "mean".
        context: tokens of one text at most.
        slots: texts computed side by side.
        threads: of the CPU; the cores that are free when it starts, if left out.
        timeout: seconds for one request.
        progress: called with bytes done and bytes in all while the embedded weights are fetched.

    Its name is the model's with the pooling, since vectors of one mean nothing to what was fitted to the other.

    Raises:
        ConfigurationError: a field is out of range.
        MissingExtraError, WeightsError: as for `LocalModel`.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        pooling: Pooling = "last",
        context: int = 2048,
        slots: int = 4,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        timeout: float = 120.0,
    ) -> None:
        check_count("LocalEmbeddingModel", "context", context)
        check_count("LocalEmbeddingModel", "slots", slots)
        if pooling not in ("mean", "last"):
            raise ConfigurationError(f"LocalEmbeddingModel: pooling={pooling!r} is not known; use 'last' or 'mean'")
        name = EMBEDDED if path is None else Path(path).stem
        super().__init__(f"{name}, {pooling}", base_url=PLACEHOLDER, timeout=timeout, concurrency=slots)
        self._asked = name
        self._serve(
            path, progress=progress, context=context, slots=slots, threads=threads, embeddings=pooling,
        )  # fmt: skip

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Do as for any server, once this one runs."""
        ask = super().generate
        return await self._sent(lambda: ask(problem, seeds))


def texts_of(problem: Problem) -> tuple[str, ...]:
    """Return the texts that a problem for an embedding model holds.

    Raises:
        ConfigurationError: its content is neither a text nor a sequence of texts.
    """
    content: Any = problem.content
    texts = (content,) if isinstance(content, str) else tuple(content) if isinstance(content, Sequence) else ()
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ConfigurationError(f"EmbeddingModel: {str(content)[:60]!r} must be a text or texts, none of them empty")
    return texts


def _vectors(answer: Any, count: int, where: str) -> tuple[tuple[float, ...], ...]:
    rows = listed(field(answer, "data"))
    places = [count_of(field(row, "index"), 0) for row in rows]
    if any(place is not None for place in places):  # a server that numbers none gives them in the order of the texts
        if sorted(place for place in places if place is not None) != list(range(len(rows))):
            raise MalformedResponse(f"{where}: the vectors are numbered {places!r:.60}, and not one for each text")
        rows = [rows[places.index(i)] for i in range(len(rows))]
    vectors = tuple(_vector(field(row, "embedding"), where) for row in rows)
    if len(vectors) != count or len({len(v) for v in vectors}) != 1 or not vectors[0]:
        raise MalformedResponse(f"{where}: {len(vectors)} vectors for {count} texts, or of different lengths")
    if not all(math.isfinite(x) for v in vectors for x in v):
        raise MalformedResponse(f"{where}: a vector holds a value that is not a finite number")
    return vectors


def _vector(value: Any, where: str) -> tuple[float, ...]:
    """Return the numbers of one vector: a list, or base64 from a server that knows no other form."""
    try:
        if isinstance(value, str):
            packed = base64.b64decode(value, validate=True)
            return struct.unpack(f"<{len(packed) // 4}f", packed)
        return tuple(map(float, value))
    except (TypeError, ValueError, struct.error) as error:
        raise MalformedResponse(f"{where}: a vector is {value!r:.60}, not a list of numbers ({error})") from error
