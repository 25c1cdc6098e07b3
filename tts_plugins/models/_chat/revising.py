"""Revision by a chat model: earlier attempts as turns of the conversation, the verifier's word as the user's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tts_plugins.budget import Bound
from tts_plugins.prompts import Turns, merge_turns, revision_turns
from tts_plugins.types import Problem, Reply, Scored


class Revising:
    """Gives a chat model `revise`. It builds on `_prompt_of`, `_bounded` and `_ask` of `OpenAICompatibleModel`."""

    max_tokens: int | None
    _turns: Turns | None
    _prompt_of: Callable[[Sequence[Mapping[str, Any]], Problem], dict[str, Any]]
    _bounded: Callable[..., Awaitable[Bound]]
    _ask: Callable[..., Any]

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Bound | None:
        """Return the prompt's tokens at most, `max_tokens`, and their price if one is known."""
        return await self._bounded(self._revision(problem, history, merge), self.max_tokens)

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        """Ask for as many better answers as there are seeds, in one request."""
        reply: Reply = await self._ask(self._revision(problem, history, merge), seeds)
        return reply

    def _revision(self, problem: Problem, history: Sequence[Scored], merge: bool) -> dict[str, Any]:
        turns = merge_turns if merge else self._turns or revision_turns
        return self._prompt_of(turns(problem, history), problem)
