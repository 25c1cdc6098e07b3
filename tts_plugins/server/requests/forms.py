"""Results as OpenAI's completions and chunks, as JSON has them. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tts_plugins._internal.values import field
from tts_plugins.types import Abstained, Candidate, Result, Scored, Usage

Origin = Callable[[Any], tuple[Any, Any] | None]
Json = dict[str, Any]


def plain(value: Any) -> Any:
    """Return an object of OpenAI's client, or one read from a stream, as JSON."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain(vars(value)) if hasattr(value, "__dict__") else value


def completion_of(name: str, model: str, choices: Sequence[Json], usage: Usage, tts: Json, base: Json) -> Json:
    """Return a whole completion; `base` holds what the upstream said besides, such as its fingerprint."""
    return {
        "id": name, "object": "chat.completion", "created": int(time.time()), "model": model, **base,
        "choices": list(choices), "usage": usage_of(usage), "tts": tts,
    }  # fmt: skip


def choice_of(candidate: Candidate, index: int, origin: Origin) -> Json:
    """Return the choice that a candidate came in, or make one if a strategy put it together from several calls."""
    found = origin(candidate.output)
    if found is not None:
        made = plain(found[1])
        made.pop("said_text", None)  # our own note of what a stream held
        message = {"role": "assistant", "content": None, **made.get("message", {})}
        finish = made.get("finish_reason") or ("length" if candidate.truncated else "stop")
        calls = any(message.get(name) for name in ("tool_calls", "function_call", "refusal"))
        if not calls and candidate.text != message["content"]:
            # It was written in steps, and this is the last one's message.
            message["content"], made["logprobs"] = str(candidate.text), None
            finish = "length" if candidate.truncated else "stop"
        return {**made, "index": index, "message": message, "finish_reason": finish, "logprobs": made.get("logprobs")}
    finish = "length" if candidate.truncated else "stop"
    message = {"role": "assistant", "content": str(candidate.text)}
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}


def withheld(abstained: Abstained) -> Json:
    """Return the choice of a search that gives no answer: it refuses, as a model's message does."""
    message = {"role": "assistant", "content": None, "refusal": f"No answer: {abstained.reason}."}
    return {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}


def usage_of(usage: Usage) -> Json:
    """Return the tokens of a whole search, verification included."""
    out: Json = {
        "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.tokens,
    }  # fmt: skip
    if usage.cached_tokens:
        out["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return out


def tts_of(result: Result, best: Scored, profile: str | None) -> Json:
    """Return what became of the search."""
    return {
        "profile": profile,
        "score": best.score,
        "confidence": rounded(result.confidence),
        "agreement": rounded(result.agreement),
        **({"escalated": True} if result.escalated else {}),
        **({"abstained": result.abstained.to_dict()} if result.abstained is not None else {}),
        "candidates": len(result.candidates),
        "stopped": result.stopped,
        "calls": result.usage.calls,
        "usd": result.usage.usd,
        "exact": result.usage.exact,
        "seconds": round(result.usage.seconds, 4),
        "seed": result.seed,
        **({"warnings": list(result.warnings)} if result.warnings else {}),
    }


def rounded(value: float | None) -> float | None:
    """Return a share to four digits, or None if there is none."""
    return None if value is None else round(value, 4)


def base_of(origin: Origin, best: Candidate) -> Json:
    """Return what the upstream said beside the choices."""
    found = origin(best.output)
    said = {} if found is None else {key: field(found[0], key) for key in ("service_tier", "system_fingerprint")}
    return {key: value for key, value in said.items() if value is not None}
