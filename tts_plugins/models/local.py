"""A model on this machine: llama.cpp with any GGUF, or the small embedded one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tts_plugins._config import check_count
from tts_plugins._threads import in_thread
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, ConnectionFailed, ModelError
from tts_plugins.models._clients import Clients
from tts_plugins.models._llama import LlamaServer
from tts_plugins.models._weights import embedded_weights
from tts_plugins.models.openai_compatible import OpenAICompatibleModel
from tts_plugins.types import Problem, Reply


class LocalModel(OpenAICompatibleModel):
    """A GGUF served by llama.cpp (`xllamacpp`, the extra `local`) in a child process on a loopback port.

    Args:
        path: a GGUF file; the embedded SmolLM2-135M-Instruct where left out, fetched once at first use (93 MB).
        temperature, top_p, max_tokens, system, logprobs, params: as for `OpenAICompatibleModel`.
        context: tokens that one candidate may fill, prompt included; memory grows with `context` x `slots`.
        slots: candidates generated side by side.
        batch: choices asked in one request at most; as many as there are slots, where left out. One request for all
            computes the prompt once: with 50 new tokens of prompt and 26 of answer, eight choices took half the time
            of eight requests. With 1, each candidate has a seed of its own, whatever it is sent along with, and is
            scored as soon as it is complete.
        threads: of the CPU; the cores that are free when it starts, where left out.
        progress: called with bytes done and bytes in all while the embedded weights are fetched.

    It starts with the first call, or with `start()`, and frees its memory with `close()`, at the end of a `with`
    block, or with the program. Its price is zero.

    Raises:
        ConfigurationError: a field is out of range.
        MissingExtraError: `xllamacpp` is not installed.
        WeightsError: the weights cannot be fetched, are no GGUF, or are not what they should be.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        temperature: float | None = 0.8,
        top_p: float | None = None,
        max_tokens: int = 512,
        context: int = 4096,
        slots: int = 8,
        batch: int | None = None,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> None:
        check_count("LocalModel", "context", context)
        check_count("LocalModel", "slots", slots)
        batch = slots if batch is None else batch
        check_count("LocalModel", "batch", batch)
        if batch > slots:
            raise ConfigurationError(f"LocalModel: batch={batch} is more than slots={slots}; raise slots")
        if max_tokens >= context:
            raise ConfigurationError(
                f"LocalModel: max_tokens={max_tokens} leaves no room for a prompt in context={context}; raise context"
            )
        # Requests stream: only then does llama.cpp notice that a cancelled one is not wanted any more.
        super().__init__(
            "SmolLM2-135M-Instruct" if path is None else Path(path).stem,
            base_url="http://127.0.0.1/v1",  # a placeholder until the port is known
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            stream=True,
            batch=batch,
            concurrency=slots,
            price=(0.0, 0.0),
            **settings,
        )
        if self._way == "auto":
            self._way = "plain"  # llama.cpp continues a last turn of the assistant, and need not be asked
        self._path, self._context, self._slots, self._threads = path, context, slots, threads
        self._progress = progress
        self._lock = threading.Lock()
        self._server: LlamaServer | None = None

    @property
    def base_url(self) -> str:
        """The running server's address, for any OpenAI client; it starts the server where it does not run."""
        return self.start().base_url

    @property
    def threads(self) -> int:
        """CPU threads in use."""
        return self.start().threads

    def start(self) -> LlamaServer:
        """The running server, started (and the weights fetched) where it does not run yet. It blocks meanwhile."""
        with self._lock:
            if self._server is None or not self._server.alive:
                path = embedded_weights(progress=self._progress) if self._path is None else Path(self._path)
                self._server = LlamaServer(path, context=self._context, slots=self._slots, threads=self._threads)
                self._base_url = self._server.base_url
                self._clients = Clients(base_url=self._base_url, api_key="-", client=None, timeout=self._timeout)
            return self._server

    async def bound(self, problem: Problem) -> Bound:
        """As for any server, once this one runs."""
        await self._started()
        return await super().bound(problem)

    async def _ask(self, prompt: dict[str, Any], seeds: Sequence[int | None], **how: Any) -> Reply:
        await self._started()
        try:
            return await super()._ask(prompt, seeds, **how)
        except ConnectionFailed as error:
            # Its server closes a kept connection now and then just as it is used again; nothing was generated then.
            if self._server is None or not self._server.alive:
                raise
            before = error.requests
        try:
            reply = await super()._ask(prompt, seeds, **how)
        except ModelError as error:
            error.requests += before
            raise
        usage = reply.usage
        return reply if usage is None else replace(reply, usage=replace(usage, requests=usage.requests + before))

    def close(self) -> None:
        """End the server and free its memory; a later call starts it again."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    async def aclose(self) -> None:
        """`close`, with the connections of the running loop closed first."""
        await super().aclose()
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def _started(self) -> None:
        if self._server is None or not self._server.alive:
            await in_thread(self.start)
