"""The fields of a chat request: each is forwarded, used, or refused by name. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._internal.values import is_number, is_whole
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Strategy
from tts_plugins.server.errors import APIError, bad_field
from tts_plugins.server.settings import ServerSettings
from tts_plugins.stopping import BetaConfident, Threshold, Unanimous, VoteDecided, VoteLead
from tts_plugins.strategies import (
    DVTS,
    BaseStrategy,
    BeamSearch,
    BestOfN,
    ParticleFilter,
    RecursiveAggregation,
    Revision,
    SelfConsistency,
    TreeSearch,
)

# Parameters of OpenAI's method: sent as they are. All others go into the body beside them.
FORWARDED = frozenset({
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "metadata", "modalities",
    "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format",
    "safety_identifier", "service_tier", "stop", "store", "tool_choice", "tools", "top_logprobs", "top_p", "user",
    "verbosity", "web_search_options",
})  # fmt: skip
USED = frozenset({
    "max_completion_tokens", "max_tokens", "messages", "model", "n", "seed", "stream", "stream_options", "temperature",
    "tts",
})  # fmt: skip
# What would choose the upstream, its key, its price, or another cost than the one that is reserved.
REFUSED = {
    **dict.fromkeys(
        ("api_base", "api_key", "api_type", "api_version", "base_url", "custom_llm_provider", "deployment_id",
         "fallbacks", "headers", "model_list", "user_config"), "the server's operator chooses the upstream",
    ),
    **dict.fromkeys(
        ("extra_body", "extra_headers", "extra_query", "timeout"), "it is a client's option; put fields into the body",
    ),
    **dict.fromkeys(("input_cost_per_token", "output_cost_per_token", "price"), "the server's operator sets prices"),
    **dict.fromkeys(("best_of", "n_cmpl", "use_beam_search"), "ask for samples by n, or by tts"),
    **dict.fromkeys(("n_predict", "min_tokens"), "limit the answer by max_tokens"),
    "prompt": "a chat has messages; /v1/completions has a prompt",
    "mock_response": "it is not known here",
}  # fmt: skip
_STRATEGIES = (DVTS, BeamSearch, BestOfN, ParticleFilter, RecursiveAggregation, Revision, SelfConsistency, TreeSearch)
_RULES = (BetaConfident, Threshold, Unanimous, VoteDecided, VoteLead)
_BY_NAME = {kind.type_name.replace("_", "-"): kind for kind in _STRATEGIES}
_RULE_NAMES = {kind.type_name.replace("_", "-") for kind in _RULES}
_TTS = ("profile", "strategy", "n", "budget", "seed", "on_exhausted")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_LARGEST = 2**53


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A request that was read.

    Attributes:
        model: as the caller names it, profile included.
        forwarded: the fields that go to the upstream as they are.
        strategy, budget, profile, on_exhausted: of the caller's own `tts`.
        candidates: of the caller's own `tts`.
    """

    model: str
    messages: list[dict[str, Any]]
    forwarded: dict[str, Any]
    n: int = 1
    seed: int | None = None
    stream: bool = False
    include_usage: bool | None = None
    temperature: float | None = None
    limit: str = "max_tokens"
    max_tokens: int | None = None
    profile: str | None = None
    strategy: Strategy | str | None = None
    candidates: int | None = None
    budget: Budget | None = None
    on_exhausted: str = "return"
    extra: dict[str, Any] = field(default_factory=dict)


def chat_request(body: Any, settings: ServerSettings) -> ChatRequest:
    """Read the JSON of a chat request.

    Raises:
        APIError: 400, naming the field.
    """
    if not isinstance(body, dict):
        raise APIError(400, "The body must be a JSON object.", code="invalid_json")
    for name in body:
        if name in REFUSED and body[name] is not None:
            raise bad_field(name, f"it cannot be given; {REFUSED[name]}", code="unsupported_parameter")
    given = {key: value for key, value in body.items() if value is not None}
    modalities = given.get("modalities", [])
    if not isinstance(modalities, list):
        raise bad_field("modalities", f"{_short(modalities)} must be a list of texts")
    if "audio" in modalities:
        raise bad_field("modalities", "audio has no text to choose by; ask for text", code="unsupported_value")
    if given.get("store") is True:
        raise bad_field("store", "nothing is stored here; leave it out", code="unsupported_value")
    limit, max_tokens = _limit(given)
    known = {key: given[key] for key in given if key in FORWARDED and key != "store"}
    other = {key: given[key] for key in given if key not in FORWARDED and key not in USED}
    return ChatRequest(
        model=_text(given, "model"),
        messages=_messages(given.get("messages")),
        forwarded={**known, **({"extra_body": other} if other else {})},
        n=whole_of(given, "n", settings.max_candidates) or 1,
        seed=_seed("seed", given.get("seed")),
        stream=_flag(given, "stream") or False,
        include_usage=_include_usage(given),
        temperature=_temperature(given.get("temperature")),
        limit=limit,
        max_tokens=max_tokens,
        **_tts(given.get("tts"), settings),
    )


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > 512:
        raise bad_field(name, "it must be given, as a text", code="missing_required_parameter")
    return value


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise bad_field("messages", "give a list of at least one message", code="missing_required_parameter")
    for i, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise bad_field(f"messages[{i}]", f"a message is an object whose role is one of {', '.join(ROLES)}")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise bad_field(f"messages[{i}].content", "it must be a text or a list of parts")
        if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
            raise bad_field(f"messages[{i}].content", "each part must be an object")
    return value


def whole_of(given: Mapping[str, Any], name: str, most: int = _LARGEST) -> int | None:
    """Return a field that must be a whole number from 1 to `most`, or None if it is not given.

    Raises:
        APIError: 400, naming the field.
    """
    value = given.get(name)
    if value is None:
        return None
    if not is_whole(value, 1):
        raise bad_field(name, f"{_short(value)} must be a whole number of at least 1", code="integer_below_min_value")
    if value > most:
        why = f"{_short(value)} is above {most}, the most that is taken here"
        raise bad_field(name, why, code="integer_above_max_value")
    return value


def _limit(given: Mapping[str, Any]) -> tuple[str, int | None]:
    found = {name: whole_of(given, name) for name in ("max_tokens", "max_completion_tokens") if name in given}
    if len(found) > 1:
        raise bad_field("max_tokens", "give either max_tokens or max_completion_tokens")
    return next(iter(found.items()), ("max_tokens", None))


def _seed(name: str, value: Any) -> int | None:
    if value is not None and (not is_whole(value) or abs(value) > 2**63):
        raise bad_field(name, f"{_short(value)} must be a whole number")
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool | None:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_field(name, f"{_short(value)} must be true or false")
    return value


def _include_usage(given: Mapping[str, Any]) -> bool | None:
    options = given.get("stream_options")
    if options is None:
        return None
    if not isinstance(options, dict):
        raise bad_field("stream_options", "it must be an object")
    if not given.get("stream"):
        raise bad_field("stream_options", "it is for streams; set stream to true, or leave it out")
    if unknown := sorted(set(options) - {"include_usage", "include_obfuscation"}):
        raise bad_field(f"stream_options.{unknown[0]}", "it is not known", code="unknown_parameter")
    return _flag({"stream_options.include_usage": options.get("include_usage")}, "stream_options.include_usage")


def _temperature(value: Any) -> float | None:
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= 2:
        raise bad_field("temperature", f"{_short(value)} must be a number from 0 to 2")
    return float(value)


def _tts(value: Any, settings: ServerSettings) -> dict[str, Any]:
    """What a caller may say of the search: nothing that names a file, a function, a price or a server."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_field("tts", 'it must be an object of settings, such as {"n": 4}')
    if unknown := sorted(set(value) - set(_TTS)):
        raise bad_field(f"tts.{unknown[0]}", f"it is not known; use {', '.join(_TTS)}", code="unknown_parameter")
    given = {key: item for key, item in value.items() if item is not None}
    out: dict[str, Any] = {}
    if "profile" in given:
        out["profile"] = _text({"tts.profile": given["profile"]}, "tts.profile")
    if "strategy" in given:
        out["strategy"] = _strategy(given["strategy"], settings)
    if "n" in given:
        out["candidates"] = whole_of({"tts.n": given["n"]}, "tts.n", settings.max_candidates)
    if "budget" in given:
        out["budget"] = _budget(given["budget"])
    if "seed" in given:
        out["seed"] = _seed("tts.seed", given["seed"])
    if "on_exhausted" in given:
        if given["on_exhausted"] not in ("return", "raise"):
            raise bad_field("tts.on_exhausted", 'it must be "return" or "raise"')
        out["on_exhausted"] = given["on_exhausted"]
    return out


def _strategy(value: Any, settings: ServerSettings) -> Strategy | str:
    if isinstance(value, str):
        name = value.strip().replace("_", "-")
        if name not in _BY_NAME:
            raise bad_field("tts.strategy", f"{_short(value)} is not known; use one of {', '.join(sorted(_BY_NAME))}")
        return name
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise bad_field("tts.strategy", 'it must be a name, or an object with a type: {"type": "best-of-n", "n": 4}')
    _strategy(value["type"], settings)
    for key, inner in value.items():
        _check_inner(f"tts.strategy.{key}", inner)
    try:
        made = BaseStrategy.from_dict(value)
    except ConfigurationError as error:
        raise bad_field("tts.strategy", str(error)) from error
    check_size("tts.strategy", made, settings)
    return made


def _check_inner(name: str, value: Any) -> None:
    """Allow only stop rules of this package inside a strategy: other types may read files or import code."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, list):
            raise bad_field(name, "it is nested too deeply")
        if isinstance(part, dict) and str(part.get("type")).replace("_", "-") not in _RULE_NAMES:
            raise bad_field(name, f"it must be a stop rule, one of {', '.join(sorted(_RULE_NAMES))}")
        if isinstance(part, float) and not math.isfinite(part):
            raise bad_field(name, "it must be a finite number")


def check_size(name: str, strategy: Any, settings: ServerSettings) -> None:
    """Refuse a search of a caller that is larger than the server allows."""
    n, calls = getattr(strategy, "n", 1), getattr(strategy, "calls", None)
    most = calls()[1] if callable(calls) else 1
    width = max(n if isinstance(n, int) else 1, getattr(strategy, "population", 1), getattr(strategy, "chains", 1))
    if width > settings.max_candidates:
        raise bad_field(name, f"{width} candidates are above {settings.max_candidates}, the most that is taken here")
    if most > settings.max_calls:
        raise bad_field(
            name, f"it may come to {most} generations, above {settings.max_calls}, the most that is taken here; "
            "lower n or max_steps"
        )  # fmt: skip


def _budget(value: Any) -> Budget:
    if not isinstance(value, dict) or not value:
        raise bad_field("tts.budget", 'it must be an object of limits, such as {"tokens": 5000}')
    if unknown := sorted(set(value) - {"calls", "tokens", "usd", "seconds"}):
        raise bad_field(f"tts.budget.{unknown[0]}", "the limits are calls, tokens, usd and seconds")
    for name, limit in value.items():
        if is_number(limit) and limit > _LARGEST:
            raise bad_field(f"tts.budget.{name}", f"{_short(limit)} is above {_LARGEST}; leave it out for no limit")
    try:
        return Budget(**value)
    except ConfigurationError as error:
        raise bad_field("tts.budget", str(error)) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
