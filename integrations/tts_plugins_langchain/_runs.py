"""LangChain's side of a search: a child run for each candidate, and the config that everything inside it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.callbacks.base import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import set_config_context
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from tts_plugins.adapters import in_thread
from tts_plugins_langchain._settings import SHOW, without
from tts_plugins_langchain.metering import METERED, MeterHandler

T = TypeVar("T")
_RUNTIME = "__pregel_runtime"  # langgraph's CONFIG_KEY_RUNTIME, likewise
NOSTREAM = "nostream"  # langgraph.constants.TAG_NOSTREAM, without importing langgraph
Manager = CallbackManager | AsyncCallbackManager
ChainRun = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


@dataclass
class Sample:
    """A candidate, or one step of it, on LangChain's side.

    Attributes:
        index: counts candidates as they are begun.
        asked: makes the input that what is wrapped is called with.
        place: which sample it is for a cache: of those that have the same earlier attempts, say.
        parent: the index of the one that it revises or continues.
    """

    index: int
    seed: int | None
    place: str
    asked: Callable[[], Any] = field(default=lambda: None)
    parent: int | None = None
    children: int = 0
    run: ChainRun | None = None
    output: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def begin(self, run: ChainRun) -> None:
        """Its run was started."""
        self.run, self.output, self.metadata = run, None, run.metadata

    def take(self) -> ChainRun | None:
        """Its run, for who ends it; None where it was ended, or where nobody listens."""
        run, self.run = self.run, None
        return run if run is not None and run.handlers else None


class Runs:
    """The child runs of one search.

    Args:
        parent: makes a new manager whose runs are children of the search's run.
        config: that of the search; candidates get it with callbacks of their own.
        inputs: what the search was asked, as traces show it.
    """

    def __init__(self, parent: Manager, config: RunnableConfig, inputs: Any) -> None:
        self._parent, self._config, self._inputs = parent, without(config), inputs
        self._show = bool((config.get("configurable") or {}).get(SHOW))
        self._writer, self._config = (None, self._config) if self._show else _without_writer(self._config)

    def tell(self, sample: Sample, **said: Any) -> None:
        """Progress for `stream_mode="custom"` of the graph around the search, if there is one."""
        if self._writer is not None:
            self._writer({"tts": {"candidate": sample.index, **said}})

    def manager(self, sample: Sample) -> Manager:
        """The manager that a candidate's run is started with."""
        # Configured, as LangChain does for each run: handlers of context variables, such as `collect_runs`, are not
        # inherited, and would take the runs inside of a candidate for roots.
        manager: Manager = type(self._parent).configure(inheritable_callbacks=self._parent)
        _keep(manager, self._show)
        if not self._show:
            manager.add_tags([NOSTREAM], inherit=True)
        parent = {} if sample.parent is None else {"tts_parent": sample.parent}
        manager.add_metadata({"tts_candidate": sample.index, **parent}, inherit=True)
        return manager

    @property
    def asked(self) -> dict[str, Any]:
        """A candidate's run's inputs."""
        return self._inputs if isinstance(self._inputs, dict) else {"input": self._inputs}

    def inside(self, sample: Sample, name: str | None = None) -> RunnableConfig:
        """The config for what runs as part of a candidate: its meter first, then whoever listens."""
        assert sample.run is not None
        manager: BaseCallbackManager = sample.run.get_child()
        handler = METERED.get()
        if handler is not None:
            manager.handlers.insert(0, handler)
            manager.inheritable_handlers.insert(0, handler)
        config: RunnableConfig = {**self._config, "callbacks": manager}
        config.pop("run_id", None)
        config.pop("run_name", None)
        if name is not None:
            config["run_name"] = name
        return config

    def ended(self, sample: Sample, score: float | None = None, feedback: str = "") -> dict[str, Any]:
        """The outputs of a candidate's run; its score stands in its metadata too."""
        outputs: dict[str, Any] = {"output": sample.output}
        if score is not None:
            sample.metadata["tts_score"] = outputs["score"] = score
        if feedback:
            outputs["feedback"] = feedback
        return outputs

    async def close(self, sample: Sample, outputs: Any, error: BaseException | None = None) -> None:
        """End a candidate's run, once."""
        run = sample.take()
        if isinstance(run, AsyncCallbackManagerForChainRun):
            await (run.on_chain_end(outputs) if error is None else run.on_chain_error(error))
        elif run is not None:
            await in_thread(_end, run, outputs, error)  # handlers may block, and this is the engine's loop

    def close_now(self, sample: Sample, outputs: Any, error: BaseException | None = None) -> None:
        """The same, from synchronous code."""
        run = sample.take()
        if isinstance(run, CallbackManagerForChainRun):
            _end(run, outputs, error)


def _end(run: CallbackManagerForChainRun, outputs: Any, error: BaseException | None) -> None:
    if error is None:
        run.on_chain_end(outputs)
    else:
        run.on_chain_error(error)


def _without_writer(config: RunnableConfig) -> tuple[Callable[[Any], None] | None, RunnableConfig]:
    """The writer of the graph around the search, and a config in which candidates write nowhere."""
    configurable = config.get("configurable") or {}
    runtime = configurable.get(_RUNTIME)
    writer = getattr(runtime, "stream_writer", None)
    if runtime is None or writer is None or not hasattr(runtime, "override"):
        return None, config
    silent = runtime.override(stream_writer=lambda _: None)
    return writer, {**config, "configurable": {**configurable, _RUNTIME: silent}}


def children_of(run: Any, kind: type[Any]) -> Any:
    """A manager for children of a model's run, which has no `get_child` of its own."""
    manager = kind(handlers=[], parent_run_id=None if run is None else run.run_id)
    if run is not None:
        manager.set_handlers(run.inheritable_handlers)
        manager.add_tags(run.inheritable_tags)
        manager.add_metadata(run.inheritable_metadata)
    return manager


def within(config: RunnableConfig, function: Callable[[RunnableConfig], T]) -> T:
    """Call a function where this is the surrounding config: what is called without one, or merges its own, finds it."""
    with set_config_context(config) as context:
        return context.run(function, config)


async def awithin(config: RunnableConfig, function: Callable[[RunnableConfig], Awaitable[T]]) -> T:
    """The same for what is awaited."""

    async def call() -> T:
        return await function(config)

    with set_config_context(config) as context:
        return await asyncio.create_task(call(), context=context)


def _keep(manager: Manager, show: bool) -> None:
    """Leave out meters of searches around this one, and the handlers of streams unless candidates are to be shown.

    The search's own account pays into those around it. A stream would show the tokens of all candidates mixed, and its
    mere presence makes models stream, some of which report no usage then.
    """
    manager.handlers = [h for h in manager.handlers if _wanted(h, show)]
    manager.inheritable_handlers = [h for h in manager.inheritable_handlers if _wanted(h, show)]


def _wanted(handler: BaseCallbackHandler, show: bool) -> bool:
    if isinstance(handler, MeterHandler):
        return False
    return show or not (isinstance(handler, _StreamingCallbackHandler) or _is_message_stream(handler))


def _is_message_stream(handler: BaseCallbackHandler) -> bool:
    return type(handler).__module__.startswith("langgraph.") and "Messages" in type(handler).__name__
