"""`ScaledChatModel`: a chat model that searches inside, for wherever a chat model goes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Never, Unpack

from langchain_core.caches import BaseCache
from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from pydantic import Field, PrivateAttr

from tts_plugins import Result
from tts_plugins.adapters import check_placed
from tts_plugins.errors import ConfigurationError, LowConfidence, UnknownSettingError
from tts_plugins.models import StepSettings
from tts_plugins_langchain._fields import ChatModelOptions, SearchFields
from tts_plugins_langchain._io.asked_form import FORMS
from tts_plugins_langchain._io.attempt_inputs import Carrier, Function, Inside, Target, Turns
from tts_plugins_langchain._io.conversion import problem_of
from tts_plugins_langchain._io.messages import charged, chosen, chunk_of, reported, streamed
from tts_plugins_langchain._io.parts import leaves_of
from tts_plugins_langchain._io.temperature import check_sampling, temperatures_of
from tts_plugins_langchain._io.values import said_in
from tts_plugins_langchain._io.variants import varied
from tts_plugins_langchain._runs import Runs, children_of
from tts_plugins_langchain._search import Search
from tts_plugins_langchain._settings import search_arguments
from tts_plugins_langchain._stand_in import StandIn, not_a_model
from tts_plugins_langchain._steps import Asked, ChatModel
from tts_plugins_langchain.caching import candidates_of
from tts_plugins_langchain.metering import SCALED
from tts_plugins_langchain.runnable import scale

_SENT = ("temperature", "max_tokens", "stop")


class ScaledChatModel(SearchFields, StandIn):
    """A chat model that asks another one several times, and answers with the best it said.

        ScaledChatModel(ChatOpenAI(...), strategy=BestOfN(n=8), verifier=check, budget=Budget(tokens=20_000))

    It drops in wherever a chat model goes: `bind_tools`, `with_structured_output`, agents, chains. A message's
    `usage_metadata` is what the whole search took, and `response_metadata["tts"]` has its score, the number of
    candidates, why it stopped, and the usage in detail. Callback handlers see the usage once: of the inner calls.

    Searches over steps (`BeamSearch`, `DVTS`, `ParticleFilter`) continue the model's own turn where the server does
    that, and else ask for one step at a time; `steps=StepSettings(...)` says how steps are cut. Revisions are further
    turns; `revision=` may be a function of (problem, attempts) that returns the messages instead.

    Candidates are not streamed; `stream` gives the answer when it is chosen. Under `set_llm_cache` the samples are
    cached, each for itself, and the choice is made anew.

    Raises:
        ConfigurationError: a setting is wrong, or several samples are asked for at temperature 0.
    """

    tts_profile: str | None = None
    """A named bundle of settings; it gives those that are not set here. (`profile` is LangChain's, of the model.)"""
    steps: StepSettings | None = None
    """How searches over steps cut and continue an answer."""
    streaming: bool = False
    """For code that sets it on chat models; it changes nothing."""
    cache: BaseCache | bool | None = Field(default=False, exclude=True)

    _chain_model: ChatModel = PrivateAttr()
    _carrier: Carrier = PrivateAttr()
    _streams: dict[str, Any] = PrivateAttr(default_factory=dict)

    def __init__(
        self, model: BaseChatModel | None = None, /, *placed: Never, **options: Unpack[ChatModelOptions]
    ) -> None:
        check_placed("ScaledChatModel(model", placed)
        settings: dict[str, Any] = {**options}
        given = settings.pop("model", None)
        if (model := model or given) is not None:
            settings["bound"] = model
        if not isinstance(settings.get("bound"), BaseChatModel):
            raise ConfigurationError(not_a_model(settings.get("bound")))
        sent = {key: settings.pop(key) for key in _SENT if key in settings}
        if unknown := sorted(set(settings) - set(type(self).model_fields)):
            raise UnknownSettingError(
                f"ScaledChatModel: {unknown[0]!r} is not a setting; what the model itself takes is set on that model"
            )
        super().__init__(**{**settings, "sent": {**settings.get("sent", {}), **sent}})

    def model_post_init(self, context: Any) -> None:
        """Check what can be checked before the first call."""
        super().model_post_init(context)
        if isinstance(self.revision, str):
            raise ConfigurationError(
                f"ScaledChatModel: revision={self.revision!r} names a prompt's variable, and a chat model has turns; "
                "leave it out, or pass a function of (problem, attempts) that returns the messages"
            )
        self._chain_model = ChatModel(self.bound, self.concurrency, self.steps)
        self._carrier = Inside("messages", Turns() if self.revision is None else Function(self.revision))
        self._settings({})

    # What a chat model has to have.

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        search = self._search(messages, stop, run_manager, kwargs, sync=True)
        message = _message(search, search.run(), run_manager)
        if run_manager is not None:
            chunk = ChatGenerationChunk(message=chunk_of(charged(message)))
            run_manager.on_llm_new_token(said_in(message), chunk=chunk)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        search = self._search(messages, stop, run_manager, kwargs, sync=False)
        message = _message(search, await search.arun(), run_manager)
        if run_manager is not None:
            chunk = ChatGenerationChunk(message=chunk_of(charged(message)))
            await run_manager.on_llm_new_token(said_in(message), chunk=chunk)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _should_stream(self, **kwargs: Any) -> bool:
        # An `invoke` that somebody listens to would lose its run in `_stream`, and with it the candidates' place in
        # traces: `_generate` keeps it, and tells its one chunk by itself.
        return "run_manager" not in kwargs

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        search = self._search(messages, stop, run_manager, kwargs, sync=True)
        message = _message(search, search.run(), run_manager)
        yield from streamed(message, counted=run_manager is None)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        search = self._search(messages, stop, run_manager, kwargs, sync=False)
        message = _message(search, await search.arun(), run_manager)
        for chunk in streamed(message, counted=run_manager is None):
            yield chunk

    def _search(
        self, messages: list[BaseMessage], stop: list[str] | None, run: Any, kwargs: dict[str, Any], *, sync: bool
    ) -> Search:
        config, announced = ensure_config(), self._streams.pop(kwargs.pop("tts_run", ""), None)
        config["configurable"] = {**(config.get("configurable") or {}), **kwargs.pop("tts", {})}
        kwargs = {**self.sent, **({} if stop is None else {"stop": stop}), **kwargs}
        settings, model = self._settings(config), candidates_of(self.bound)
        check_sampling("ScaledChatModel", settings, temperatures_of(leaves_of(self.bound, kwargs)))
        if announced is None:
            announced = children_of(run, CallbackManager if sync else AsyncCallbackManager)
        return Search(
            model=self._chain_model,
            target=Target(
                name=self._chain_model.name,
                input=Asked(messages=messages, arguments=kwargs),
                carrier=self._carrier,
                invoke=lambda asked, inner: varied(model).invoke(asked.messages, inner, **asked.arguments),
                ainvoke=lambda asked, inner: varied(model).ainvoke(asked.messages, inner, **asked.arguments),
                bound=self.bound,
                arguments=kwargs,
            ),
            problem=problem_of(messages, **{key: kwargs[key] for key in (*FORMS, "tool_choice") if key in kwargs}),
            settings=settings,
            runs=Runs(announced, config, messages, replayed=False),
        )

    # Usage is reported once: callback handlers hear of it from the inner calls, and the caller reads it in the message.

    def generate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """As for any chat model; the usage in each message is that of its whole search."""
        return reported(super().generate(messages, *args, **kwargs))

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """As for any chat model; the usage in each message is that of its whole search."""
        return reported(await super().agenerate(messages, *args, **kwargs))

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """The chosen message."""
        return super().invoke(input, config, **kwargs, **search_arguments(config))

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """The chosen message, through the model's `ainvoke`."""
        return await super().ainvoke(input, config, **kwargs, **search_arguments(config))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """The chosen message, in one piece."""
        config, key = self._announce(config, CallbackManager)
        try:
            yield from super().stream(input, config, tts_run=key, **kwargs, **search_arguments(config))
        finally:
            self._streams.pop(key, None)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """The chosen message, in one piece, through the model's `ainvoke`."""
        config, key = self._announce(config, AsyncCallbackManager)
        try:
            async for chunk in super().astream(input, config, tts_run=key, **kwargs, **search_arguments(config)):
                yield chunk
        finally:
            self._streams.pop(key, None)

    def _announce(self, config: RunnableConfig | None, kind: type[Any]) -> tuple[RunnableConfig, str]:
        """A stream's run by an id of ours: LangChain does not tell `_stream` whose child a candidate's run is."""
        config = ensure_config(config)
        run_id = config.get("run_id") or uuid.uuid4()
        config["run_id"] = run_id
        manager = kind.configure(
            inheritable_callbacks=config.get("callbacks"),
            inheritable_tags=config.get("tags"),
            inheritable_metadata=config.get("metadata"),
        )
        manager.parent_run_id = run_id
        self._streams[str(run_id)] = manager
        return config, str(run_id)

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        kwargs.pop("tts_run", None)
        return super()._get_invocation_params(stop=stop, **kwargs)

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Search over parsed outputs: verifiers and votes see objects, and a candidate that cannot be parsed fails.

        With `include_raw`, where nothing parses, the first output is returned with its `parsing_error`.
        """
        inner: Runnable[LanguageModelInput, Any] = candidates_of(self.bound).with_structured_output(
            schema, include_raw=include_raw, **kwargs
        )
        settings = {name: getattr(self, name) for name in SearchFields.model_fields}
        scaled: Runnable[LanguageModelInput, Any] = scale(inner, profile=self.tts_profile, **settings)
        return scaled.bind(**self.sent) if self.sent else scaled

    def _profile_name(self) -> str | None:
        return self.tts_profile

    @property
    def _llm_type(self) -> str:
        return SCALED

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # Rich enough that two wrappers differ where their answers may.
        return {
            "model": {"_type": self.bound._llm_type, **self.bound._identifying_params},
            "sent": self.sent,
            "strategy": repr(self.strategy),
            "verifier": repr(self.verifier),
            "budget": repr(self.budget),
            "n": self.n,
            "seed": self.seed,
            "profile": self.tts_profile,
            "revision": repr(self.revision),
            "steps": repr(self.steps),
        }


def _message(search: Search, result: Result, run: Any) -> AIMessage:
    """Return the message that a search answers with.

    Raises:
        LowConfidence: there is no answer, and an agent asks (tools beside a format): it parses the message at once.
    """
    asked = search.problem.metadata
    if result.abstained is not None and asked.get("response_format") and "tools" in asked:
        raise LowConfidence.of(result)
    return chosen(result, run, search.details)
