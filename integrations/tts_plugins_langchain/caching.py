"""Distinct and replayable samples under `set_llm_cache`.

LangChain's cache answers the same prompt with the same text, so that n samples would be one. Here each candidate's
number is part of the key: the samples of one search differ, and the same search is answered from the cache again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import Generation

from tts_plugins.adapters import called_as, lock, renew
from tts_plugins_langchain.metering import sample_here

M = TypeVar("M")


class SampleCache(BaseCache):
    """A cache of yours, with the candidate's number in the key.

    `scale`, `ScaledChatModel` and `TestTimeScaling` put it around what `set_llm_cache` was given, while they run. For a
    cache that belongs to one model, write it yourself: `ChatOpenAI(cache=SampleCache(InMemoryCache()))`.
    """

    ours = False  # put around the user's own, for as long as searches run

    @called_as("SampleCache(InMemoryCache())")
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


class _Apart:
    """A `SampleCache` around the global cache for as long as any search runs; then the user's own stands there."""

    def __init__(self) -> None:
        self._lock = lock()
        self._searches = 0
        renew(self)

    def renew(self) -> None:
        """Begin without a search, as a forked child must: those that ran here run in the parent."""
        self._searches = 0
        self._restore()

    def begin(self) -> None:
        """A search begins."""
        with self._lock:
            self._searches += 1
            cache = get_llm_cache()
            if cache is not None and not isinstance(cache, SampleCache):
                made = SampleCache(cache)
                made.ours = True
                set_llm_cache(made)

    def end(self) -> None:
        """A search that began has ended."""
        with self._lock:
            self._searches -= 1
            self._restore()

    def _restore(self) -> None:
        cache = get_llm_cache()
        if self._searches <= 0 and isinstance(cache, SampleCache) and cache.ours:
            set_llm_cache(cache.cache)


samples_apart = _Apart()


def candidates_of(model: M) -> M:
    """A chat model as candidates use it: the model itself, since it may keep a state that the user looks at.

    A copy is made only of a model that streams whatever is asked of it, and trips over that, and of one with a cache of
    its own, in which samples would be the same.
    """
    if not isinstance(model, BaseChatModel):
        return model
    changes: dict[str, Any] = {}
    if getattr(model, "streaming", False):
        changes = {"disable_streaming": True, "streaming": False}
    if isinstance(model.cache, BaseCache) and not isinstance(model.cache, SampleCache):
        changes["cache"] = SampleCache(model.cache)
    return model.model_copy(update=changes) if changes else model


def _salted(llm_string: str) -> str:
    sample = sample_here()
    return f"{llm_string}---tts:{sample}" if sample else llm_string
