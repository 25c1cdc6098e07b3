"""What streams see of a search: nothing while candidates compete, and then the events of the chosen one.

A stream is a handler of `astream_events`, `astream_log` or LangGraph's stream modes. Told of every candidate, it would
mix the tokens of all; without any, it would show a chain without its model. So each candidate's events are kept, and
those of the chosen one are replayed as if it had been called alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from tts_plugins_langchain._io.messages import chunk_of

_RUNTIME, _STREAM = "__pregel_runtime", "__pregel_stream"  # langgraph's CONFIG_KEY_RUNTIME and CONFIG_KEY_STREAM
_TAPPED, _GRAPH = "tapped", "graph"  # events that are not callbacks
_NO_STREAM = "prompt"  # a run of this type streams nothing in a bare chain either


@dataclass
class Event:
    """A call of a handler."""

    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def run(self) -> UUID | None:
        """The run that it tells of."""
        return self.named.get("run_id")

    def tell(self, handlers: Sequence[BaseCallbackHandler]) -> bool:
        """Tell the handlers unless it is a callback; return whether it is not one."""
        if self.name == _GRAPH:
            self.arguments[0](self.arguments[1])
        elif self.name == _TAPPED:
            for handler in handlers:
                if isinstance(handler, _StreamingCallbackHandler) and self.run is not None:
                    for _ in handler.tap_output_iter(self.run, iter(self.arguments[:1])):
                        pass
        return self.name in (_GRAPH, _TAPPED)


class EventRecorder(BaseCallbackHandler):
    """Keeps the events of the runs inside one candidate."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[Event] = []

    def within(self, config: RunnableConfig) -> RunnableConfig:
        """The config with a stream of this candidate in place of that of the graph around, for graphs inside it."""
        configurable = config.get("configurable") or {}
        stream = configurable.get(_STREAM)
        if stream is None or not hasattr(stream, "modes"):
            return config

        def record(chunk: Any) -> None:
            self.events.append(Event(_GRAPH, (stream, chunk), {}))

        return {**config, "configurable": {**configurable, _STREAM: type(stream)(record, stream.modes)}}


def _recording(name: str) -> Any:
    def record(self: EventRecorder, *arguments: Any, **named: Any) -> None:
        self.events.append(Event(name, arguments, named))

    return record


for _name in dir(BaseCallbackHandler):
    if _name.startswith("on_"):
        setattr(EventRecorder, _name, _recording(_name))


def is_stream(handler: BaseCallbackHandler) -> bool:
    """Whether a handler shows runs as they go on; the recorder of a search around this one is for streams too."""
    return isinstance(handler, _StreamingCallbackHandler | EventRecorder) or _shows_messages(handler)


def _shows_messages(handler: BaseCallbackHandler) -> bool:
    return type(handler).__module__.startswith("langgraph.") and "Messages" in type(handler).__name__


@dataclass
class Replay:
    """The events of the chosen candidate, for the streams that saw no candidate.

    Args:
        events: those inside the candidate's run.
        candidate: the candidate's run, which a bare chain does not have.
        parent: the run of the search.
        message: stands for the model's own message of this id.
    """

    events: Iterable[Event]
    candidate: UUID
    parent: UUID | None
    message: AIMessage | None = None
    _kinds: dict[UUID | None, str] = field(default_factory=dict)
    _streamed: set[UUID | None] = field(default_factory=set)

    def tell(self, handlers: Sequence[BaseCallbackHandler]) -> None:
        """Tell each handler all of it."""
        for event in self._events():
            if not event.tell(handlers):
                handle_event([*handlers], event.name, None, *event.arguments, **event.named)

    async def atell(self, handlers: Sequence[BaseCallbackHandler]) -> None:
        """Tell each handler all of it, from a loop."""
        for event in self._events():
            if not event.tell(handlers):
                await ahandle_event([*handlers], event.name, None, *event.arguments, **event.named)

    def _events(self) -> Iterator[Event]:
        """The events as a bare chain's: without the candidate, and with an answer in one piece as its stream."""
        for event in self.events:
            named = dict(event.named)
            if named.get("parent_run_id") == self.candidate:
                named["parent_run_id"] = self.parent
            arguments = event.arguments
            if event.name == "on_chain_start":
                self._kinds[event.run] = named.get("run_type") or "chain"
            elif event.name in ("on_llm_new_token", "on_stream_event"):
                self._streamed.add(event.run)
            elif event.name == "on_llm_end":
                arguments = (self._answered(arguments[0]), *arguments[1:])
                yield from self._tokens(event, arguments[0], named)
            elif event.name == "on_chain_end" and self._kinds.get(event.run) not in (None, _NO_STREAM):
                yield Event(_TAPPED, arguments, named)
            yield Event(event.name, arguments, named)

    def _answered(self, response: LLMResult) -> LLMResult:
        """The response with the message that the search answers with in its place."""
        message = self.message
        if message is None or message.id is None:
            return response
        groups = [[_in_place(choice, message) for choice in group] for group in response.generations]
        return response.model_copy(update={"generations": groups})

    def _tokens(self, event: Event, response: LLMResult, named: dict[str, Any]) -> Iterator[Event]:
        if event.run in self._streamed or not response.generations or not response.generations[0]:
            return
        choice = response.generations[0][0]
        if isinstance(choice, ChatGeneration):
            if not isinstance(choice.message, AIMessage):
                return
            chunk: Any = ChatGenerationChunk(message=chunk_of(choice.message))
        else:
            chunk = GenerationChunk(text=choice.text, generation_info=choice.generation_info)
        yield Event("on_llm_new_token", (chunk.text,), {**named, "chunk": chunk})


def _in_place(choice: Generation, message: AIMessage) -> Generation:
    same = isinstance(choice, ChatGeneration) and choice.message.id == message.id
    return choice.model_copy(update={"message": message}) if same else choice


def silent(runtime: Any) -> Any:
    """A graph's runtime in which nothing is written to its custom stream; any other object as it is."""
    if not hasattr(runtime, "stream_writer") or not hasattr(runtime, "override"):
        return runtime
    return runtime.override(stream_writer=lambda _: None)


def without_writer(config: RunnableConfig) -> tuple[Callable[[Any], None] | None, RunnableConfig]:
    """The writer of the graph around the search, and a config in which candidates write nowhere."""
    configurable = config.get("configurable") or {}
    runtime = configurable.get(_RUNTIME)
    quiet = silent(runtime)
    if runtime is None or quiet is runtime:
        return None, config
    return runtime.stream_writer, {**config, "configurable": {**configurable, _RUNTIME: quiet}}
