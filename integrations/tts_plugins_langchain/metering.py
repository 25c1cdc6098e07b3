"""Every model call of a candidate, of whichever provider, on the account of its search.

One context variable, registered once with LangChain, holds the handler of the candidate that runs; LangChain adds it
to every callback manager that is made inside. It reserves when a call starts, and raises where there is no room, which
stops the call before anything is sent; it settles when the call ends.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.tracers.context import register_configure_hook

from tts_plugins.adapters import charge_of
from tts_plugins.errors import Charge
from tts_plugins.metering import Call, Meter

METERED: ContextVar[MeterHandler | None] = ContextVar("tts_plugins_langchain_meter", default=None)
SCALED = "tts-plugins-scaled"
"""The `_llm_type` of a model that searches inside: its own run is no call, those inside it are."""

_LIMITS = (
    "max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens", "num_predict", "max_tokens_to_sample",
)  # fmt: skip
_NESTED = ("model_kwargs", "options", "generation_config", "extra_body", "inference_config", "pipeline_kwargs")


class MeterHandler(BaseCallbackHandler):
    """A meter as a LangChain handler; it belongs to one candidate or verification.

    `raise_error`: what it raises stops the call. `run_inline`: it runs before other handlers, in the caller's context.
    """

    raise_error = True
    run_inline = True

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    @property
    def ignore_chain(self) -> bool:
        """Chains cost nothing by themselves."""
        return True

    @property
    def ignore_retriever(self) -> bool:
        """Nor do retrievers."""
        return True

    @property
    def ignore_agent(self) -> bool:
        """Nor do agents and tools."""
        return True

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
        self._start(run_id, {"messages": _plain(flat), **sent}, params, kwargs.get("metadata") or {})

    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: list[str], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """The same for a completion model."""
        self._start(run_id, {"messages": prompts}, kwargs.get("invocation_params") or {}, kwargs.get("metadata") or {})

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Charge what it took."""
        choices = [choice for group in response.generations for choice in group]
        prompt, completion = _counts(response, choices)
        self.meter.end(
            run_id,
            prompt_tokens=prompt,
            completion_tokens=completion,
            texts=[_said(choice) for choice in choices],
            truncated=[_cut(choice) for choice in choices],
            cached=bool(choices) and all(_from_cache(choice) for choice in choices),
        )

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Charge what it may have taken: a refusal costs a call and no tokens, anything else its reserve."""
        self.meter.fail(run_id, _charge(error))

    def _start(
        self, run_id: UUID, prompt: dict[str, Any], params: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        name = params.get("model") or params.get("model_name") or metadata.get("ls_model_name") or params.get("_type")
        choices = params.get("n")
        self.meter.start(
            run_id,
            Call(
                model=str(name or "model"),
                prompt=prompt,
                choices=choices if isinstance(choices, int) and choices > 0 else 1,
                max_tokens=_limit(params) or _number(metadata.get("ls_max_tokens")),
            ),
        )


register_configure_hook(METERED, inheritable=True)


def _is_news(record: logging.LogRecord) -> bool:
    # LangChain logs whatever a handler raises. A refusal is no error of the handler, and is raised anyway.
    args = record.args
    starts = [("MeterHandler", "on_chat_model_start"), ("MeterHandler", "on_llm_start")]
    return not (isinstance(args, tuple) and args[:2] in starts)


logging.getLogger("langchain_core.callbacks.manager").addFilter(_is_news)


def _plain(messages: Sequence[BaseMessage]) -> list[Any]:
    try:
        return cast(list[Any], convert_to_openai_messages(list(messages)))
    except (ValueError, KeyError, TypeError):  # content that OpenAI's form has no word for: its own will do
        return [message.model_dump() for message in messages]


def _limit(params: Mapping[str, Any]) -> int | None:
    for name in _LIMITS:
        if (found := _number(params.get(name))) is not None:
            return found
    for name in _NESTED:
        inner = params.get(name)
        if isinstance(inner, Mapping) and (found := _limit(inner)) is not None:
            return found
    return None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _counts(response: LLMResult, choices: Sequence[Generation]) -> tuple[int | None, int | None]:
    """Prompt and completion tokens of the request; each choice repeats them all, so their maximum and not their sum."""
    output: Mapping[str, Any] = response.llm_output or {}
    reported = output.get("token_usage") or output.get("usage")
    if isinstance(reported, Mapping):
        reported = cast(Mapping[str, Any], reported)
        prompt = reported.get("prompt_tokens", reported.get("input_tokens"))
        completion = reported.get("completion_tokens", reported.get("output_tokens"))
        if prompt is not None and completion is not None:
            return prompt, completion
    usages = [m.usage_metadata for m in map(_message, choices) if m is not None and m.usage_metadata]
    prompts = [u["input_tokens"] for u in usages if "input_tokens" in u]
    completions = [u["output_tokens"] for u in usages if "output_tokens" in u]
    return max(prompts, default=None), max(completions, default=None)


def _message(choice: Generation) -> AIMessage | None:
    message = choice.message if isinstance(choice, ChatGeneration) else None
    return message if isinstance(message, AIMessage) else None


def _said(choice: Generation) -> str:
    message = _message(choice)
    if message is None:
        return choice.text
    calls = "".join(f"{call['name']}{json.dumps(call['args'], default=str)}" for call in message.tool_calls)
    return f"{message.text}{message.additional_kwargs.get('reasoning_content') or ''}{calls}"


def _cut(choice: Generation) -> bool:
    message = _message(choice)
    told = {**(choice.generation_info or {}), **(message.response_metadata if message is not None else {})}
    return (told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason")) in ("length", "max_tokens")


def _from_cache(choice: Generation) -> bool:
    message = _message(choice)
    # LangChain's only mark of a cache hit; a real call has no total_cost.
    return message is not None and cast(Mapping[str, Any], message.usage_metadata or {}).get("total_cost") == 0


def _charge(error: BaseException) -> Charge:
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return charge_of(error, status)
