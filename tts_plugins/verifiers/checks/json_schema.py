"""How much of a JSON schema a candidate meets."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from tts_plugins._internal.config import check_seconds
from tts_plugins.answers import read_json
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Score
from tts_plugins.verifiers._free import FreeVerifier
from tts_plugins.verifiers._limited import limited

_SHOWN, _WIDTH = 5, 200
# Walked into, place by place; all other keywords are one constraint each, where they apply.
_WALKED = {"$ref", "allOf", "properties", "required", "prefixItems", "items"}
_UNCHECKED = {"format"}  # jsonschema takes it for a remark
_APPLIES: dict[type | tuple[type, ...], set[str]] = {
    str: {"minLength", "maxLength", "pattern"},
    (int, float): {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "divisibleBy"},
    list: {"minItems", "maxItems", "uniqueItems", "contains", "prefixItems", "items", "additionalItems",
           "unevaluatedItems"},
    dict: {"minProperties", "maxProperties", "additionalProperties", "patternProperties", "propertyNames",
           "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "properties", "required"},
}  # fmt: skip
_DEEP = 8


class JSONSchemaVerifier(FreeVerifier):
    """Scores a candidate by the share of a schema's constraints that its JSON meets.

    Args:
        schema: a JSON schema; `$ref` within it is followed, remote ones are not fetched.
        timeout: seconds for one check with patterns.

    The JSON is what `tts_plugins.answers.read_json` finds: the whole text, the last fenced block that holds any, or the
    last object in the prose. A text without JSON scores 0. The constraints counted are the keywords of the schema that
    apply to the value, at each place where they apply; each required property is one. A value of the wrong type, and a
    required property that is missing, miss all that would have applied there: half a record scores above none. `format`
    is not checked. The feedback is the errors in words. A schema with patterns is checked in a process of its own,
    which is ended after `timeout` seconds: some patterns backtrack without end.

    Raises:
        ConfigurationError: the schema is not a valid schema, or refers to what it does not hold.
        MissingExtraError: `jsonschema` is not installed.
    """

    name = "JSONSchemaVerifier"

    def __init__(self, schema: Mapping[str, Any], *, timeout: float = 10.0) -> None:
        check_seconds("JSONSchemaVerifier", "timeout", timeout)
        try:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for
            from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingExtraError("JSONSchemaVerifier needs jsonschema: pip install 'tts-plugins[schema]'") from error
        given: object = schema
        if not isinstance(given, Mapping | bool):
            raise ConfigurationError(f"JSONSchemaVerifier: schema={given!r} is not a schema; pass it as a mapping")
        kind: Any = validator_for(schema)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ConfigurationError(f"JSONSchemaVerifier: schema at {error.json_path}: {error.message}") from error
        self.schema, self.timeout = schema, timeout
        self.patterned = '"pattern' in json.dumps(schema, default=str)
        self._validator = kind(schema, registry=REGISTRY)  # with a registry of its own it fetches nothing
        self._count = _Count(self._validator, schema)
        try:
            for probe in (None, dict[str, Any](), list[Any]()):
                self.errors(probe)
        except RecursionError:
            raise ConfigurationError(
                f"JSONSchemaVerifier: schema={schema!r:.200} refers to itself without end; a $ref to a schema that "
                "holds it belongs under properties or items"
            ) from None

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The share of constraints met, and what is wrong in words."""
        if not self.patterned:
            return self.check(candidate.text)
        said = await limited(self.name, {"do": "schema", "schema": self.schema, "text": candidate.text}, self.timeout)
        return Score(value=said["value"], feedback=said["feedback"], details=said["details"])

    def errors(self, value: Any) -> list[str]:
        """What is wrong with a value that was read, in words; a pattern has no time limit here."""
        return [f"{error.json_path}: {error.message:.{_WIDTH}}" for error in self._validator.iter_errors(value)]

    def check(self, text: str) -> Score:
        """The same for a text alone."""
        try:
            value = read_json(text)
        except ValueError as error:
            return Score(value=0.0, feedback=f"no JSON could be read: {error}")
        try:
            errors = list(self._validator.iter_errors(value))
            if not errors:
                return Score(value=1.0)
            met, total = self._count.met(value)
        except RecursionError:
            return Score(value=0.0, feedback="its JSON is nested too deeply")
        # Never 1 with an error: a constraint that the count does not know still counts as missed.
        share = met / total if met < total else total / (total + 1)
        words = [textwrap.shorten(f"{error.json_path}: {error.message}", _WIDTH) for error in errors[:_SHOWN]]
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        return Score(value=share, feedback="; ".join(words) + more, details={"errors": len(errors), "of": total})


class _Count:
    """Counts the constraints of a schema at every place of a value."""

    def __init__(self, validator: Any, schema: Any) -> None:
        from jsonschema_specifications import REGISTRY
        from referencing import Resource
        from referencing.jsonschema import DRAFT202012

        self._validator, self._schema = validator, schema
        resource: Resource[Any] = Resource.from_contents(schema, default_specification=DRAFT202012)
        self._resolver: Any = REGISTRY.resolver_with_root(resource)
        self._check_references(schema, top=True)

    def met(self, value: Any) -> tuple[int, int]:
        """How many constraints are met, and how many there are."""
        return self._met(self._resolver, self._schema, value)

    def _met(self, resolver: Any, schema: Any, value: Any) -> tuple[int, int]:
        if not isinstance(schema, Mapping):
            return 0, 0 if schema else 1
        if "type" in schema and self._breaks("type", schema, value):
            return 0, self._weight(resolver, schema)
        met = total = 0
        for keyword, content in schema.items():
            if keyword == "required" and isinstance(value, dict) and isinstance(content, list):
                parts = [(1, 1) if n in value else (0, self._missing(resolver, schema, n)) for n in content]
            elif (places := self._places(keyword, content, schema, value, resolver)) is not None:
                parts = [self._met(*place) for place in places]
            elif self._counts(keyword) and _applies(keyword, value):
                parts = [(0 if self._breaks(keyword, schema, value) else 1, 1)]
            else:
                continue
            met, total = met + sum(p[0] for p in parts), total + sum(p[1] for p in parts)
        return met, total

    def _places(
        self, keyword: str, content: Any, schema: Mapping[str, Any], value: Any, resolver: Any
    ) -> list[tuple[Any, Any, Any]] | None:
        """What a keyword that is walked into holds for which parts of the value; None for the other keywords."""
        if keyword == "$ref":
            found = resolver.lookup(content)
            return [(found.resolver, found.contents, value)]
        if keyword == "allOf":
            return [(resolver, sub, value) for sub in content]
        if keyword == "properties" and isinstance(value, dict):
            return [(resolver, sub, value[name]) for name, sub in content.items() if name in value]
        if keyword == "prefixItems" and isinstance(value, list):
            return [(resolver, sub, item) for sub, item in zip(content, value, strict=False)]
        if keyword == "items" and isinstance(value, list) and isinstance(content, Mapping):
            return [(resolver, content, item) for item in value[len(schema.get("prefixItems", ())) :]]
        return None

    def _weight(self, resolver: Any, schema: Any, depth: int = 0) -> int:
        """The constraints that a value would have to meet at least; 1 where the schema goes deeper than that."""
        if not isinstance(schema, Mapping) or depth > _DEEP:
            return 0 if schema is True else 1
        total = sum(self._counts(keyword) for keyword in schema)
        total += sum(self._missing(resolver, schema, name, depth) for name in schema.get("required", ()))
        total += sum(self._weight(resolver, sub, depth + 1) for sub in schema.get("allOf", ()))
        if "$ref" in schema:
            found = resolver.lookup(schema["$ref"])
            total += self._weight(found.resolver, found.contents, depth + 1)
        return max(total, 1)

    def _missing(self, resolver: Any, schema: Mapping[str, Any], name: str, depth: int = 0) -> int:
        return 1 + self._weight(resolver, schema.get("properties", {}).get(name, True), depth + 1)

    def _counts(self, keyword: str) -> bool:
        return keyword in self._validator.VALIDATORS and keyword not in _WALKED | _UNCHECKED

    def _breaks(self, keyword: str, schema: Mapping[str, Any], value: Any) -> bool:
        errors = self._validator.VALIDATORS[keyword](self._validator, schema[keyword], value, schema)
        return next(iter(errors or ()), None) is not None

    def _check_references(self, schema: Any, top: bool = False) -> None:
        from referencing.exceptions import Unresolvable

        if isinstance(schema, Mapping):
            if not top and any(isinstance(schema.get(key), str) for key in ("$id", "id")):
                return  # its references start from there
            reference = schema.get("$ref")
            if isinstance(reference, str):
                try:
                    self._resolver.lookup(reference)
                except Unresolvable as error:
                    raise ConfigurationError(
                        f"JSONSchemaVerifier: $ref {reference!r} is not in the schema, and remote ones are not "
                        "fetched; put it under $defs"
                    ) from error
        if isinstance(schema, Mapping | list):
            for key, sub in schema.items() if isinstance(schema, Mapping) else enumerate(schema):
                if key not in ("enum", "const", "default", "examples"):
                    self._check_references(sub)


def _applies(keyword: str, value: Any) -> bool:
    kinds = [kind for kind, keywords in _APPLIES.items() if keyword in keywords]
    return not kinds or (isinstance(value, kinds[0]) and not (kinds[0] == (int, float) and isinstance(value, bool)))
