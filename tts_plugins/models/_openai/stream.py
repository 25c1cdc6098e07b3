"""A streamed completion, gathered into what the same request would have brought in one piece."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._http.sse import DONE
from tts_plugins._internal.error_bodies import error_in
from tts_plugins._internal.http_limits import Unreadable
from tts_plugins._internal.token_usage import count_of
from tts_plugins._internal.values import field as read
from tts_plugins._internal.values import fields_of, is_whole, listed
from tts_plugins.models._openai.choices import finish_of, shown

_LABELS = {"role", "type", "id", "format", "signature", "object", "name"}  # sent once, or again whole
_UNSAID = object()


class ErrorInReply(Exception):
    """An answer with status 200 holds an error.

    Attributes:
        body: the error, as the server wrote it.
    """

    def __init__(self, body: object) -> None:
        super().__init__("the answer is an error")
        self.body = body


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """What came, in the form of a chat completion.

    Attributes:
        choices: those that ended.
        unfinished: those that did not, or cannot be distinguished; their tokens were generated all the same.
        several: whether the server can be asked for several choices in one stream.
    """

    choices: list[Any]
    unfinished: list[Any] = field(default_factory=list)
    usage: Any = None
    several: bool = True


async def gather(chunks: AsyncIterator[Any], asked: int = 1) -> Streamed:
    """Return the choices with their messages, and the usage.

    Answers that come under one number are never put together if several were requested: nobody can tell where
    one of them ends, if they come in turns.

    Args:
        chunks: decoded JSON or the client's objects; `DONE` when the server says that it is the end.
        asked: choices that the request asked for.

    Raises:
        Unreadable: the stream was cut before any choice ended.
        ErrorInReply: one of its events is an error.
    """
    choices: dict[int, _Choice] = {}
    usages: list[_Reported] = []
    done = False
    async for chunk in chunks:
        if isinstance(chunk, str):
            done = done or chunk == DONE
            continue
        if not done and isinstance(chunk, Mapping) and (error := error_in(chunk)) is not None:
            raise ErrorInReply(error)
        for part in [] if done else listed(read(chunk, "choices")):
            choices.setdefault(count_of(read(part, "index"), 0) or 0, _Choice()).add(part)
        usage = read(chunk, "usage")
        if usage is None:
            usage = read(read(chunk, "x_groq"), "usage")  # where Groq has it, unless it is asked for
        if usage is not None:
            ended, generated = sum(c.ends > 0 for c in choices.values()), read(read(chunk, "timings"), "predicted_n")
            usages.append(_Reported(usage, ended, generated))
    return _whole([choices[i] for i in sorted(choices)], usages, asked, done or bool(usages))


def _whole(choices: list[_Choice], usages: list[_Reported], asked: int, complete: bool) -> Streamed:
    if asked == 1 and complete:
        for choice in choices:
            choice.finish_reason = choice.finish_reason or "stop"  # the stream is whole, and nobody said why it ended
    good = [c for c in choices if c.finish_reason is not None and (asked == 1 or not c.mixed)]
    bad = [c for c in choices if c not in good]
    if bad and (asked == 1 or not (good or complete or any(c.mixed for c in bad))):
        raise Unreadable("the stream ended before its choices did; the connection may have been cut")
    made = [c.whole(i) for i, c in enumerate(choices)]
    return Streamed(
        choices=[m for m, c in zip(made, choices, strict=True) if c in good],
        unfinished=[m for m, c in zip(made, choices, strict=True) if c not in good],
        usage=usage_of(usages, made),
        several=not bad,
    )


@dataclass(frozen=True)
class _Reported:
    """A usage in a stream, the choices that had ended by then, and what llama.cpp says one of them generated."""

    usage: Any
    ended: int
    generated: Any


class _Choice:
    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.ends = 0
        self._stop_reason: Any = _UNSAID
        self._error: Any = None
        self._message: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[Any] = []
        self._roles = self._plain = 0
        self._after_end = self._said_text = False

    @property
    def mixed(self) -> bool:
        """Whether more than one answer came under this number."""
        return self.ends > 1 or self._after_end or (self._roles > 1 and self._plain > 0)

    def add(self, part: Any) -> None:
        given, message = fields_of(read(part, "delta")), fields_of(read(part, "message"))
        if not given and (message.get("content") or message.get("tool_calls")):
            self._message, self._calls, given = {}, [], message  # no piece, but all that was said so far
        self._said_text = self._said_text or isinstance(given.get("content"), str)
        delta = {name: value for name, value in given.items() if value not in (None, "", [])}
        if set(delta) - {"role"}:
            self._after_end = self._after_end or self.ends > 0
            self._plain += "role" not in delta
        self._roles += "role" in delta
        for call in listed(delta.pop("tool_calls", None)):
            self._add_call(fields_of(call))
        _merge(self._message, delta)
        self._logprobs += listed(read(read(part, "logprobs"), "content"))
        self._error = read(part, "error") or self._error
        if reason := read(part, "finish_reason"):
            self.finish_reason, self.ends = reason if isinstance(reason, str) else "stop", self.ends + 1
            said = fields_of(part)
            if "stop_reason" in said:  # vLLM's: which stop string it was, None for none
                self._stop_reason = said["stop_reason"]

    def _add_call(self, call: Mapping[str, Any]) -> None:
        # Arguments come in pieces; the id and the name in the first of them only.
        index, id_ = call.get("index"), call.get("id")
        same = [made for made in self._calls if made["index"] == index] if index is not None else self._calls
        if not same or _is_another(same[-1], id_, read(call.get("function"), "name")):
            same = [{"index": index}]
            self._calls += same
        _merge(same[-1], {key: value for key, value in call.items() if key != "index" and value is not None})

    def whole(self, index: int) -> dict[str, Any]:
        message = {"role": "assistant", **self._message}
        if self._calls:
            order = sorted(self._calls, key=lambda c: c["index"] if isinstance(c["index"], int) else 0)
            message["tool_calls"] = [_call(call) for call in order]
        message.setdefault("content", None if self._calls or "function_call" in message else "")
        return {
            "index": index,
            "finish_reason": self.finish_reason,
            **({} if self._stop_reason is _UNSAID else {"stop_reason": self._stop_reason}),
            **({"error": self._error} if self._error else {}),
            "message": message,
            "said_text": self._said_text,
            "logprobs": {"content": self._logprobs} if self._logprobs else None,
        }


def _is_another(call: Mapping[str, Any], id_: Any, name: Any) -> bool:
    """Return whether a piece begins another call, though servers give parallel calls one index, or none."""
    if id_ and call.get("id"):
        return bool(id_ != call["id"])
    if id_ or not name:
        return False
    said = read(call.get("function"), "arguments")
    try:
        return isinstance(said, str) and isinstance(json.loads(said), dict)
    except ValueError:
        return False


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    made = {"id": "", "type": "function", **{key: value for key, value in call.items() if key != "index"}}
    if made["type"] == "function":
        made["function"] = {"name": "", "arguments": "", **fields_of(made.get("function"))}
    return made


def _merge(into: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Lay a piece over what came before: texts grow, lists too, and labels stay."""
    for name, value in delta.items():
        before = into.get(name)
        if before is None:
            into[name] = dict(fields_of(value)) if _is_object(value) else list(value) if _is_list(value) else value
        elif isinstance(value, str) and isinstance(before, str):
            into[name] = before if name in _LABELS else before + value
        elif _is_list(value) or _is_list(before):
            into[name] = [*_as_parts(before), *_as_parts(value)]
        elif _is_object(value) and isinstance(before, dict):
            _merge(before, {key: each for key, each in fields_of(value).items() if each is not None})
        elif value is not None:
            into[name] = value


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, str | list | bool | int | float)


def _as_parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [{"type": "text", "text": value}]


def usage_of(usages: list[_Reported], choices: list[Any]) -> Any:
    """Return the usage of the whole stream, from those sent in it.

    llama.cpp reports one for each choice as that ends, and its timings say so; these are summed. Others repeat one that
    grows. Where the two cannot be distinguished, the sum is marked as an upper bound.
    """
    if not usages:
        return None
    each = len(choices) > 1 and [report.ended for report in usages] == list(range(1, len(choices) + 1))
    reported = [report.usage for report in usages]
    counts = [read(usage, "completion_tokens") for usage in reported]
    if not all(map(is_whole, counts)):
        return None if each else reported[-1]
    certain = each and counts == [report.generated for report in usages]
    longest = max(len(shown(choice).encode("utf-8", "replace")) + 2 for choice in choices) if choices else 0
    cut = all(finish_of(choice) == "length" for choice in choices)
    if not certain and (not each or max(counts) > longest or (len(set(counts)) == 1 and not cut)):
        return reported[max(range(len(counts)), key=lambda i: (counts[i], i))]
    # The prompt is computed for one of them, and then copied; only that one says what was not cached.
    first = min(reported, key=_cached)
    return {
        "prompt_tokens": read(first, "prompt_tokens"),
        "completion_tokens": sum(counts),
        "every_choice": True,
        "upper_bound": not certain and counts == sorted(counts),  # a count that grows cannot shrink
        "prompt_tokens_details": read(first, "prompt_tokens_details"),
    }


def _cached(usage: Any) -> int:
    cached = read(read(usage, "prompt_tokens_details"), "cached_tokens")
    return cached if isinstance(cached, int) else 0
