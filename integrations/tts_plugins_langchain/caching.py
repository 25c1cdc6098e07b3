"""Distinct and replayable samples under `set_llm_cache`.

LangChain's cache answers the same prompt with the same text, so that n samples would be one. Here each candidate's
number is part of the key: the samples of one search differ, and the same search is answered from the cache again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import Generation

M = TypeVar("M")
SAMPLE: ContextVar[str] = ContextVar("tts_plugins_langchain_sample", default="")
"""Which candidate this runs for, outermost search first; empty outside of any, where nothing is changed."""


class SampleCache(BaseCache):
    """A cache of yours, with the candidate's number in the key.

    `scale`, `ScaledChatModel` and `TestTimeScaling` put it around what `set_llm_cache` was given, when they run. For a
    cache that belongs to one model, write it yourself: `ChatOpenAI(cache=SampleCache(InMemoryCache()))`.
    """

    def __init__(self, cache: BaseCache) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        if name == "cache":  # not there yet: a copy or an unpickling is under way
            raise AttributeError(name)
        return getattr(self.cache, name)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """What was said to this prompt by this candidate."""
        return self.cache.lookup(prompt, _salted(llm_string))

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep what was said to this prompt by this candidate."""
        self.cache.update(prompt, _salted(llm_string), return_val)

    def clear(self, **kwargs: Any) -> None:
        """Forget everything."""
        self.cache.clear(**kwargs)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """`lookup`, asynchronous."""
        return await self.cache.alookup(prompt, _salted(llm_string))

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """`update`, asynchronous."""
        await self.cache.aupdate(prompt, _salted(llm_string), return_val)

    async def aclear(self, **kwargs: Any) -> None:
        """`clear`, asynchronous."""
        await self.cache.aclear(**kwargs)


def keep_samples_apart() -> None:
    """Put a `SampleCache` around the global cache, where there is one; outside of a search it changes nothing."""
    cache = get_llm_cache()
    if cache is not None and not isinstance(cache, SampleCache):
        set_llm_cache(SampleCache(cache))


def candidates_of(model: M) -> M:
    """A chat model as candidates use it: never streaming, and apart in a cache of its own; other models as they are."""
    if not isinstance(model, BaseChatModel):
        return model
    changes: dict[str, Any] = {"disable_streaming": True}
    if getattr(model, "streaming", False):
        changes["streaming"] = False  # ChatOpenAI sends it with every request, and trips over the stream
    if isinstance(model.cache, BaseCache) and not isinstance(model.cache, SampleCache):
        changes["cache"] = SampleCache(model.cache)
    return model.model_copy(update=changes)


def _salted(llm_string: str) -> str:
    sample = SAMPLE.get()
    return f"{llm_string}---tts:{sample}" if sample else llm_string
