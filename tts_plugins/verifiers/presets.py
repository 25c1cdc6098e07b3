"""Verifiers for the jobs that people have, by name: in code, in profiles, and on the command line."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tts_plugins._internal.files import expanded, is_sqlite
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.protocols import Model, SetVerifier, Verifier
from tts_plugins.verifiers.agreement import AnswerAgreement
from tts_plugins.verifiers.checks.json_schema import JSONSchemaVerifier
from tts_plugins.verifiers.checks.regex import RegexVerifier
from tts_plugins.verifiers.checks.tool_call import ToolCallVerifier
from tts_plugins.verifiers.code.code_tests import CodeTests
from tts_plugins.verifiers.code.sql_query import SQLVerifier
from tts_plugins.verifiers.combined.cascade import Veto
from tts_plugins.verifiers.judges.grounded import Grounded
from tts_plugins.verifiers.judges.llm_judge import LLMJudge
from tts_plugins.verifiers.math_answer import MathAnswer
from tts_plugins.verifiers.similar import Similar

AnyVerifier = Verifier | SetVerifier
RIGHT_TOOL = (
    "Is the right tool called, with the right arguments, given the conversation? Or, where no tool is called, is that "
    "right, and is the answer right?"
)


def preset(name: str, *argument: Any, **settings: Any) -> AnyVerifier:
    """Make a verifier by the name of the job that it does.

    - `rubric` (or `judge`): does it meet this sentence? The sentence; `model`, a judge.
    - `grounded`: is each claim in the context? The context, or the problem's; `model`, a judge or an `EmbeddingModel`.
    - `tool-call`: can its tool calls be made? The tools, or the request's; with a `model`, a judge: are they right?
    - `sql`: does the query run? An SQLite file, or a function that connects.
    - `json-schema`: does it meet the schema? The schema, or its file.
    - `code-tests`: does the program pass? Tests, their file, or the problem's own examples.
    - `math`: is it the known answer? The answer, or `metadata["answer"]`.
    - `regex`: does it match? The pattern.
    - `similar`: is it near to this text? The text, or `metadata["reference"]`; `model`, an `EmbeddingModel`.
    - `agreement`: do the others say the same?

    Args:
        name: one of these, in kebab or snake case.
        argument: what stands after the question above; at most one.
        settings: of the verifier behind it, `model` among them.

    Raises:
        ConfigurationError: the name is not known, a setting is wrong, or a file cannot be read.
    """
    made = PRESETS.get(name.strip().replace("_", "-")) if isinstance(name, str) else None
    if made is None:
        near = difflib.get_close_matches(str(name), PRESETS, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(f"preset={name!r} is not known; {meant}the presets are {', '.join(PRESETS)}")
    try:
        inspect.signature(made).bind(*argument, **settings)
        return made(*argument, **settings)
    except TypeError as error:
        needs = "; pass the model that it asks: " + _MODEL if "'model'" in str(error) else ""
        raise ConfigurationError(f"preset {name}: {error}{needs}") from error


_MODEL = 'model=OpenAICompatibleModel(…), or in a profile model = { model = "NAME", base_url = "http://…/v1" }'


def needs_model(name: str) -> bool:
    """Whether a preset asks a model."""
    made = PRESETS.get(name.strip().replace("_", "-"))
    return made is not None and "model" in inspect.signature(made).parameters


def _rubric(rubric: str | Mapping[str, str], *, model: Model, **settings: Any) -> AnyVerifier:
    return LLMJudge(model, rubric=rubric, **settings)


def _tool_call(
    tools: Any = None, *, model: Model | None = None, expected: Any = None, timeout: float = 10.0, **settings: Any
) -> AnyVerifier:
    check = ToolCallVerifier(tools, expected=expected, timeout=timeout)
    if model is None:
        if settings:
            name = sorted(settings)[0]
            raise ConfigurationError(f"preset tool-call: {name!r} is a setting of a judge; give its model too")
        return check
    return Veto(LLMJudge(model, **{"rubric": RIGHT_TOOL, **settings}), by=check)


def _sql(database: Any, **settings: Any) -> AnyVerifier:
    if callable(database):
        return SQLVerifier(database, **settings)
    path = _file("sql", "database", database).resolve()
    try:  # before an answer is paid for
        is_database = is_sqlite(path, "") or not path.stat().st_size
    except DataError as error:
        raise ConfigurationError(f"preset sql: {error}") from error
    if not is_database:
        raise ConfigurationError(
            f"preset sql: {path} is not a database of SQLite; give one, or a function that connects"
        )
    connect = functools.partial(sqlite3.connect, f"{path.as_uri()}?mode=ro", uri=True)
    return SQLVerifier(connect, **settings)


def _json_schema(schema: Any, **settings: Any) -> AnyVerifier:
    if not isinstance(schema, str | Path):
        return JSONSchemaVerifier(schema, **settings)
    path = _file("json-schema", "schema", schema)
    text = _text("json-schema", path)
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"preset json-schema: {path} is not JSON: {error}") from error
    return JSONSchemaVerifier(read, **settings)


def _code_tests(tests: Any = None, **settings: Any) -> AnyVerifier:
    if tests is None and not {"io", "generated", "examples"} & set(settings):
        settings["examples"] = "docstring"
    if isinstance(tests, Path) or (isinstance(tests, str) and tests.endswith(".py")):
        tests = [_text("code-tests", _file("code-tests", "tests", tests))]
    made: Any = CodeTests([tests] if isinstance(tests, str) else tests, **settings)
    verifier: AnyVerifier = made
    return verifier


def _file(name: str, field: str, given: Any) -> Path:
    try:
        path = expanded(given)
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):  # too long, or below the home of nobody
        pass
    raise ConfigurationError(f"preset {name}: {field}={str(given)!r:.200} is not a file here; give the path of one")


def _text(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"preset {name}: {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"preset {name}: {path} is not a text in UTF-8: {error}") from error


PRESETS: Mapping[str, Callable[..., AnyVerifier]] = {
    "rubric": _rubric,
    "judge": _rubric,
    "grounded": Grounded,
    "tool-call": _tool_call,
    "sql": _sql,
    "json-schema": _json_schema,
    "code-tests": _code_tests,
    "math": MathAnswer,
    "regex": RegexVerifier,
    "similar": Similar,
    "agreement": AnswerAgreement,
}
