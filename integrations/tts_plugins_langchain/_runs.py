"""LangChain's side of a search: a child run for each candidate, and the config that everything inside it gets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar, cast
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.callbacks.base import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableSequence
from langchain_core.runnables.config import set_config_context, var_child_runnable_config

from tts_plugins import Problem
from tts_plugins.adapters import Attempts, in_thread
from tts_plugins_langchain._settings import SHOW, without
from tts_plugins_langchain._streams import EventRecorder, Replay, is_stream, without_writer
from tts_plugins_langchain.metering import METERED, MeterHandler

T = TypeVar("T")
M = TypeVar("M", bound=BaseCallbackManager)
_OF_ONE_RUN = ("run_id", "run_name")
Manager = CallbackManager | AsyncCallbackManager
ChainRun = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


@dataclass(slots=True)
class Sample:
    """A candidate, or one step of it, on LangChain's side.

    Attributes:
        index: counts candidates as they are begun.
        problem, attempts: what it is asked, and which earlier answers it is to better.
        asked: makes the input that what is wrapped is called with, where that is another one.
        place: which sample it is for a cache: of those that have the same earlier attempts, say.
        parent: the index of the one that it revises or continues.
        inner: makes managers for what runs inside it, for as long as its run is open.
        recorder: keeps the events that streams have not seen.
    """

    index: int
    seed: int | None
    place: str
    problem: Problem | None = None
    attempts: Attempts | None = None
    asked: Callable[[], Any] | None = None
    parent: int | None = None
    children: int = 0
    run: ChainRun | None = None
    inner: Manager | None = None
    output: Any = None
    metadata: dict[str, Any] = field(default_factory=dict)
    run_id: UUID | None = None
    recorder: EventRecorder | None = None

    def begin(self, inner: Manager, run: ChainRun | None) -> None:
        """Its run was started, if anybody listens."""
        self.inner, self.run, self.output = inner, run, None
        if run is not None:
            self.run_id, self.metadata = run.run_id, run.metadata

    def take(self) -> ChainRun | None:
        """Its run, for who ends it; None where it was ended, or where nobody listens."""
        run, self.run, self.inner = self.run, None, None
        return run if run is not None and run.handlers else None


class Runs:
    """The child runs of one search.

    Args:
        parent: makes a new manager whose runs are children of the search's run.
        config: that of the search; candidates get it with callbacks of their own.
        inputs: what the search was asked, as traces show it.
        replayed: whether streams are shown what happened inside the chosen candidate.

    Attributes:
        heard: whether anybody listens, so that candidates have runs.
    """

    def __init__(self, parent: Manager, config: RunnableConfig, inputs: Any, *, replayed: bool = True) -> None:
        self._parent_run, self._config, self._inputs = parent.parent_run_id, without(config), inputs
        self._show = shows_candidates(config)
        self._writer, self._config = (None, self._config) if self._show else without_writer(self._config)
        # LangChain copies what stands in a config at each step, be it empty.
        self._config = cast(RunnableConfig, {k: v for k, v in self._config.items() if v and k not in _OF_ONE_RUN})
        # Configured, as LangChain does for each run: handlers of context variables, such as `collect_runs`, are not
        # inherited, and would take the runs inside of a candidate for roots.
        self._made: Manager = type(parent).configure(inheritable_callbacks=parent)
        handlers = {id(handler): handler for handler in (*parent.handlers, *parent.inheritable_handlers)}
        self._streams = [] if self._show or not replayed else [h for h in handlers.values() if is_stream(h)]
        _keep(self._made, self._show)
        self.heard = bool(self._made.handlers or self._streams)

    def tell(self, sample: Sample, **said: Any) -> None:
        """Progress for `stream_mode="custom"` of the graph around the search, if there is one."""
        if self._writer is not None:
            self._writer({"tts": {"candidate": sample.index, **said}})

    def start(self, sample: Sample) -> None:
        """Start a candidate's run, from synchronous code, or have none where nobody listens."""
        if not self.heard:
            sample.begin(self._made, None)
            return
        manager = _with(self._made, (), _said(sample))
        assert isinstance(manager, CallbackManager)
        run = manager.on_chain_start(None, self._asked, name=f"candidate {sample.index}")
        sample.begin(run.get_child(), run)

    async def astart(self, sample: Sample) -> None:
        """Start a candidate's run, from a loop, where it is heard."""
        manager = _with(self._made, (), _said(sample))
        assert isinstance(manager, AsyncCallbackManager)
        run = await manager.on_chain_start(None, self._asked, name=f"candidate {sample.index}")
        sample.begin(run.get_child(), run)

    @property
    def _asked(self) -> dict[str, Any]:
        return self._inputs if isinstance(self._inputs, dict) else {"input": self._inputs}

    def inside(self, sample: Sample, name: str | None = None) -> RunnableConfig:
        """The config for what runs as part of a candidate: its meter first, then whoever listens."""
        assert sample.inner is not None
        handler = METERED.get()
        said = {} if sample.run is not None else _said(sample)  # else it is inherited from the run
        manager = _with(sample.inner, () if handler is None else (handler,), said)
        config = self._config
        if name is None and self._streams:
            sample.recorder = EventRecorder()
            manager.add_handler(sample.recorder, inherit=True)
            config = sample.recorder.within(config)
        config = {**config, "callbacks": manager}
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

    def show(self, sample: Sample, message: AIMessage | None = None) -> None:
        """Tell streams what happened inside the chosen candidate; `message` stands for its model's own."""
        if (replay := self._replay(sample, message)) is not None:
            replay.tell(self._streams)

    async def ashow(self, sample: Sample, message: AIMessage | None = None) -> None:
        """The same, from a loop."""
        if (replay := self._replay(sample, message)) is not None:
            await replay.atell(self._streams)

    def _replay(self, sample: Sample, message: AIMessage | None) -> Replay | None:
        if sample.recorder is None or sample.run_id is None:
            return None
        return Replay(sample.recorder.events, sample.run_id, self._parent_run, message)

    async def close(self, sample: Sample, outputs: Any, error: BaseException | None = None) -> None:
        """End a candidate's run, once."""
        run = sample.take()
        if run is None:
            return
        if isinstance(run, AsyncCallbackManagerForChainRun):
            await (run.on_chain_end(outputs) if error is None else run.on_chain_error(error))
        else:
            await in_thread(_end, run, outputs, error)  # handlers may block, and this is the engine's loop

    def close_now(self, sample: Sample, outputs: Any, error: BaseException | None = None) -> None:
        """The same, from synchronous code."""
        run = sample.take()
        if isinstance(run, CallbackManagerForChainRun):
            _end(run, outputs, error)


def _said(sample: Sample) -> dict[str, Any]:
    """What the metadata of a candidate's runs say."""
    return {"tts_candidate": sample.index, **({} if sample.parent is None else {"tts_parent": sample.parent})}


def _end(run: CallbackManagerForChainRun, outputs: Any, error: BaseException | None) -> None:
    if error is None:
        run.on_chain_end(outputs)
    else:
        run.on_chain_error(error)


def shows_candidates(config: RunnableConfig) -> bool:
    """Whether a call asks for streams of every candidate."""
    return bool((config.get("configurable") or {}).get(SHOW))


def children_of(run: Any, kind: type[Any]) -> Any:
    """A manager for children of a model's run, which has no `get_child` of its own."""
    manager = kind(handlers=[], parent_run_id=None if run is None else run.run_id)
    if run is not None:
        manager.set_handlers(run.inheritable_handlers)
        manager.add_tags(run.inheritable_tags)
        manager.add_metadata(run.inheritable_metadata)
    return manager


def within(config: RunnableConfig, invoke: Callable[[Any, RunnableConfig], T], asked: Any) -> T:
    """Invoke where this is the surrounding config: what is called without one, or merges its own, finds it."""
    with set_config_context(config) as context:
        return context.run(invoke, asked, config)


def awithin(config: RunnableConfig, ainvoke: Callable[[Any, RunnableConfig], Awaitable[T]], asked: Any) -> Awaitable[T]:
    """The same for what is awaited, in the context of the running task, until the search's `leave`."""
    if _is_traced(config):  # LangSmith's client keeps the run around in variables of its own
        return _in_own_context(config, ainvoke, asked)
    var_child_runnable_config.set(config)
    return ainvoke(asked, config)


def passing_on(runnable: T) -> T:
    """Return the runnable; where it gives its config to all that it calls, it needs no surrounding one.

    LangChain would merge the two at each step, with copies of both.
    """
    if type(runnable) is RunnableSequence:
        var_child_runnable_config.set(None)  # until `within` ends, or the search's `leave`
    return runnable


async def _in_own_context(
    config: RunnableConfig, ainvoke: Callable[[Any, RunnableConfig], Awaitable[T]], asked: Any
) -> T:
    async def called() -> T:
        return await ainvoke(asked, config)

    with set_config_context(config) as context:
        return await asyncio.create_task(called(), context=context)


def _is_traced(config: RunnableConfig) -> bool:
    """Whether there are handlers besides the meter, one of which may be LangSmith's tracer."""
    handlers = getattr(config.get("callbacks"), "handlers", ())
    return len(handlers) > 1 or not all([type(handler) is MeterHandler for handler in handlers])


def _with(manager: M, first: Sequence[BaseCallbackHandler], said: Mapping[str, Any] = MappingProxyType({})) -> M:
    """A manager with further handlers and metadata; it shares with the given one what nobody changes."""
    return type(manager)(
        handlers=[*first, *manager.handlers],
        inheritable_handlers=[*first, *manager.inheritable_handlers],
        parent_run_id=manager.parent_run_id,
        tags=manager.tags,
        inheritable_tags=manager.inheritable_tags,
        metadata={**manager.metadata, **said} if said else manager.metadata,
        inheritable_metadata={**manager.inheritable_metadata, **said} if said else manager.inheritable_metadata,
    )


def _keep(manager: Manager, show: bool) -> None:
    """Leave out meters of searches around this one, and the handlers of streams unless candidates are to be shown.

    The search's own account pays into those around it. A stream would show the tokens of all candidates mixed, and its
    mere presence makes models stream, some of which report no usage then. Streams are shown the chosen one's events.
    """
    manager.handlers = [h for h in manager.handlers if _wanted(h, show)]
    manager.inheritable_handlers = [h for h in manager.inheritable_handlers if _wanted(h, show)]


def _wanted(handler: BaseCallbackHandler, show: bool) -> bool:
    if isinstance(handler, MeterHandler):
        return False
    return show or not is_stream(handler)
