"""Every model call of a candidate, of whichever provider, on the account of its search.

One context variable, registered once with LangChain, holds the handler of the candidate that runs; LangChain adds it
to every callback manager that is made inside. It reserves when a call starts, and raises where there is no room, which
stops the call before anything is sent; it settles when the call ends.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.context import register_configure_hook

from tts_plugins.adapters import charge_of
from tts_plugins.errors import Charge
from tts_plugins.metering import Call, Meter
from tts_plugins_langchain._io.conversion import openai_messages
from tts_plugins_langchain._io.parts import LIMITS, limit_in
from tts_plugins_langchain._io.usage import UsageDetails, counts_of, from_cache, message_of, was_cut
from tts_plugins_langchain._io.values import said_in

METERED: ContextVar[MeterHandler | None] = ContextVar("tts_plugins_langchain_meter", default=None)
SCALED = "tts-plugins-scaled"
"""The `_llm_type` of a model that searches inside: its own run is not a call, those inside it are."""


class MeterHandler(Meter, BaseCallbackHandler):
    """A meter that is a LangChain handler, too.

    `raise_error`: what it raises stops the call. `run_inline`: it runs before other handlers, in the caller's context.

    Attributes:
        details: those of its search, which keeps what a provider tells beyond counts.
        sample: which candidate it is of, for a cache: outermost search first.
        around, config: the handler and the config that stand around it, while it is entered.
    """

    __slots__ = ("around", "config", "details", "sample")
    around: MeterHandler | None
    config: RunnableConfig | None
    details: UsageDetails
    sample: str
    raise_error = True
    run_inline = True

    # Chains, retrievers, agents and tools cost nothing by themselves. LangChain asks for each of their events.
    ignore_chain = ignore_retriever = ignore_agent = True

    def on_chat_model_start(
        self, serialized: dict[str, Any] | None, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """Hold what the call may cost.

        Raises:
            BudgetExhausted: there is no room; the call is not made.
        """
        params = kwargs.get("invocation_params") or {}
        if params.get("_type") == SCALED:
            return
        flat = [message for group in messages for message in group]
        sent = {key: params[key] for key in ("tools", "functions", "response_format") if params.get(key)}
        self._start(
            run_id, {"messages": openai_messages(flat), **sent}, params, kwargs.get("metadata") or {}, serialized
        )

    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """The same for a completion model."""
        params, metadata = kwargs.get("invocation_params") or {}, kwargs.get("metadata") or {}
        self._start(run_id, {"messages": prompts}, params, metadata, serialized)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Charge what it took."""
        choices = [(choice, message_of(choice)) for group in response.generations for choice in group]
        messages = [message for _, message in choices if message is not None]
        counts, cached = counts_of(response, messages), len(messages) == len(choices) and from_cache(messages)
        if not cached and self.knows(run_id):
            self.details.add(counts.usage)
        self.end(
            run_id,
            prompt_tokens=counts.prompt,
            completion_tokens=counts.completion,
            cached_tokens=counts.cached,
            texts=[choice.text if message is None else _said(message) for choice, message in choices],
            truncated=[
                was_cut(choice.generation_info, None if message is None else message.response_metadata)
                for choice, message in choices
            ],
            cached=cached,
        )

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Charge what it may have taken: a refusal costs a call and no tokens, anything else its reserve."""
        self.fail(run_id, _charge(error))

    def _start(
        self,
        run_id: UUID,
        prompt: dict[str, Any],
        params: Mapping[str, Any],
        metadata: Mapping[str, Any],
        serialized: Mapping[str, Any] | None,
    ) -> None:
        name = params.get("model") or params.get("model_name") or metadata.get("ls_model_name") or params.get("_type")
        choices = params.get("n")
        self.start(
            run_id,
            Call(
                model=str(name or "model"),
                prompt=prompt,
                choices=choices if isinstance(choices, int) and choices > 0 else 1,
                max_tokens=(
                    limit_in(params)
                    or limit_in({"max_tokens": metadata.get("ls_max_tokens")})
                    or _own_limit(serialized or {})
                ),
            ),
        )


register_configure_hook(METERED, inheritable=True)


def sample_here() -> str:
    """Return which candidate this runs for, outermost search first; empty outside of any."""
    handler = METERED.get()
    return "" if handler is None else handler.sample


def _is_news(record: logging.LogRecord) -> bool:
    # LangChain logs whatever a handler raises. A refusal is not an error of the handler, and is raised anyway.
    args = record.args
    starts = [("MeterHandler", "on_chat_model_start"), ("MeterHandler", "on_llm_start")]
    return not (isinstance(args, tuple) and args[:2] in starts)


logging.getLogger("langchain_core.callbacks.manager").addFilter(_is_news)


def _own_limit(serialized: Mapping[str, Any]) -> int | None:
    """The limit that a model was made with, where the call does not repeat it, as ChatOllama's does not."""
    if (found := limit_in(serialized.get("kwargs") or {})) is not None:
        return found
    shown = str(serialized.get("repr") or "")
    values = [match[1] for name in LIMITS if (match := re.search(rf"\b{name}=(\d{{1,9}})\b", shown))]
    return limit_in({"max_tokens": int(values[0])}) if values else None


def _said(message: AIMessage) -> str:
    calls = "".join(f"{call['name']}{json.dumps(call['args'], default=str)}" for call in message.tool_calls)
    return f"{said_in(message)}{message.additional_kwargs.get('reasoning_content') or ''}{calls}"


def _charge(error: BaseException) -> Charge:
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return charge_of(error, status)
