"""Single steps from a LangChain chat model: the core writes the prompts, and the wrapped model answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, convert_to_messages

from tts_plugins import Candidate, Generation, Problem
from tts_plugins.adapters import CandidateLost, MeteredModel, Stepping, search_here
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, RequestRefused
from tts_plugins.models import StepSettings
from tts_plugins.types import Reply
from tts_plugins_langchain._search import Search

_SENT = ("stop", "temperature", "extra_body")
_IMPOSSIBLE = {
    "prefix": "marks a message, and LangChain's have no such mark",
    "completions": "asks for a text to be completed, and a chat model takes messages",
}
_NO_TOOLS = "leave them out, or use BestOfN or Revision"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a chat model is called with."""

    messages: Sequence[BaseMessage]
    arguments: Mapping[str, Any] = field(default_factory=dict)


class ChatModel(Stepping, MeteredModel):
    """A chat model as the engine sees it: whole answers, revisions, and single steps.

    It asks for a step by continuing the assistant's turn if the server can do that, which it finds out once; otherwise
    it asks in words. LangChain's messages cannot mark a prefix, so that way is not tried.
    """

    _ways = ("plain", "vllm")

    def __init__(self, model: BaseChatModel, concurrency: int | None, steps: StepSettings | None) -> None:
        MeteredModel.__init__(self, model.get_name(), concurrency)
        if steps is not None and steps.way in _IMPOSSIBLE:
            raise ConfigurationError(
                f"ScaledChatModel: steps=StepSettings(way={steps.way!r}) {_IMPOSSIBLE[steps.way]}; use way='plain', "
                "'prompt' or 'auto'"
            )
        self._openai = hasattr(model, "openai_api_base")
        self.max_tokens = getattr(model, "max_tokens", None)
        address = getattr(model, "openai_api_base", None) if self._openai else type(model).__name__
        self._begin_stepping(steps or StepSettings(), address)

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound | None:
        """Return None: the calls are metered.

        Raises:
            ConfigurationError: the request has tools or a schema, which single steps cannot keep to.
        """
        arguments = _asked().arguments
        if found := sorted(key for key in ("tools", "functions", "response_format") if arguments.get(key)):
            raise ConfigurationError(
                f"{self.name}: a search over steps writes text, and {found[0]} is set; {_NO_TOOLS}"
            )
        return await super().step_bound(candidate, ahead)

    async def _bounded(self, *args: Any) -> Bound | None:
        return None

    def _stops_of_request(self) -> list[str]:
        return list(_asked().arguments.get("stop") or ())

    def _prompt_of(self, messages: Sequence[Mapping[str, Any]], problem: Problem) -> dict[str, Any]:
        """Return the messages in OpenAI's form, and as the caller's own objects, which hold more."""
        count = len(problem.messages)
        own = list(_asked().messages) if "input" in problem.metadata else convert_to_messages(problem.messages)
        return {"messages": list(messages), "own": [*own, *convert_to_messages([dict(m) for m in messages[count:]])]}

    def _step_prompt(self, candidate: Candidate, *, greedy: bool) -> tuple[dict[str, Any], Sequence[str] | None]:
        prompt, earlier = super()._step_prompt(candidate, greedy=greedy)
        return {**prompt, "parent": candidate.seed}, earlier

    async def _ask(
        self,
        prompt: dict[str, Any],
        seeds: Sequence[int | None],
        *,
        max_tokens: int | None = None,
        shape: Callable[[Any, Generation], Generation] | None = None,
        adapt: Callable[[Exception], bool] = lambda error: False,
    ) -> Reply:
        """Call the wrapped model once, as a run of its own.

        Raises:
            RequestRefused: the server does not accept such a prompt.
        """
        search, asked = cast(Search, search_here()), _asked()
        while True:
            sent = {key: prompt[key] for key in _SENT if key in prompt}
            if max_tokens is not None and self._openai:
                sent["max_tokens"] = max_tokens
            call = Asked(messages=prompt["own"], arguments={**asked.arguments, **sent})
            try:
                parents = [prompt["parent"]] if "parent" in prompt else []
                reply = await search.ask(seeds[0], partial(_same, call), parents)
                break
            except CandidateLost as error:
                cause = error.__cause__
                if isinstance(cause, Exception) and adapt(cause):
                    continue
                if getattr(cause, "status_code", None) in (400, 422):
                    raise RequestRefused(str(error)) from cause
                raise
        if shape is None:
            return reply
        return replace(reply, generations=tuple(shape(None, generation) for generation in reply.generations))


def _same(call: Asked) -> Asked:
    return call


def _asked() -> Asked:
    """Return the input of the search that this runs in."""
    return cast(Asked, cast(Search, search_here()).input)
