from __future__ import annotations

import copy
import functools
import json
import math
import threading
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins.answers import read_json
from tts_plugins.budget import FREE
from tts_plugins.errors import ConfigurationError, InvalidScore
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers import AnswerAgreement, CallableVerifier, JSONSchemaVerifier
from tts_plugins.verifiers.callable import as_score

PROBLEM = Problem("x")
RUN: Any = None  # none of these verifiers calls a model


def candidate(text: str = "t", answer: str | None = None) -> Candidate:
    return Candidate(PROBLEM, text=text, answer=answer)


# CallableVerifier


@pytest.mark.parametrize(
    ("result", "score"),
    [
        (True, Score(value=1.0)),
        (False, Score(value=0.0)),
        (0.25, Score(value=0.25)),
        (1, Score(value=1.0)),
        (Decimal("0.5"), Score(value=0.5)),
        (np.float32(0.5), Score(value=0.5)),
        (np.bool_(True), Score(value=1.0)),
        ((0.5, "half"), Score(value=0.5, feedback="half")),
        ((0.5, None), Score(value=0.5)),
        ((False, "no"), Score(value=0.0, feedback="no")),
        (([0.1, 0.7], "steps"), Score(value=0.7, steps=(0.1, 0.7), feedback="steps")),
        ([0.2, 0.8], Score(value=0.8, steps=(0.2, 0.8))),
        ((0.2, 0.8), Score(value=0.8, steps=(0.2, 0.8))),
        ([True, False], Score(value=0.0, steps=(1.0, 0.0))),
        (np.array([0.25, 0.5]), Score(value=0.5, steps=(0.25, 0.5))),
        (Score(value=0.3, details={"a": 1}), Score(value=0.3, details={"a": 1})),
        ((Score(value=0.3, details={"a": 1}), "why"), Score(value=0.3, feedback="why", details={"a": 1})),
    ],
)
async def test_the_forms_of_a_score(result: Any, score: Score) -> None:
    assert await CallableVerifier(lambda p, c: result).score(RUN, candidate()) == score


@pytest.mark.parametrize(
    "result",
    [None, "0.5", b"1", [], {}, {"score": 1}, [0.5, None], [0.5, "x"], ("why", 0.5), (0.5, b"w"), object(), 1j],
)
async def test_what_is_no_score_is_an_error_that_says_what_to_return(result: Any) -> None:
    with pytest.raises(InvalidScore, match=r"judge returned .*return a bool, a number from 0 to 1"):
        await CallableVerifier(lambda p, c: result, name="judge").score(RUN, candidate())


async def test_what_was_returned_is_shown_as_it_is() -> None:
    for result, shown in (
        ("0.5", r"judge returned '0\.5' \(str\)"),
        ((0.5, b"w"), r"judge returned \(0\.5, b'w'\) \(tuple\)"),
    ):
        with pytest.raises(InvalidScore, match=shown):
            await CallableVerifier(lambda p, c, result=result: result, name="judge").score(RUN, candidate())


async def test_a_function_of_one_argument_gets_the_output_or_else_the_text() -> None:
    def long(output: Any) -> float:
        return len(output) / 10

    assert (await CallableVerifier(long).score(RUN, candidate())).value == 0.1, "the text, t"
    assert (await CallableVerifier(long).score(RUN, candidate().replace(output=[1, 2, 3]))).value == 0.3

    async def along(output: Any, worth: float = 0.5) -> float:
        return worth

    assert (await CallableVerifier(along, inline=True).score(RUN, candidate())).value == 0.5


@pytest.mark.parametrize(
    "function",
    [lambda: 1.0, lambda a, b, c: 1.0, lambda a, b, *, strict: 1.0, lambda a, *, strict: 1.0],
)
def test_a_function_that_cannot_be_called_so_is_refused_at_once(function: Any) -> None:
    CallableVerifier(max)  # nobody can read its signature
    with pytest.raises(ConfigurationError, match=r"verifier <lambda>\(.*\): it must take \(problem, candidate\)"):
        CallableVerifier(function)


async def test_asynchronous_functions_objects_and_partials() -> None:
    async def check(problem: Problem, c: Candidate, worth: float = 0.5) -> float:
        assert (problem, c.text) == (PROBLEM, "t")
        return worth

    class Checks:
        async def __call__(self, problem: Problem, c: Candidate) -> bool:
            return True

    assert (await CallableVerifier(check).score(RUN, candidate())).value == 0.5
    assert (await CallableVerifier(functools.partial(check, worth=0.1)).score(RUN, candidate())).value == 0.1
    assert (await CallableVerifier(Checks()).score(RUN, candidate())).value == 1.0
    assert (await CallableVerifier(lambda p, c: check(p, c)).score(RUN, candidate())).value == 0.5
    assert (await CallableVerifier(check, inline=True).score(RUN, candidate())).value == 0.5  # regression: not awaited
    assert [CallableVerifier(f).name for f in (check, Checks())] == ["check", "Checks"]


async def test_a_synchronous_function_runs_off_the_loop_unless_inline() -> None:
    where: list[int] = []

    def check(problem: Problem, c: Candidate) -> bool:
        where.append(threading.get_ident())
        return True

    await CallableVerifier(check).score(RUN, candidate())
    await CallableVerifier(check, inline=True).score(RUN, candidate())
    assert where[0] != threading.get_ident() == where[1]


async def test_what_the_function_raises_comes_out() -> None:
    def check(problem: Problem, c: Candidate) -> bool:
        raise KeyError("row")

    with pytest.raises(KeyError, match="row"):
        await CallableVerifier(check).score(RUN, candidate())


async def test_step_scores_are_aggregated_as_told() -> None:
    assert (await CallableVerifier(lambda p, c: [0.5, 0.25], aggregate="min").score(RUN, candidate())).value == 0.25
    assert as_score([0.5, 0.5], "w", "prod").value == 0.25


async def test_a_callable_verifier_is_free_and_checked_at_construction() -> None:
    assert await CallableVerifier(lambda p, c: True).bound(PROBLEM, 5) == FREE
    with pytest.raises(ConfigurationError, match=r"function=0\.5 cannot be called"):
        CallableVerifier(0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="aggregate='median' is not known; use one of 'last'"):
        CallableVerifier(lambda p, c: True, aggregate="median")  # type: ignore[arg-type]


# AnswerAgreement


async def test_agreement_is_the_share_of_all_candidates() -> None:
    scores = await AnswerAgreement().score_set(RUN, [candidate(answer=a) for a in ("1", "2", "1", None)])
    assert [s.value for s in scores] == [0.5, 0.25, 0.5, 0.0]
    assert scores[0].feedback == "2 of 4 candidates give this answer" and "no answer" in scores[3].feedback
    assert await AnswerAgreement().score_set(RUN, []) == [] and await AnswerAgreement().bound(PROBLEM, 1) == FREE


# Reading JSON


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (" [1] ", [1]),
        ("5", 5),
        ("null", None),
        ('Sure!\n```json\n{"a": 1}\n```\nBye', {"a": 1}),
        ('```\n{"a": 1}\n```\n```JSON \n{"a": 2}\n```', {"a": 2}),
        ('```json\n{"a": 1}\n```\n```\nnot json\n```', {"a": 1}),
        ('The record is {"a": {"b": [1]}}, as asked.', {"a": {"b": [1]}}),
        ('As [asked], {"a": 1} it is', {"a": 1}),
        ("values: [1, 2] :)", [1, 2]),
    ],
)
def test_read_json(text: str, value: Any) -> None:
    assert read_json(text) == value


@pytest.mark.parametrize(
    "text", ["", "no", '{"a": NaN}', "[Infinity]", '{"a": -Infinity}', "{", "{'a': 1}", "[" * 100_000, "} {", "[1"]
)
def test_what_holds_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        read_json(text)
    score = JSONSchemaVerifier({}).check(text)
    assert score.value == 0.0 and score.feedback.startswith("no JSON could be read: ")


def test_many_open_fences_take_no_time() -> None:
    with pytest.raises(ValueError):
        read_json("```" + "\n" * 200_000)
    with pytest.raises(ValueError):
        read_json("```\n{" * 100_000)


# JSONSchemaVerifier

ORDER = {
    "$defs": {
        "money": {"type": "number", "minimum": 0, "multipleOf": 0.5},
        "line": {
            "type": "object",
            "properties": {"sku": {"type": "string", "pattern": "^[A-Z]+$"}, "price": {"$ref": "#/$defs/money"}},
            "required": ["sku", "price"],
            "additionalProperties": False,
        },
    },
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "buyer": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "lines": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/line"}},
        "note": {"type": ["string", "null"], "maxLength": 10},
    },
    "required": ["id", "buyer", "lines"],
}
GOOD = {
    "id": 7, "buyer": {"name": "Ann"}, "note": "soon",
    "lines": [{"sku": "AB", "price": 1.5}, {"sku": "C", "price": 0}],
}  # fmt: skip


NAMED = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "minLength": 2}}}


def check(value: Any, schema: Any = ORDER) -> Score:
    return JSONSchemaVerifier(schema).check(json.dumps(value))


def test_all_constraints_met_is_one() -> None:
    assert check(GOOD) == Score(value=1.0)


@pytest.mark.parametrize(
    ("schema", "value", "met", "total"),
    [
        ({"type": "integer"}, "x", 0, 1),
        ({"type": "integer", "minimum": 3}, 1, 1, 2),
        ({"type": "object", "required": ["a", "b", "c"]}, {"a": 1}, 2, 4),
        ({"type": "object", "required": ["a", "b", "c"]}, 5, 0, 4),  # regression: it was 3 of 4
        (NAMED, {}, 1, 4),
        (NAMED, {"a": "x"}, 3, 4),
        ({"type": "array", "items": {"type": "integer"}}, [1, "x", 2], 3, 4),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, [1, 2], 2, 3),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string", "minLength": 3}}}, "xy", 1, 2),
        ({"$ref": "#/$defs/a", "maxLength": 9, "$defs": {"a": {"minLength": 3}}}, "xy", 1, 2),
        ({"allOf": [{"minimum": 2}, {"maximum": 9}, {"multipleOf": 2}]}, 3, 2, 3),
        ({"anyOf": [{"type": "integer"}, {"minLength": 5}]}, "abc", 0, 1),
        ({"enum": [1, 2]}, 3, 0, 1),
        ({"minLength": 5, "minimum": 5, "minItems": 5}, 3, 0, 1),  # the others do not apply to a number
        ({"minimum": 5}, True, None, None),
        ({"properties": {"a": False}}, {"a": 1}, 0, 1),
        ({"properties": {"a": True, "b": {"type": "string"}}, "additionalProperties": False}, {"a": 1, "b": 2}, 1, 2),
        (False, 1, 0, 1),
    ],
)  # fmt: skip
def test_the_share_of_constraints(schema: Any, value: Any, met: int | None, total: int | None) -> None:
    score = check(value, schema)
    if met is None:
        assert score.value == 1.0
    else:
        assert total is not None and score.value == pytest.approx(met / total)


def test_feedback_names_the_places_and_is_short() -> None:
    bad = copy.deepcopy(GOOD)
    bad["lines"][1]["price"] = -1  # type: ignore[index]
    bad["buyer"] = {}
    score = check(bad)
    assert "$.lines[1].price: -1 is less than the minimum of 0" in score.feedback
    assert "$.buyer: 'name' is a required property" in score.feedback and score.details["errors"] == 2
    many = check([{}] * 9, {"type": "array", "items": {"type": "string"}})
    assert many.feedback.endswith("; and 4 more")
    assert len(check("x" * 10**6, {"type": "integer"}).feedback) < 300


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [p for k, v in inner for p in _places(v, (*path, k))]


@settings(max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(_places(GOOD)), st.booleans()), min_size=1, max_size=6))
def test_each_further_mistake_lowers_the_share(breaks: list[tuple[tuple[Any, ...], bool]]) -> None:
    value, before, broken = copy.deepcopy(GOOD), 1.0, list[tuple[Any, ...]]()
    for path, remove in breaks:
        if any(path[: len(b)] == b or b[: len(path)] == path for b in broken):
            continue  # a part of it is broken already
        holder: Any = value
        for key in path[:-1]:
            holder = holder[key]
        if remove and isinstance(holder, dict) and path != ("note",):  # the note may be left out
            del holder[path[-1]]
        else:
            holder[path[-1]] = 0.25 if isinstance(holder[path[-1]], dict) else {"wrong": "type"}
        broken.append(path)
        score = check(value).value
        assert 0 <= score < before, (path, value)
        before = score


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "buyer", "name", "sku"]), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=80)
@given(json_values)
def test_one_means_valid_and_the_rest_is_below(value: Any) -> None:
    import jsonschema

    for schema in (
        ORDER,
        {"not": {"type": "object"}},
        {"contains": {"type": "integer"}},
        {"oneOf": [{}, {"minimum": 0}]},
    ):
        score = check(value, schema)
        assert 0 <= score.value <= 1 and math.isfinite(score.value)
        assert (score.value == 1.0) == jsonschema.Draft202012Validator(schema).is_valid(value)
        assert bool(score.feedback) == (score.value < 1)


def test_half_a_record_is_worth_more_than_none() -> None:
    values = [5, {}, {"id": "x"}, {"id": 7}, {"id": 7, "buyer": 3}, {"id": 7, "buyer": {}}, {**GOOD, "lines": []}, GOOD]
    shares = [check(v).value for v in values]
    assert shares == sorted(shares) and len(set(shares)) == len(shares)


def test_recursive_schemas() -> None:
    tree = {"type": "object", "required": ["value"], "properties": {"value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#"}}}}  # fmt: skip
    good = {"value": 1, "children": [{"value": 2}, {"value": 3, "children": []}]}
    assert check(good, tree).value == 1.0
    good["children"][0] = {"value": "x"}  # type: ignore[index]
    assert 0.5 < check(good, tree).value < 1.0
    assert check({}, {**tree, "required": ["value", "children"]}).value < 0.5


@pytest.mark.parametrize("schema", [{"type": "strin"}, {"required": "a"}, {"minimum": "3"}])
def test_a_wrong_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"JSONSchemaVerifier: schema at \$"):
        JSONSchemaVerifier(schema)


@pytest.mark.parametrize("schema", [None, "object", 5, ["object"]])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError, match="pass it as a mapping"):
        JSONSchemaVerifier(schema)


@pytest.mark.parametrize("ref", ["#/$defs/absent", "http://127.0.0.1:9/schema.json", "other.json#/x"])
def test_a_reference_to_elsewhere_is_refused_and_not_fetched(ref: str) -> None:
    """Regression: a remote reference was fetched, when the first candidate was scored."""
    for schema in ({"$ref": ref}, {"properties": {"id": {"type": "string"}, "a": {"items": {"$ref": ref}}}}):
        with pytest.raises(ConfigurationError, match="is not in the schema, and remote ones are not fetched"):
            JSONSchemaVerifier(schema)


async def test_the_verifier_itself() -> None:
    verifier = JSONSchemaVerifier(ORDER)
    assert (await verifier.score(RUN, candidate(json.dumps(GOOD)))).value == 1.0
    assert await verifier.bound(PROBLEM, 3) == FREE
