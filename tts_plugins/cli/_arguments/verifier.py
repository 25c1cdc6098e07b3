"""Reads the verifier that `--verifier` names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, cast

from tts_plugins._internal.files import expanded
from tts_plugins.answers import extract
from tts_plugins.cli._arguments.build import key_of
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import EmbeddingModel, LocalEmbeddingModel
from tts_plugins.models.llama_cpp import EMBEDDED
from tts_plugins.protocols import Model, SetVerifier, Verifier
from tts_plugins.selection import Aggregate
from tts_plugins.verifiers import PRESETS, LearnedHead, LearnedVerifier, preset
from tts_plugins.verifiers.callable import as_verifier
from tts_plugins.verifiers.grouping.named import named_answer
from tts_plugins.verifiers.presets import needs_model
from tts_plugins.verifiers.recorded import RecordedVerifier


def verifier_of(
    text: str | None, *, base_url: str | None = None, api_key_env: str | None = None, judge: Model | None = None
) -> Verifier | SetVerifier | None:
    """Return the verifier that `--verifier` names.

    It is a preset, as `rubric:TEXT` or `agreement` (see `tts_plugins.verifiers.preset`),
    `python:package.module:function`, `python:path/file.py:function`, or `FILE.npz` of `train-verifier`; for pools
    `recorded`, or `recorded:HOW` to reduce step scores differently than to the last one.

    Args:
        base_url, api_key_env: of the server that has the embedding model, if it is not the embedded one.
        judge: the model of a preset that asks one.

    Raises:
        ConfigurationError: none of these, or what it names cannot be loaded.
        MissingExtraError: what it needs is not installed.
    """
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    if kind.replace("_", "-") in PRESETS:
        return _preset(text, kind, rest, judge)
    if kind == "recorded":
        return RecordedVerifier(aggregate=cast(Aggregate, rest or "last"))
    if (head := learned_head(text)) is not None:
        return _learned(text, head, base_url, api_key_env)
    if kind == "python" and ":" in rest:
        return as_verifier(f"--verifier {text}", named(rest, f"--verifier {text}"))
    raise ConfigurationError(
        f"--verifier {text} is not known; use one of {', '.join(PRESETS)}, FILE.npz, python:package.module:function "
        "or python:path/file.py:function"
    )


def _preset(text: str, kind: str, rest: str, judge: Model | None) -> Verifier | SetVerifier:
    settings = {"model": judge} if needs_model(kind) and judge is not None else {}
    try:
        return preset(kind, *([rest] if rest else []), **settings)
    except ConfigurationError as error:
        more = "" if settings or not needs_model(kind) else " (here: --judge-model NAME)"
        raise ConfigurationError(f"--verifier {text}: {error}{more}") from error


def learned_head(text: str | None) -> LearnedHead | None:
    """Load what `train-verifier` wrote, if that is named.

    Raises:
        DataError: the file is not a learned verifier.
    """
    return None if text is None or not text.endswith(".npz") else LearnedHead.load(expanded(text))


def _learned(text: str, head: LearnedHead, base_url: str | None, api_key_env: str | None) -> LearnedVerifier:
    name, _, pooling = head.embedding.rpartition(", ")
    if name == EMBEDDED:
        embedder: EmbeddingModel = LocalEmbeddingModel(pooling=cast(Any, pooling))
    elif base_url is not None:
        embedder = EmbeddingModel(head.embedding, base_url=base_url, api_key=key_of(api_key_env))
    else:
        raise ConfigurationError(
            f"--verifier {text}: it was trained on vectors of {head.embedding!r}; give --base-url of a server that has "
            "that model, or name a LearnedVerifier object: python:path/file.py:object"
        )
    return LearnedVerifier(embedder, head, by="line" if head.about.get("separator") == "\n" else "paragraph")


def answer_of(text: str | None) -> Callable[[str], str | None]:
    """Return the way to read answers that `--answer` names.

    Raises:
        ConfigurationError: it is not known.
    """
    if text is None:
        return extract
    return function_of(text, "--answer") if text.startswith("python:") else named_answer(text, "--answer")


def function_of(text: str, option: str) -> Any:
    """Load the function that `python:package.module:function` or `python:path/file.py:function` names.

    Raises:
        ConfigurationError: it cannot be loaded, or is not a function.
    """
    kind, _, where = text.partition(":")
    if kind != "python" or ":" not in where:
        raise ConfigurationError(f"{option} {text}: write python:package.module:function or python:file.py:function")
    found = named(where, f"{option} {text}")
    if not callable(found) or isinstance(found, type):
        raise ConfigurationError(f"{option} {text}: it is a {type(found).__name__}; name a function")
    return found


def named(where: str, option: str) -> Any:
    """Load what `package.module:name` or `path/file.py:name` names.

    Raises:
        ConfigurationError: it cannot be loaded; begins with the `option` that named it.
    """
    module, _, name = where.rpartition(":")
    try:
        found: Any = _loaded(module)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ConfigurationError(f"{option}: {module} cannot be loaded: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{option}: {module} has no {name!r}")
        found = getattr(found, part)
    return found


def _loaded(module: str) -> Any:
    if not module.endswith(".py"):
        return importlib.import_module(module)
    path = expanded(module)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a name that ends in .py has a loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, loaded)  # dataclasses look their module up by name
    spec.loader.exec_module(loaded)
    return loaded
