"""From what was typed to the objects that `solve` takes. Nothing here calls a model."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tts_plugins._config import build, find, registered, spoken
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import EmbeddingModel, LocalEmbeddingModel, LocalModel, OpenAICompatibleModel
from tts_plugins.models._weights import Progress
from tts_plugins.policies import ComputeOptimal
from tts_plugins.stopping import AnyOf, Rule
from tts_plugins.strategies import BaseStrategy, BestOfN

EMBEDDED = "local"
_FILES = (".bin", ".json", ".pt", ".pth", ".py", ".safetensors")


def model_of(
    name: str | None,
    *,
    base_url: str | None,
    api_key_env: str | None,
    temperature: float | None,
    max_tokens: int,
    system: str | None,
    price: str | None,
    threads: int | None,
    progress: Progress,
    **more: Any,
) -> OpenAICompatibleModel:
    """The generator: a model on a server, a GGUF file, or the embedded model; `more` are arguments of either.

    Raises:
        ConfigurationError: options that do not go together, or a value that the model refuses.
    """
    if base_url is None and (name is None or name == EMBEDDED or name.endswith(".gguf")):
        if api_key_env is not None or price is not None:
            raise ConfigurationError(
                "--api-key-env and --price are for a server; a local model has no key and no price"
            )
        path = None if name in (None, EMBEDDED) else name
        if temperature is not None:
            more["temperature"] = temperature
        return LocalModel(path, max_tokens=max_tokens, system=system, threads=threads, progress=progress, **more)
    if name is None:
        raise ConfigurationError(
            f"--base-url needs --model NAME too; `tts-plugins doctor --base-url {base_url}` lists the server's models"
        )
    if base_url is None and _is_path(name):
        what = "it is no GGUF file" if Path(name).exists() else "there is no such file"
        raise ConfigurationError(
            f"--model {name}: {what}; give a .gguf, or the name of a server's model with its --base-url"
        )
    if threads is not None:
        raise ConfigurationError("--threads is for a local model; a server has its own")
    key = key_of(api_key_env)
    return OpenAICompatibleModel(
        name, base_url=base_url, api_key=key, temperature=temperature, max_tokens=max_tokens, system=system,
        price=None if price is None else price_of(price), **more,
    )  # fmt: skip


def _is_path(name: str) -> bool:
    """Whether it means a file and not a model of OpenAI's, whose names have dots too."""
    return Path(name).is_file() or name.startswith(("./", "../", "/", "~")) or Path(name).suffix in _FILES


def embedder_of(
    name: str | None, *, base_url: str | None, api_key_env: str | None, pooling: str, threads: int | None,
    progress: Progress,
) -> EmbeddingModel:  # fmt: skip
    """What makes vectors of texts: a model on a server, a GGUF file, or the embedded model.

    Raises:
        ConfigurationError: options that do not go together, or a value that the model refuses.
    """
    if base_url is None and (name is None or name == EMBEDDED or name.endswith(".gguf")):
        if api_key_env is not None:
            raise ConfigurationError("--api-key-env is for a server; a local model has no key")
        path = None if name in (None, EMBEDDED) else name
        return LocalEmbeddingModel(path, pooling=cast(Any, pooling), threads=threads, progress=progress)
    if name is None:
        raise ConfigurationError("--base-url needs --embedding-model NAME too")
    return EmbeddingModel(name, base_url=base_url, api_key=key_of(api_key_env))


def check_key(model: OpenAICompatibleModel, base_url: str | None, api_key_env: str | None) -> None:
    """Refuse a server that wants a key before anything is sent without one.

    Raises:
        ConfigurationError: OpenAI's own address is meant, and there is no key.
    """
    local = isinstance(model, LocalModel)
    if not local and base_url is None and api_key_env is None and not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            f"--model {model.name}: no --base-url is given, so OpenAI's servers are meant, and OPENAI_API_KEY is not "
            "set; set it, give --base-url of another server, or leave --model out for the embedded model"
        )


def key_of(variable: str | None) -> str | None:
    """The key that an environment variable holds; None where none is named.

    Raises:
        ConfigurationError: it is not set.
    """
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise ConfigurationError(f"--api-key-env {variable}: that environment variable is not set; export it first")
    return os.environ[variable]


def price_of(text: str) -> tuple[float, float]:
    """`IN,OUT`: dollars per million prompt and completion tokens.

    Raises:
        ConfigurationError: it is not two numbers.
    """
    try:
        into, out = (float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(
            f"--price {text}: give IN,OUT in dollars per million prompt and completion tokens, such as 0.15,0.60"
        ) from None
    return into, out


def strategy_of(name: str | None, settings: Mapping[str, Any], *, verified: bool) -> BaseStrategy:
    """The strategy by its registered name, in kebab or snake case; without one, what suits the verifier.

    Args:
        name: it may bring settings of its own, as in `best-of-n:n=4`, `compute-optimal:file=policy.json`.
        settings: its fields.
        verified: whether there is a verifier to choose by.

    Raises:
        ConfigurationError: an unknown name, an unknown field, or a value that the strategy refuses.
    """
    name, _, own = (name or "").partition(":")
    given = {**settings_of(list(filter(None, own.split(","))), f"--strategy {name}:"), **settings}
    known = registered("strategies")
    kind = find(known, name or ("best-of-n" if verified else "self-consistency"))
    if kind is None:
        raise ConfigurationError(f"--strategy {name} is not known; use one of {spoken(known)}")
    if kind is ComputeOptimal:
        return _policy(given)
    fields = {f.name for f in dataclasses.fields(cast(Any, kind)) if f.init}
    if "n" in fields:
        given.setdefault("n", 8)
    if unknown := sorted(set(given) - fields):
        raise ConfigurationError(
            f"--strategy {spoken([kind.type_name])} has no setting {unknown[0]!r}; it has {', '.join(sorted(fields))}"
        )
    made = cast(BaseStrategy, build(kind, {**given, "type": kind.type_name}))
    if isinstance(made, BestOfN) and made.n > 1 and not verified:
        raise ConfigurationError("--strategy best-of-n needs a --verifier to choose by; or use self-consistency")
    return made


def _policy(settings: Mapping[str, Any]) -> ComputeOptimal:
    known = ("file", "budget", "any_model", "any_verifier")
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigurationError(f"--strategy compute-optimal has no setting {unknown[0]!r}; it has {', '.join(known)}")
    if "file" not in settings:
        raise ConfigurationError(
            "--strategy compute-optimal needs the file that `tts-plugins calibrate` wrote: "
            "compute-optimal:file=policy.json"
        )
    path = Path(str(settings["file"])).expanduser()
    try:
        return ComputeOptimal.from_file(path, **{k: v for k, v in settings.items() if k != "file"})
    except OSError as error:
        raise ConfigurationError(
            f"--strategy compute-optimal:file={path}: the file cannot be read: {error.strerror or error}"
        ) from error


def with_larger(strategy: BaseStrategy, model: OpenAICompatibleModel) -> BaseStrategy:
    """The policy with the larger model that it may ask.

    Raises:
        ConfigurationError: it is no policy, or was fitted to another larger model.
    """
    if not isinstance(strategy, ComputeOptimal):
        raise ConfigurationError(
            f"--larger-model {model.name} is for a policy that may ask it: --strategy compute-optimal:file=policy.json"
        )
    return strategy.with_larger(model)


def settings_of(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """`FIELD=VALUE`s, the values read as JSON where they are that, else as text.

    Raises:
        ConfigurationError: one has no "=".
    """
    made = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals or not field:
            raise ConfigurationError(f"{option} {pair}: write FIELD=VALUE, such as {option} wave=4")
        made[field.strip().replace("-", "_")] = _value(value)
    return made


def stop_of(rules: Sequence[str]) -> Rule | None:
    """`NAME`, `NAME:VALUE` or `NAME:FIELD=VALUE,…`; any of several may stop the search.

    Raises:
        ConfigurationError: an unknown rule, or a value that it refuses.
    """
    made = [_rule(text) for text in rules]
    return None if not made else made[0] if len(made) == 1 else AnyOf(rules=tuple(made))


def _rule(text: str) -> Rule:
    name, _, rest = text.partition(":")
    known = {key: cls for key, cls in registered("stopping").items() if not key.endswith("_of")}  # those hold others
    kind = find(known, name)
    if kind is None:
        raise ConfigurationError(f"--stop {text}: {name!r} is no rule; use one of {spoken(known)}")
    fields = [f.name for f in dataclasses.fields(cast(Any, kind)) if f.init]
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        field, equals, value = part.rpartition("=")
        field = field.strip().replace("-", "_") if equals else (fields or [""])[0]
        if field not in fields:
            takes = f"it takes {', '.join(fields)}" if fields else "it takes no value"
            raise ConfigurationError(f"--stop {text}: {name} does not take {part!r}; {takes}")
        values[field] = _value(value)
    try:
        return cast(Rule, kind(**values))
    except TypeError:
        raise ConfigurationError(f"--stop {text}: {name} needs a value for {fields[0]}: {name}:VALUE") from None


def budget_of(*, calls: int | None, tokens: int | None, usd: float | None, seconds: float | None) -> Budget | None:
    """The limits that were given; None where there are none.

    Raises:
        ConfigurationError: one is not above 0.
    """
    if calls is tokens is usd is seconds is None:
        return None
    return Budget(calls=calls, tokens=tokens, usd=usd, seconds=seconds)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
