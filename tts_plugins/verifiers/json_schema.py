"""How much of a JSON schema a candidate meets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Score

_FENCE = re.compile(r"```(?:json)?\s*\n(?P<body>.*?)```", re.DOTALL)
_SHOWN = 5


class JSONSchemaVerifier:
    """Scores a candidate by the share of a schema's constraints that its JSON meets.

    Args:
        schema: a JSON schema; `$ref` within it is followed, remote ones are not fetched.

    The JSON is the whole text, the last fenced block, or what stands between the first brace and the last. A text
    without JSON scores 0. The constraints counted are the keywords of the schema that apply to the value, at each
    place where they apply; each required property is one. The feedback is the errors in words.

    Raises:
        ConfigurationError: the schema is no valid schema.
        MissingExtraError: `jsonschema` is not installed.
    """

    name = "JSONSchemaVerifier"

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for
        except ImportError as error:
            raise MissingExtraError("JSONSchemaVerifier needs jsonschema: pip install 'tts-plugins[schema]'") from error
        kind: Any = validator_for(schema)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ConfigurationError(f"JSONSchemaVerifier: schema at {error.json_path}: {error.message}") from error
        self.schema = schema
        self._validator = kind(schema)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Free: it runs here."""
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The share of constraints met, and what is wrong in words."""
        return self.check(candidate.text)

    def check(self, text: str) -> Score:
        """The same for a text alone."""
        try:
            value = read_json(text)
        except ValueError as error:
            return Score(value=0.0, feedback=f"no JSON could be read: {error}")
        errors = list(_leaves(self._validator.iter_errors(value)))
        if not errors:
            return Score(value=1.0)
        total = max(_constraints(self._validator, self.schema, value), len(errors))
        # Never 1 with an error: a constraint that the count does not know still counts as missed.
        share = 1 - len(errors) / max(total, len(errors) + (0 if total == len(errors) else 1))
        words = [f"{error.json_path}: {error.message}" for error in errors[:_SHOWN]]
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        return Score(value=share, feedback="; ".join(words) + more, details={"errors": len(errors), "of": total})


def read_json(text: str) -> Any:
    """The JSON value in a text: all of it, the last fenced block, or from the first brace to the last.

    Raises:
        ValueError: there is none; NaN and Infinity are none either.
    """
    bodies = [text, *(match["body"] for match in reversed(list(_FENCE.finditer(text))))]
    starts = [i for i in (text.find("{"), text.find("[")) if i >= 0]
    if starts:
        bodies.append(text[min(starts) : max(text.rfind("}"), text.rfind("]")) + 1])
    first: ValueError | None = None
    for body in bodies:
        try:
            return json.loads(body, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            first = first or ValueError(str(error))
    raise first or ValueError("the text is empty")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _leaves(errors: Any) -> Iterator[Any]:
    # An error of anyOf and the like holds those of its branches; it stands for one missed constraint.
    yield from errors


def _constraints(validator: Any, schema: Any, value: Any) -> int:
    """How many constraints of the schema apply to the value, at every place."""
    if not isinstance(schema, Mapping):
        return 1
    if "$ref" in schema:
        resolved = validator._resolver.lookup(schema["$ref"]).contents if hasattr(validator, "_resolver") else {}
        return _constraints(validator, resolved, value)
    count = 0
    for keyword, content in schema.items():
        if keyword == "required":
            count += len(content)
        elif keyword == "properties" and isinstance(value, Mapping):
            count += sum(_constraints(validator, sub, value[name]) for name, sub in content.items() if name in value)
        elif keyword == "items" and isinstance(value, list) and isinstance(content, Mapping):
            count += sum(_constraints(validator, content, item) for item in value)
        elif keyword in ("allOf",):
            count += sum(_constraints(validator, sub, value) for sub in content)
        elif keyword in validator.VALIDATORS and keyword not in ("properties", "items"):
            count += 1
    return count
