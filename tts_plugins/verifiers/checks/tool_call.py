"""Whether the tools that a reply calls exist, get what they take, and are those that were expected."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tts_plugins._internal.config import check_seconds
from tts_plugins._internal.json_bytes import refuse_constant
from tts_plugins._internal.values import field, listed
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.prompts import tool_form, tools_of
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._free import FreeVerifier
from tts_plugins.verifiers._limited import limited
from tts_plugins.verifiers.checks.json_schema import JSONSchemaVerifier

Expected = str | Sequence[str]


class ToolCallVerifier(FreeVerifier):
    """Scores 1 where every tool call of a candidate can be made, else 0, with what is wrong as the feedback.

    Args:
        tools: the tools that may be called, in OpenAI's form; those of the request where left out.
        expected: the tools that have to be called, in any order: a name, names, or a function from the problem to them.
            Where left out, a candidate that calls no tool scores 1: it may be the final answer.
        timeout: seconds for one check of arguments by a schema with patterns, some of which backtrack without end.

    A call can be made where its tool exists, its arguments are a JSON object, none that is required is missing, and all
    fit the tool's schema; the last needs `jsonschema` (the extra `schema`), and is left out without it. Whether it is
    the right call is a judge's to say: `preset("tool-call", model=judge)` asks one about calls that can be made.

    Raises:
        ConfigurationError: a tool has no name, or `expected` is neither names nor a function.
    """

    name = "ToolCallVerifier"

    def __init__(
        self,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        expected: Expected | Callable[[Problem], Expected] | None = None,
        timeout: float = 10.0,
    ) -> None:
        check_seconds("ToolCallVerifier", "timeout", timeout)
        self.timeout = timeout
        given: Any = tools
        if given is not None and (isinstance(given, str | Mapping) or not isinstance(given, Sequence)):
            raise ConfigurationError(f"ToolCallVerifier: tools={tools!r:.200} must be a list of tools in OpenAI's form")
        self._tools = None if tools is None else [tool_form(tool) for tool in tools]
        for tool in self._tools or ():
            if not isinstance(tool["name"], str) or not tool["name"]:
                raise ConfigurationError(
                    f"ToolCallVerifier: tools={tools!r:.200} must each have a name, as OpenAI's do"
                )
            _schema_of(tool)
        if expected is not None and not callable(expected) and not _are_names(expected):
            raise ConfigurationError(
                f"ToolCallVerifier: expected={expected!r} must be a tool's name, names, or a function of the problem"
            )
        self._expected = expected
        with suppress(ImportError):
            import jsonschema.validators  # noqa: F401 - it takes long, and the first score holds the event loop

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """1 or 0; `details["calls"]` has the names of the tools that were called.

        Raises:
            ConfigurationError: a tool of the request has no schema that can be checked, or `expected` gives no names.
            VerifierError: a pattern of a tool's schema took too long.
        """
        calls = calls_of(candidate.output)
        tools = tools_of(candidate.problem) if self._tools is None else self._tools
        named = {tool["name"]: tool for tool in tools if isinstance(tool["name"], str)}
        wrong = [said for call in calls for said in await _wrong(call, named, self.timeout)]
        wrong += self._unexpected(candidate.problem, [call.name for call in calls])
        details = {"calls": [call.name for call in calls]}
        return Score(value=0.0 if wrong else 1.0, feedback="; ".join(wrong[:5]), details=details)

    def _unexpected(self, problem: Problem, called: Sequence[str]) -> list[str]:
        expected = self._expected(problem) if callable(self._expected) else self._expected
        if expected is None:
            return []
        if not _are_names(expected):
            raise ConfigurationError(
                f"ToolCallVerifier: expected gave {expected!r:.200}; it must give a tool's name, or names"
            )
        wanted, made = Counter([expected] if isinstance(expected, str) else expected), Counter(called)
        missing = [f"{name} had to be called" for name in (wanted - made)]
        return missing + [f"{name} had not to be called" for name in (made - wanted)]


class Call(NamedTuple):
    """A tool call: the tool's name, and its arguments as JSON or as a mapping."""

    name: str
    arguments: Any


def calls_of(output: Any) -> list[Call]:
    """The tool calls of a message: OpenAI's, LangChain's (those that it could not read included), or a mapping."""
    names = ("tool_calls", "invalid_tool_calls")
    calls = [_call(call) for name in names for call in listed(field(output, name))]
    if (function := field(output, "function_call")) is not None:
        calls.append(_call(function))
    return calls


def _call(call: Any) -> Call:
    said = field(call, "function") or field(call, "custom") or call
    arguments = next((a for name in ("arguments", "args", "input") if (a := field(said, name)) is not None), "{}")
    return Call(str(field(said, "name")), arguments)


async def _wrong(call: Call, tools: Mapping[str, Mapping[str, Any]], timeout: float) -> list[str]:
    """What keeps a call from being made."""
    tool = tools.get(call.name)
    if tool is None:
        return [f"there is no tool {call.name}; the tools are {', '.join(sorted(tools)) or 'none'}"] if tools else []
    arguments = call.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}", parse_constant=refuse_constant)
        except (ValueError, RecursionError) as error:
            return [f"{call.name}: its arguments are not JSON: {error}"]
    if not isinstance(arguments, Mapping):
        return [f"{call.name}: its arguments are {arguments!r:.60}, not an object"]
    return [f"{call.name}: {said}" for said in await _unfit(dict(arguments), tool, timeout)]


async def _unfit(arguments: dict[str, Any], tool: Mapping[str, Any], timeout: float) -> list[str]:
    schema = _schema_of(tool)
    if schema is None:
        required = tool["parameters"].get("required") or ()
        return [f"{name!r} is missing" for name in required if name not in arguments]
    try:
        if schema.patterned:
            request = {"do": "schema", "schema": schema.schema, "value": arguments}
            errors = (await limited("ToolCallVerifier", request, timeout))["errors"]
        else:
            errors = schema.errors(arguments)
    except RecursionError:
        return ["its arguments are nested too deeply"]
    return [error.replace("$", "arguments", 1) for error in errors]


def _schema_of(tool: Mapping[str, Any]) -> JSONSchemaVerifier | None:
    """The check of a tool's arguments; None without `jsonschema`. It fetches nothing, whatever a schema refers to."""
    parameters = tool["parameters"]
    try:
        if not isinstance(parameters, Mapping):
            raise ConfigurationError(f"parameters={parameters!r:.200} must be a JSON schema")
        return _checked(json.dumps(parameters, default=str))
    except MissingExtraError:
        return None
    except ConfigurationError as error:
        raise ConfigurationError(f"ToolCallVerifier: tool {tool['name']!r}: {error}") from error


@functools.lru_cache(maxsize=256)
def _checked(schema: str) -> JSONSchemaVerifier:
    return JSONSchemaVerifier(json.loads(schema))


def _are_names(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, Sequence) and all(isinstance(name, str) for name in value))
