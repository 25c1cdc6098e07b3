"""Named bundles of settings, so that how much is spent is decided where an application is configured.

A profile stands in `[tool.tts-plugins.profiles.NAME]` of pyproject.toml, in `[profiles.NAME]` of tts-plugins.toml, or
in environment variables; each overrides those before it, field by field:

    [tool.tts-plugins.profiles.careful]
    strategy = { type = "best-of-n", n = 16 }
    verifier = "my_package.checks:is_valid"
    budget = { tokens = 20000, seconds = 30 }
    seed = 0

    TTS_PLUGINS_PROFILES__CAREFUL__STRATEGY__N=8
    TTS_PLUGINS_PROFILES__CAREFUL__BUDGET__USD=0.05

TTS_PLUGINS_PROFILE=careful makes it the profile of every solve and wrapper that is given none. A profile fills what is
not set otherwise.
"""

from __future__ import annotations

import codecs
import difflib
import functools
import importlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tts_plugins._internal.values import is_whole, variable_shown
from tts_plugins.answers import AnswerKey
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.options import check_common
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.strategies import BaseStrategy
from tts_plugins.types import OnAbstain

_ENVIRONMENT = "the environment"  # as a source, beside files
PREFIX = "TTS_PLUGINS_PROFILES__"
_FIELDS = ("strategy", "policy", "verifier", "budget", "seed", "answer", "abstain_below", "on_abstain")
_WITH_FILES = {"json-schema": "schema", "sql": "database", "code-tests": "tests"}  # presets, and their argument
_LIMITS = ("calls", "tokens", "usd", "seconds")
_Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Settings of `solve` under one name; None where the profile does not say.

    A policy is a strategy that chooses among strategies: `policy = …` in a file is `strategy` here.
    """

    name: str
    strategy: Strategy | None = None
    verifier: Verifier | SetVerifier | None = None
    budget: Budget | None = None
    seed: int | None = None
    answer: AnswerKey | None = None
    abstain_below: float | None = None
    on_abstain: OnAbstain | None = None

    def settings(self) -> dict[str, Any]:
        """What is set, as the arguments of `solve`."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}
        return {name: value for name, value in given.items() if value is not None}


def load_profile(
    name: str, *, directory: str | Path | None = None, environ: Mapping[str, str] | None = None
) -> Profile:
    """The profile of that name.

    Args:
        name: as its table in the file is called.
        directory: where to look for the files, and above it; the working directory where left out.
        environ: the environment; the process's own where left out.

    Raises:
        ConfigurationError: it is not known, or a field is wrong; the message names the file and the field.
    """
    given: object = name
    if not isinstance(given, str):
        raise ConfigurationError(f"profile={given!r:.80} must be the name of a profile")
    tables, sources = _read(directory, environ)
    if name not in tables:
        raise ConfigurationError(f"profile={name!r:.80} is not known; {_instead(name, tables, sources)}")
    try:
        table = _placed(tables[name], sources[name], Path(directory or Path.cwd()))
        return _made(name, json.dumps(table, sort_keys=True, default=str), os.getcwd(), _stamp(table))
    except ConfigurationError as error:
        raise ConfigurationError(f"{', '.join(sources[name])}: profile {name}: {error}") from error


@functools.lru_cache(maxsize=64)
def _made(name: str, table: str, directory: str, stamp: object) -> Profile:
    """The profile of a table, made once: its verifier may hold connections, workers, and what it has judged.

    It is made again in another working directory, and where the verifier's own file has another `stamp`.
    """
    return _profile(name, json.loads(table))


def _placed(table: _Table, sources: Sequence[str], directory: Path) -> _Table:
    """The table with its verifier's file as a whole path: it stands beside the profile's file, or in `directory`."""
    given = table.get("verifier")
    kind = given.get("type") if isinstance(given, dict) else given
    name, _, argument = kind.partition(":") if isinstance(kind, str) else ("", "", "")
    if name.replace("_", "-") not in _WITH_FILES:
        return table
    field = "" if argument else _WITH_FILES[name.replace("_", "-")]
    path = given.get(field) if field and isinstance(given, dict) else argument
    folders = [Path(source).parent for source in reversed(sources) if source != _ENVIRONMENT]
    for folder in (*folders, directory):
        if isinstance(path, str) and path and _is_file(found := folder / path):
            whole = str(found.resolve())
            placed = {**given, field: whole} if field and isinstance(given, dict) else f"{name}:{whole}"
            return {**table, "verifier": {**given, "type": placed} if argument and isinstance(given, dict) else placed}
    return table


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is no path
        return False


def _stamp(table: _Table) -> object:
    """What changes with the file of a verifier: tests and schemas are read when it is made."""
    given = table.get("verifier")
    texts = given.values() if isinstance(given, dict) else (given,)
    files = [Path(part) for text in texts if isinstance(text, str) for part in (text, text.partition(":")[2])]
    return tuple((str(f), (s := f.stat()).st_mtime_ns, s.st_size) for f in files if f.is_absolute() and _is_file(f))


def profile_names(*, directory: str | Path | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """All profiles that `load_profile` finds."""
    return sorted(_read(directory, environ)[0])


def profile_sources(
    *, directory: str | Path | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """The files that each profile is written in, and "the environment" where it says something of it."""
    return _read(directory, environ)[1]


def _instead(name: str, tables: Mapping[str, _Table], sources: Mapping[str, Sequence[str]]) -> str:
    """Say which profiles there are, the nearest name first, and where to write this one: into a file that was read."""
    files = sorted({source for found in sources.values() for source in found if source != _ENVIRONMENT})
    file = next((file for file in files if file.endswith("tts-plugins.toml")), files[0] if files else "pyproject.toml")
    key = name if re.fullmatch("[A-Za-z0-9_-]{1,80}", name) else '"NAME"'  # as TOML has it without quotes
    table = f"profiles.{key}" if file.endswith("tts-plugins.toml") else f"tool.tts-plugins.profiles.{key}"
    near = difflib.get_close_matches(name, tables, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    known = f"known are {', '.join(sorted(tables))}" if tables else "there are none"
    return f"{meant}{known}. Write [{table}] into {file}"


def _read(
    directory: str | Path | None, environ: Mapping[str, str] | None
) -> tuple[dict[str, _Table], dict[str, list[str]]]:
    tables: dict[str, _Table] = {}
    sources: dict[str, list[str]] = {}
    for source, found in [*_files(Path(directory or Path.cwd()).resolve()), (_ENVIRONMENT, _environment(environ))]:
        for name, table in found.items():
            # Names in the environment are upper case, and mean the profile of that name in whatever case.
            own = next((known for known in tables if source == _ENVIRONMENT and known.lower() == name), name)
            if not isinstance(table, dict):
                raise ConfigurationError(f"{source}: profile {name}={table!r} must be a table of settings")
            _merge(tables.setdefault(own, {}), table)
            sources.setdefault(own, []).append(source)
    return tables, sources


def _files(directory: Path) -> list[tuple[str, _Table]]:
    """The profiles in the nearest pyproject.toml that has any, and in the nearest tts-plugins.toml."""
    found: list[tuple[str, _Table]] = []
    for file, path in (("pyproject.toml", ("tool", "tts-plugins", "profiles")), ("tts-plugins.toml", ("profiles",))):
        for folder in (directory, *directory.parents):
            if not (folder / file).is_file():
                continue
            table: Any = _toml(folder / file)
            for key in path:
                table = table.get(key, {}) if isinstance(table, dict) else {}
            if table:
                if not isinstance(table, dict):
                    raise ConfigurationError(f"{folder / file}: {'.'.join(path)}={table!r} must be a table of profiles")
                found.append((str(folder / file), table))
                break
    return found


def _toml(path: Path) -> _Table:
    try:
        data = path.read_bytes()
        if data.startswith(codecs.BOM_UTF8):
            raise ConfigurationError(
                f"{path}: it begins with a byte-order mark, which TOML does not allow; save it as UTF-8 without BOM"
            )
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: its values are nested too deeply; keep them to a few levels") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}; correct that place") from error


def _environment(environ: Mapping[str, str] | None) -> _Table:
    """PREFIX + NAME__FIELD__KEY=value: values are JSON where they can be read as such, else texts."""
    root: _Table = {}
    for variable, value in sorted((os.environ if environ is None else environ).items()):
        if not variable.upper().startswith(PREFIX):
            continue
        path = variable[len(PREFIX) :].lower().split("__")
        if len(path) < 2 or not all(path):
            raise ConfigurationError(f"environment: {variable}={value!r} names no field; write {PREFIX}NAME__FIELD")
        table = root
        for key in path[:-1]:
            inner = table.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"environment: {variable} is set beside a value for {key!r} itself; set one")
            table = inner
        if isinstance(table.get(path[-1]), dict):
            raise ConfigurationError(f"environment: {variable} is set beside values inside it; set one")
        table[path[-1]] = _value(variable, value)
    return root


def _value(variable: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise ConfigurationError(
            f"environment: {variable} is nested too deeply ({text:.20}…); keep values to a few levels"
        ) from None


def _merge(into: _Table, table: _Table) -> None:
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, dict) and isinstance(into.get(key), str) and key in ("strategy", "policy", "verifier"):
            into[key] = {"type": into[key], **value}
        else:
            into[key] = {**value} if isinstance(value, dict) else value


def _answer(given: object) -> AnswerKey | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise ConfigurationError(f"answer={given!r} must be a text, such as 'choice' or '/answer'")
    from tts_plugins.verifiers.grouping.named import named_answer

    return named_answer(given, "answer")


def _profile(name: str, table: Mapping[str, Any]) -> Profile:
    if unknown := sorted(set(table) - set(_FIELDS)):
        raise ConfigurationError(f"unknown field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}")
    if "strategy" in table and "policy" in table:
        raise ConfigurationError("strategy and policy are both given; a policy is a strategy, so give one of them")
    seed = table.get("seed")
    if seed is not None and not is_whole(seed):
        raise ConfigurationError(f"seed={seed!r} must be a whole number")
    field = "policy" if "policy" in table else "strategy"
    abstaining = {name: table[name] for name in ("abstain_below", "on_abstain") if name in table}
    check_common("profile", abstaining)
    return Profile(
        name=name,
        strategy=_strategy(table.get(field), field),
        verifier=_verifier(table.get("verifier")),
        budget=_budget(table.get("budget")),
        seed=seed,
        answer=_answer(table.get("answer")),
        **abstaining,
    )


def _strategy(value: Any, field: str) -> Strategy | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping) or "type" not in value:
        raise ConfigurationError(f'{field}={value!r} must be a name or a table with a type: {{ type = "best-of-n" }}')
    return BaseStrategy.from_dict(value)


def _budget(value: Any) -> Budget | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"budget={value!r} must be a table of limits: {{ tokens = 20000, seconds = 30 }}")
    if unknown := sorted(set(value) - set(_LIMITS)):
        raise ConfigurationError(f"budget: unknown field {unknown[0]!r}; the limits are {', '.join(_LIMITS)}")
    return Budget(**value)


def _verifier(value: Any) -> Verifier | SetVerifier | None:
    """A preset; a function or verifier, "package.module:name"; or one of this package, by its class and arguments."""
    if value is None:
        return None
    from tts_plugins import verifiers

    settings = dict(value) if isinstance(value, Mapping) else {"type": value}
    kind = settings.pop("type", None)
    if not isinstance(kind, str):
        shown = f"verifier with {', '.join(sorted(settings))}" if isinstance(value, Mapping) else f"verifier={value!r}"
        raise ConfigurationError(f'{shown} must be "package.module:name" or a table with a type')
    if "model" in settings:
        settings["model"] = _model(settings["model"])
    name, _, argument = kind.partition(":")
    if name.replace("_", "-") in verifiers.PRESETS:
        return verifiers.preset(name, *([argument] if argument else []), **settings)
    ours = getattr(verifiers, kind) if kind in verifiers.__all__ else None
    made: Any = _imported(kind) if ":" in kind else ours
    if made is None:
        known = ", ".join([*verifiers.PRESETS, *(n for n in verifiers.__all__ if n[0].isupper() and not n.isupper())])
        raise ConfigurationError(f'verifier={kind!r} is not known; use one of {known}, or "package.module:name"')
    if isinstance(made, type):
        try:
            made = made(**settings)
        except TypeError as error:
            raise ConfigurationError(f"verifier {kind}: {error}") from error
    elif settings:
        raise ConfigurationError(f"verifier {kind}: it is not a class, so it does not take {sorted(settings)[0]!r}")
    return verifiers.callable.as_verifier(f"verifier {kind}", made)


def _model(value: Any) -> Any:
    """The model of a judge: `{ type, … }` with the arguments of its class; the key by the name of its variable."""
    from tts_plugins import models

    kinds = {
        "openai": models.OpenAICompatibleModel, "local": models.LocalModel,
        "embedding": models.EmbeddingModel, "local-embedding": models.LocalEmbeddingModel,
    }  # fmt: skip
    settings = dict(value) if isinstance(value, Mapping) else {"model": value}
    kind = settings.pop("type", "openai")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigurationError(f"model: type={kind!r} is not known; use one of {', '.join(kinds)}")
    if "api_key" in settings:
        raise ConfigurationError('model: api_key would stand in a file; name its variable: api_key_env = "NAME"')
    if (variable := settings.pop("api_key_env", None)) is not None:
        if not os.environ.get(str(variable)):
            raise ConfigurationError(
                f"model: api_key_env={variable_shown(variable)}: that environment variable is not set; export it first"
            )
        settings["api_key"] = os.environ[str(variable)]
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise ConfigurationError(f"model {kind}: {error}") from error


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ConfigurationError(f'verifier={path!r} does not name a function; write "package.module:name"')
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module raises while it is imported
        text = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"verifier={path!r} cannot be imported: {text}; check the name and the module"
        ) from error
    return found
