"""Makes the objects that `solve` takes from what was typed. Nothing here calls a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from tts_plugins._internal.config import secret_of
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import EmbeddingModel, LocalEmbeddingModel, LocalModel, OpenAICompatibleModel, ProviderModel
from tts_plugins.models.llama_cpp import Progress

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
    """Make the generator: a model on a server, a GGUF file, or the embedded model.

    Without a server's address, "provider/model" is a model of Anthropic, Gemini, Bedrock or the like.

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
        what = "it is not a GGUF file" if Path(name).exists() else "there is no such file"
        raise ConfigurationError(
            f"--model {name}: {what}; give a .gguf, or the name of a server's model with its --base-url"
        )
    if threads is not None:
        raise ConfigurationError("--threads is for a local model; a server has its own")
    made: dict[str, Any] = {
        "api_key": key_of(api_key_env), "temperature": temperature, "max_tokens": max_tokens, "system": system,
        "price": None if price is None else price_of(price),
    }  # fmt: skip
    if base_url is None and "/" in name:
        if more.pop("logprobs", False):
            raise ConfigurationError(f"--model {name}: a provider's own interface gives no --logprobs; leave it out")
        return ProviderModel(name, **made, **more)
    return OpenAICompatibleModel(name, base_url=base_url, **made, **more)


def _is_path(name: str) -> bool:
    """Return whether the name means a file, and not a model of OpenAI's, whose names have dots too."""
    return Path(name).is_file() or name.startswith(("./", "../", "/", "~")) or Path(name).suffix in _FILES


def embedder_of(
    name: str | None, *, base_url: str | None, api_key_env: str | None, pooling: str, threads: int | None,
    progress: Progress,
) -> EmbeddingModel:  # fmt: skip
    """Make the embedding model: on a server, a GGUF file, or the embedded one.

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


def judge_of(
    name: str | None, *, base_url: str | None, api_key_env: str | None, generator: OpenAICompatibleModel | None
) -> OpenAICompatibleModel | EmbeddingModel | None:
    """Make the model of a verifier that asks one: `embedding:NAME` for vectors; without a name, the generator.

    Raises:
        ConfigurationError: an address or a key without a name, or options that do not go together.
    """
    if name is None:
        if base_url is not None or api_key_env is not None:
            raise ConfigurationError("--judge-base-url and --judge-api-key-env need --judge-model NAME too")
        return generator
    if name.startswith("embedding:"):
        return embedder_of(
            name.removeprefix("embedding:") or None, base_url=base_url, api_key_env=api_key_env, pooling="last",
            threads=None, progress=lambda done, size: None,
        )  # fmt: skip
    return model_of(
        name, base_url=base_url, api_key_env=api_key_env, temperature=0.2, max_tokens=512, system=None, price=None,
        threads=None, progress=lambda done, size: None,
    )  # fmt: skip


def check_key(model: OpenAICompatibleModel, base_url: str | None, api_key_env: str | None) -> None:
    """Raise before anything is sent if the server needs a key and there is none.

    Raises:
        ConfigurationError: OpenAI's own address is meant, and there is no key.
    """
    own = isinstance(model, LocalModel | ProviderModel) or base_url is not None or api_key_env is not None
    if not own and not os.environ.get("OPENAI_BASE_URL") and not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError(
            f"--model {model.name}: no --base-url is given, so OpenAI's servers are meant, and OPENAI_API_KEY is not "
            "set; set it, give --base-url of another server, or leave --model out for the embedded model"
        )


def key_of(variable: str | None) -> str | None:
    """Read the key from an environment variable; None if no variable is named.

    Raises:
        ConfigurationError: it is not set.
    """
    return None if variable is None else secret_of("--api-key-env ", variable)


def price_of(text: str) -> tuple[float, float]:
    """Read `IN,OUT`, dollars per million prompt and completion tokens.

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
