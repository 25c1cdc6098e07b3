"""What the loopback server says: from a request's body to the choices it truly generated and charges for. Pure."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Body = dict[str, Any]
_WORD = re.compile(r"\s*\S+")
_WORDS = ("so", "then", "we", "add", "carry", "the", "one", "and", "take", "half", "of", "it", "which", "gives", "six")


@dataclass(frozen=True)
class Reply:
    """One choice, in as much detail as a test wants to say.

    Counts that are None are counted by the server's tokeniser (words). `latency` (seconds) replaces the server's for
    this choice; a request waits for its slowest choice. `tool_calls` are {"name", "arguments"} or in OpenAI's form.
    `logprobs` are one float a token, from the first on; tokens past its end get made-up ones. `echo` is sent before
    the text, neither counted nor cut, as llama.cpp does with a turn that it continues. With `tells_stop` the choice has
    vLLM's `stop_reason`: the stop string that ended it, or null.
    """

    text: str | None
    finish_reason: str = "stop"
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    latency: float | None = None
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    logprobs: Sequence[float] | None = None
    reasoning: str | None = None
    echo: str = ""
    tells_stop: bool = False
    stop_reason: str | None = None


ReplyFunction = Callable[[Body, int], str | Reply]
Replies = str | Sequence[str | Reply] | ReplyFunction


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a request truly led to, before any false report of it."""

    replies: tuple[Reply, ...]
    completion_tokens: tuple[int, ...]
    prompt_tokens: int

    def keep(self, count: int) -> Outcome:
        """Return the first `count` choices only."""
        return replace(self, replies=self.replies[:count], completion_tokens=self.completion_tokens[:count])


def pieces(text: str | None) -> list[str]:
    """Return the server's tokens: words, each with the space before it; joined, they are the text again."""
    found = _WORD.findall(text or "")
    if found:
        found[-1] += (text or "")[sum(map(len, found)) :]
    return found


def count_tokens(text: str | None) -> int:
    """Return the number of words."""
    return len((text or "").split())


def content_text(content: Any) -> str:
    """Return a message's content as text, whether it is a string, null or a list of parts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def prompts_of(body: Body) -> list[str]:
    """Return the prompts of a chat or completion request, as text: one, or several for a list of prompts."""
    if "messages" in body:
        return [" ".join(content_text(message.get("content")) for message in body["messages"])]
    prompt = body.get("prompt", "")
    return [str(each) for each in prompt] if isinstance(prompt, list) else [str(prompt)]


def max_tokens_of(body: Body) -> int | None:
    """Return the limit on completion tokens, under either of its names."""
    limit = body.get("max_completion_tokens")
    return limit if limit is not None else body.get("max_tokens")


def echo(body: Body, index: int) -> str:
    """Repeat the last message, or the prompt."""
    messages = body.get("messages")
    return content_text(messages[-1].get("content")) if messages else prompts_of(body)[0]


def seeded(body: Body, index: int) -> str:
    """Return a text that follows from the index and prompt, as does its length (1 to max_tokens, by default 64)."""
    digest = hashlib.blake2b(f"{index}|{prompts_of(body)[0]}".encode(), digest_size=8).digest()
    chance = random.Random(int.from_bytes(digest, "big"))
    length = chance.randint(1, max(1, max_tokens_of(body) or 64))
    # the first word makes texts of different seeds differ even at a length of 1
    return " ".join([digest.hex(), *chance.choices(_WORDS, k=length - 1)])


NAMED: Mapping[str, ReplyFunction] = {"echo": echo, "seeded": seeded}


def as_function(replies: Replies) -> ReplyFunction:
    """Return any form of a reply as a function; "echo" and "seeded" name the built-in ones."""
    if isinstance(replies, str):
        text = replies
        return NAMED.get(text) or (lambda body, index: text)
    if isinstance(replies, Sequence):
        if not replies:
            raise ValueError("reply=[]: give at least one text")
        listed = list(replies)
        return lambda body, index: listed[index % len(listed)]
    return replies


def finish(reply: Reply, body: Body) -> Reply:
    """Return the reply as far as `stop` and the token limit allow; reasoning is spent first, as on real servers."""
    stop = body.get("stop")
    text = reply.text
    if text is not None and stop:
        found = [
            (text.find(mark), mark) for mark in ([stop] if isinstance(stop, str) else stop) if mark and mark in text
        ]
        if found:
            end, mark = min(found)
            text, reply = text[:end], replace(reply, finish_reason="stop", stop_reason=mark)
    limit = max_tokens_of(body)
    if limit is None:
        return replace(reply, text=text)
    thought, words = pieces(reply.reasoning), pieces(text)
    if len(thought) + len(words) <= limit:
        return replace(reply, text=text)
    room = limit - len(thought)
    return replace(
        reply,
        reasoning="".join(thought[:limit]) if reply.reasoning is not None else None,
        text="".join(words[:room]) if room > 0 else ("" if reply.reasoning is None else None),
        finish_reason="length",
        # a figure that the test gave cannot exceed the limit that the server just enforced
        completion_tokens=None if reply.completion_tokens is None else min(reply.completion_tokens, limit),
    )


def generate(speak: ReplyFunction, body: Body, indices: Sequence[int]) -> Outcome:
    """Generate one reply per index, finished and counted."""
    spoken = (speak(body, index) for index in indices)
    replies = tuple(finish(Reply(each) if isinstance(each, str) else each, body) for each in spoken)
    counted = tuple(
        count_tokens(each.text) + count_tokens(each.reasoning) + sum(map(_tool_tokens, each.tool_calls or ()))
        if each.completion_tokens is None
        else each.completion_tokens
        for each in replies
    )
    said = [each.prompt_tokens for each in replies if each.prompt_tokens is not None]
    prompt = said[0] if said else sum(map(count_tokens, prompts_of(body)))
    return Outcome(replies=replies, completion_tokens=counted, prompt_tokens=prompt)


def _tool_tokens(call: Mapping[str, Any]) -> int:
    return count_tokens(str(call.get("function", call)))
