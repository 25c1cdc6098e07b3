"""The loopback server's settings, and their form as JSON for a server in another process."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypedDict

from tts_plugins.testing.loopback._faults import Faults, as_plan, plan_from_json, plan_to_json
from tts_plugins.testing.loopback._replies import Body, Replies, Reply, as_function, max_tokens_of
from tts_plugins.testing.loopback._wire import USAGES, error_body

Latency = float | tuple[float, float] | Callable[[int], float]


class Options(TypedDict, total=False):
    """What `LoopbackServer(...)` and `configure(...)` take; see `Settings` for the meanings."""

    reply: Replies
    latency: Latency
    per_token: float
    faults: Faults | None
    usage: bool | str
    honours_n: bool
    n_limit: int | None
    same_text_for_seed: bool
    indexing: Literal["seed", "arrival"]
    refuses_temperature: bool
    refuses_max_tokens: bool
    refuses: Sequence[str]
    assistant_turn: Literal["any", "prefix", "refused"]
    tokenizer: bool
    template: Literal["none", "text", "ids"]
    api_key: str | None
    models: Sequence[str]
    record: bool


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server behaves.

    reply: a text; a list, cycled by index; a function (body, index) -> text or `Reply`; or "echo" or "seeded".
    latency: seconds from arrival to the answer (a stream's first frame); a (low, high) range drawn by the request's
        number; or a function of that number.
    per_token: further seconds for each token of the longest choice; a stream is paced by it.
    faults: see `Fault`; a list or dict by request number, a function of it, or one fault for all.
    usage: True, False, or one of `USAGES`: how the true count is reported.
    honours_n: False gives one choice whatever n says. n_limit: a larger n is a 400, as with llama.cpp's slots.
    same_text_for_seed: all choices of a request that has a seed are identical.
    indexing: "seed": choice i of a request with seed s has index s + i, whenever it comes; without a seed, and for
        "arrival" always, choices are numbered as they come.
    refuses_temperature, refuses_max_tokens, refuses: parameters answered with a 400 in OpenAI's words.
    assistant_turn: whether a last turn of the assistant is accepted; "prefix": only one marked so; else it is a 400.
    tokenizer: POST /tokenize answers, in llama.cpp's and vLLM's form.
    template: "text": POST /apply-template renders messages, as llama.cpp does; "ids": POST /tokenize does, as vLLM
        does, and /v1/completions takes the ids as a prompt, which reply functions see as text.
    api_key: any other key is a 401.
    record: keep the requests (turn off for long benchmarks).
    """

    reply: Replies = "ok"
    latency: Latency = 0.0
    per_token: float = 0.0
    faults: Faults | None = None
    usage: bool | str = True
    honours_n: bool = True
    n_limit: int | None = None
    same_text_for_seed: bool = False
    indexing: Literal["seed", "arrival"] = "seed"
    refuses_temperature: bool = False
    refuses_max_tokens: bool = False
    refuses: Sequence[str] = ()
    assistant_turn: Literal["any", "prefix", "refused"] = "any"
    tokenizer: bool = False
    template: Literal["none", "text", "ids"] = "none"
    api_key: str | None = None
    models: Sequence[str] = ("loopback",)
    record: bool = True

    def __post_init__(self) -> None:
        as_function(self.reply)
        as_plan(self.faults)
        if not isinstance(self.usage, bool) and self.usage not in USAGES:
            raise ValueError(f"usage={self.usage!r}: use True, False or one of {', '.join(USAGES)}")
        if self.assistant_turn not in ("any", "prefix", "refused"):
            raise ValueError(f"assistant_turn={self.assistant_turn!r}: use 'any', 'prefix' or 'refused'")
        if self.template not in ("none", "text", "ids"):
            raise ValueError(f"template={self.template!r}: use 'none', 'text' or 'ids'")
        if self.indexing not in ("seed", "arrival"):
            raise ValueError(f"indexing={self.indexing!r}: use 'seed' or 'arrival'")
        if (isinstance(self.latency, (int, float)) and self.latency < 0) or self.per_token < 0:
            raise ValueError(f"latency={self.latency}, per_token={self.per_token}: seconds are not negative")

    @property
    def usage_variant(self) -> str:
        """The name of the way in which usage is reported."""
        if isinstance(self.usage, str):
            return self.usage
        return "correct" if self.usage else "missing"

    def latency_of(self, number: int) -> float:
        """Return the seconds that this request takes before its first byte."""
        if callable(self.latency):
            return self.latency(number)
        if isinstance(self.latency, tuple):
            return random.Random(number).uniform(*self.latency)
        return self.latency

    def to_json(self) -> dict[str, Any]:
        """Return all settings as JSON.

        Raises:
            TypeError: a function that another process could not import.
        """
        if callable(self.latency):
            raise TypeError("latency: a function cannot travel to another process; use a number or a (low, high) range")
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["refuses"], plain["models"] = list(self.refuses), list(self.models)
        return {**plain, "reply": _reply_to_json(self.reply), "faults": plan_to_json(self.faults)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """Return the inverse of `to_json`; any subset of the settings will do."""
        plain = dict(data)
        if "reply" in plain:
            plain["reply"] = _reply_from_json(plain["reply"])
        if plain.get("faults") is not None:
            plain["faults"] = plan_from_json(plain["faults"])
        if isinstance(plain.get("latency"), list):
            plain["latency"] = tuple(plain["latency"])
        return cls(**plain)


def _reply_to_json(reply: Replies) -> Any:
    if isinstance(reply, str):
        return reply
    if isinstance(reply, Sequence):
        return [each if isinstance(each, str) else asdict(each) for each in reply]
    module, name = getattr(reply, "__module__", None), getattr(reply, "__qualname__", "<")
    if module in (None, "__main__") or "<" in name:
        raise TypeError("reply: another process can import a module's function only, no lambda or closure")
    return {"function": f"{module}:{name}"}


def _reply_from_json(data: Any) -> Replies:
    if isinstance(data, dict):
        module, _, name = data["function"].partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found  # type: ignore[no-any-return]  # what the name refers to is the caller's
    if isinstance(data, list):
        return [each if isinstance(each, str) else Reply(**each) for each in data]
    return str(data)


def refusal(settings: Settings, body: Body, authorization: str) -> tuple[int, Body] | None:
    """Return the status and error with which a request is refused before anything is generated, or None."""
    if settings.api_key is not None and authorization != f"Bearer {settings.api_key}":
        return 401, error_body("Incorrect API key provided.", code="invalid_api_key")
    if not any(key in body for key in ("messages", "prompt", "input")):
        said = "Missing required parameter: 'messages'."
        return 400, error_body(said, param="messages", code="missing_required_parameter")
    if settings.refuses_temperature and body.get("temperature", 1) != 1:
        said = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
        said += " Only the default (1) value is supported."
        return 400, error_body(said, param="temperature", code="unsupported_value")
    refused = [*settings.refuses, *(["max_tokens"] if settings.refuses_max_tokens else [])]
    for name in refused:
        if body.get(name) is not None:
            fix = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            said = f"Unsupported parameter: '{name}' is not supported with this model.{fix}"
            return 400, error_body(said, param=name, code="unsupported_parameter")
    last = (body.get("messages") or [{}])[-1]
    if last.get("role") == "assistant" and not (
        settings.assistant_turn == "any" or (settings.assistant_turn == "prefix" and last.get("prefix"))
    ):
        said = "This model does not support assistant message prefill. The conversation must end with a user message."
        return 400, error_body(said, param="messages", code="invalid_value")
    n = body.get("n")
    if n is not None and (not isinstance(n, int) or n < 1):
        return 400, error_body(f"Invalid 'n': {n}.", param="n", code="integer_below_min_value")
    if n is not None and settings.n_limit is not None and n > settings.n_limit:
        return 400, error_body(f"Only up to {settings.n_limit} completion choices are allowed.", param="n")
    limit = max_tokens_of(body)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        return 400, error_body(f"Invalid 'max_tokens': {limit}.", param="max_tokens", code="integer_below_min_value")
    return None
