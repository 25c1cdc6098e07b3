"""A model on this machine: llama.cpp with any GGUF, or the small embedded one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.request_sent import holding
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._llama_cpp.served_model import EMBEDDED, PLACEHOLDER, Served
from tts_plugins.models.openai_compatible import OpenAICompatibleModel
from tts_plugins.types import Problem, Reply


class LocalModel(Served, OpenAICompatibleModel):
    """A GGUF served by llama.cpp (`xllamacpp`, the extra `local`) in a child process on a loopback port.

    Args:
        path: a GGUF file; the embedded SmolLM2-135M-Instruct if left out, fetched once at first use (93 MB).
        temperature, top_p, max_tokens, system, logprobs, params: as for `OpenAICompatibleModel`.
        context: tokens that one candidate may fill, prompt included; memory grows with `context` x `slots`.
        slots: candidates generated side by side.
        batch: choices asked in one request at most; as many as there are slots, if left out. One request for all
            computes the prompt once: with 50 new tokens of prompt and 26 of answer, eight choices took half the time
            of eight requests. With 1, each candidate has a seed of its own, whatever it is sent along with, and is
            scored as soon as it is complete.
        threads: of the CPU; the cores that are free when it starts, if left out.
        progress: called with bytes done and bytes in all while the embedded weights are fetched.

    It starts with the first call, or with `start()`, and frees its memory with `close()`, at the end of a `with`
    block, or with the program. Its price is zero.

    Raises:
        ConfigurationError: a field is out of range.
        MissingExtraError: `xllamacpp` is not installed.
        WeightsError: the weights cannot be fetched, are not GGUF, or do not match their hash.
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
            EMBEDDED if path is None else Path(path).stem,
            base_url=PLACEHOLDER,
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
            self._way = "plain"  # llama.cpp continues a last turn of the assistant, so there is nothing to find out
        self._serve(path, context=context, slots=slots, threads=threads, progress=progress)

    def variant(
        self, *, model: str | None = None, effort: str | Mapping[str, Any] | None = None
    ) -> OpenAICompatibleModel:
        """Refuse: its server has one model.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"LocalModel: {self.name} cannot become model={model!r}, effort={effort!r}: its server has one model; give "
            "the rung a model of its own: Rung(model=LocalModel(path))"
        )

    async def bound(self, problem: Problem) -> Bound:
        """Do as for any server, once this one runs."""
        await self._started()
        return await super().bound(problem)

    async def _completing(self, prompt: dict[str, Any]) -> dict[str, Any]:
        await self._started()
        return await super()._completing(prompt)

    async def _ask(self, prompt: dict[str, Any], seeds: Sequence[int | None], **how: Any) -> Reply:
        holding(self)  # it may have to be started first
        ask = super()._ask
        return await self._sent(lambda: ask(prompt, seeds, **how))
