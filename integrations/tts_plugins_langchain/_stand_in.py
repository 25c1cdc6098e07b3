"""A chat model that stands for another one: it has the other's name, limits, tools and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.tools import BaseTool
from pydantic import Field

from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._io.parts import output_tokens_of


class StandIn(BaseChatModel):
    """What a chat model around another one has in common with it."""

    bound: BaseChatModel
    """The model that is asked; `model` is its name, as it is for other chat models."""
    sent: dict[str, Any] = Field(default_factory=dict)
    """Arguments sent with every call: `temperature`, `max_tokens` and `stop` may be given by their own names."""

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The same tools, in the words of the model inside.

        Raises:
            NotImplementedError: that model has no tools.
            ConfigurationError: it gives something that is not a chat model, with or without arguments bound.
        """
        bound = self.bound.bind_tools(tools, **kwargs, **({} if tool_choice is None else {"tool_choice": tool_choice}))
        if isinstance(bound, BaseChatModel):
            return cast(Runnable[LanguageModelInput, AIMessage], self._around(bound))
        if not isinstance(bound, RunnableBinding) or not isinstance(bound.bound, BaseChatModel):
            raise ConfigurationError(
                f"{type(self).__name__}: bind_tools of {type(self.bound).__name__} gave a {type(bound).__name__} that "
                "cannot be searched from here; bind the tools first and wrap the result with scale(...)"
            )
        around = self._around(bound.bound)
        return cast(Runnable[LanguageModelInput, AIMessage], bound.model_copy(update={"bound": around}))

    def _around(self, model: BaseChatModel) -> Self:
        """The same search over what `bind_tools` made of the model: itself, or a copy with tools in it."""
        return self if model is self.bound else self.model_copy(update={"bound": model})

    @property
    def model(self) -> str | None:
        """The name of the model that is asked, as other chat models have it."""
        names = (getattr(self.bound, name, None) for name in ("model_name", "model", "model_id"))
        return next((name for name in names if isinstance(name, str) and name), None)

    @property
    def model_name(self) -> str | None:
        """The same, by another name that chat models give it."""
        return self.model

    @property
    def temperature(self) -> Any:
        """What is sent: this object's own, else that of the model that is asked."""
        return self.sent.get("temperature", getattr(self.bound, "temperature", None))

    @property
    def max_tokens(self) -> int | None:
        """What is sent: this object's own, else that of the model that is asked."""
        return output_tokens_of(self.bound, self.sent)

    def get_token_ids(self, text: str) -> list[int]:
        """Those of the model that is asked."""
        return self.bound.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """As the model that is asked counts them."""
        return self.bound.get_num_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """As the model that is asked counts them."""
        return self.bound.get_num_tokens_from_messages(messages, tools)

    def _resolve_model_profile(self) -> Any:
        return self.bound.profile

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        sent = {**self.sent, **kwargs}
        return self.bound._get_ls_params(stop=stop or sent.pop("stop", None), **sent)


def not_a_model(found: Any) -> str:
    """Why it is refused, by its kind: a chain's whole repr would hide what to do."""
    said = f"ScaledChatModel: model is a {type(found).__name__}, which is not a chat model; "
    if isinstance(found, RunnableBinding) and isinstance(found.bound, BaseChatModel):
        return said + "wrap the model, and bind on the ScaledChatModel: ScaledChatModel(model).bind(...)"
    if isinstance(found, Runnable):
        return said + "wrap a chain by scale(chain), or the chat model inside it"
    return said + "pass ChatOpenAI(...) or such"
