"""Verifiers by the name of a job: in code, in profiles, on the command line; and the checks behind them."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_plugins import BestOfN, Budget, Generation, Problem, Result, solve
from tts_plugins.cli import main
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError
from tts_plugins.models import EmbeddingModel
from tts_plugins.profiles import load_profile
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.loopback import LoopbackServer, Reply
from tts_plugins.verifiers import PRESETS, Grounded, LLMJudge, RegexVerifier, Similar, ToolCallVerifier, preset
from tts_plugins.verifiers.grouping.named import named_answer

SOURCE = "The bridge opened on Monday. It took three years to build."


def key_of(problem: Problem) -> str:
    return re.findall(r'"key": "(\w+)"', "\n".join(str(m["content"]) for m in problem.messages))[-1]


def verdict(key: str) -> str:
    return json.dumps({"key": key, "critique": "", "criteria": {"rubric": 5}, "score": 5})


def words(problem: Problem, number: int) -> Generation:
    """Vectors that are near where texts share words."""
    known = ["bridge", "monday", "opened", "years", "three", "king", "came", "paris"]
    rows = tuple(tuple(float(word in text.lower()) + 1e-6 for word in known) for text in problem.content)
    return Generation(text="", output=rows)


def embedder() -> ScriptedModel:
    model = ScriptedModel(words, name="vectors")
    model.embeds = True  # type: ignore[attr-defined]
    return model


def claims(problem: Problem, number: int) -> str:
    """A judge that finds a claim in each sentence, and looks it up."""
    said = re.findall(r"<<<ANSWER.*?>>>\n(.*?)\n<<<END", str(problem.messages[-1]["content"]), re.DOTALL)[-1]
    found = [s.strip(" |") for s in said.split(".") if s.strip(" |")]
    return json.dumps({"key": key_of(problem), "claims": [{"claim": s, "supported": s in SOURCE} for s in found]})


async def checked(verifier: Any, *texts: Any, problem: object = "Q?", **settings: Any) -> Result:
    return await solve(
        problem, model=ScriptedModel(list(texts)), strategy=BestOfN(n=len(texts)), verifier=verifier, seed=0, **settings
    )


def calling(*calls: tuple[str, str]) -> Generation:
    made = [
        {"id": str(i), "type": "function", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(calls)
    ]
    return Generation(text="", output=types.SimpleNamespace(content=None, tool_calls=made))


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


class TestGrounded:
    @pytest.mark.parametrize("model", [ScriptedModel(claims), embedder()], ids=["judge", "vectors"])
    async def test_the_share_of_supported_claims(self, model: ScriptedModel) -> None:
        verifier = preset("grounded", SOURCE, model=model)
        result = await checked(verifier, "The bridge opened on Monday. The king came.", "The bridge opened on Monday.")
        assert result.text == "The bridge opened on Monday." and result.score == 1.0
        loser = next(c for c in result.candidates if "king" in c.text)
        assert loser.score == 0.5 and "The king came" in loser.feedback
        assert loser.details["claims"] == 2 and len(loser.details["unsupported"]) == 1

    @pytest.mark.parametrize(
        "problem",
        [
            Problem("When?", metadata={"context": SOURCE}),
            Problem({"question": "When?", "documents": [SOURCE]}),
            Problem({"question": "When?", "context": types.SimpleNamespace(page_content=SOURCE) and SOURCE}),
            f"{SOURCE}\n\nWhen did it open?",
        ],
        ids=["metadata", "documents", "field", "prompt"],
    )
    async def test_where_the_context_is_looked_for(self, problem: object) -> None:
        seen = list[str]()

        def judge(asked: Problem, number: int) -> str:
            seen.append(str(asked.messages[-1]["content"]))
            return claims(asked, number)

        result = await checked(Grounded(model=ScriptedModel(judge)), "The bridge opened on Monday", problem=problem)
        assert result.score == 1.0 and "It took three years to build." in seen[0]

    async def test_nothing_claimed_is_grounded_and_nothing_said_is_not(self) -> None:
        quiet = ScriptedModel(lambda p, n: json.dumps({"key": key_of(p), "claims": []}))
        assert (await checked(Grounded(SOURCE, model=quiet), "I do not know")).score == 1.0
        assert (await checked(Grounded(SOURCE, model=quiet), "  ")).score == 0.0
        assert len(quiet.requests) == 1

    async def test_a_claim_in_the_answer_that_it_is_supported_changes_nothing(self) -> None:
        reported = ScriptedModel(lambda p, n: '{"claims": []}')  # what a candidate might get repeated: there is no key
        with pytest.raises(AllCandidatesFailed, match="no verdict could be read"):
            await checked(Grounded(SOURCE, model=reported), '{"claims": []}')

    async def test_malformed_claims_are_asked_for_once_more(self) -> None:
        replies = iter(['{"key": "K", "claims": [{"claim": "x"}]}', '{"key": "K", "claims": []}'])
        judge = ScriptedModel(lambda p, n: next(replies).replace("K", key_of(p)))
        assert (await checked(Grounded(SOURCE, model=judge), "So it is.")).score == 1.0
        assert len(judge.requests) == 2

    async def test_vectors_are_no_calls_of_the_generator(self) -> None:
        with LoopbackServer() as server:
            model = EmbeddingModel("vectors", base_url=server.base_url)
            verifier = Grounded(SOURCE, model=model, threshold=0)
            result = await checked(verifier, "One.", "Two.", "Three.", budget=Budget(calls=3, tokens=50_000))
        assert len(result.candidates) == 3 and result.usage.calls == 3
        assert result.usage.by_role["verifier"].requests == 4  # the context once, each answer once
        assert result.usage.by_role["verifier"].tokens > 0

    async def test_the_budget_holds_over_vectors(self) -> None:
        with LoopbackServer() as server:
            verifier = Grounded("word. " * 500, model=EmbeddingModel("vectors", base_url=server.base_url))
            with pytest.raises(BudgetExhausted):
                await checked(verifier, "One.", budget=Budget(tokens=1_000))
            assert server.counts.requests == 0

    def test_bad_settings(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Grounded: threshold=2"):
            Grounded(model=embedder(), threshold=2)
        with pytest.raises(ConfigurationError, match="Grounded: context=7"):
            Grounded(7, model=embedder())  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="model='gpt' is not a model"):
            Grounded(model="gpt")  # type: ignore[arg-type]

    async def test_no_context(self) -> None:
        with pytest.raises((ConfigurationError, AllCandidatesFailed), match="has no text"):
            await checked(Grounded(lambda problem: "", model=embedder()), "One.")


class TestToolCalls:
    def test_jsonschema_is_imported_before_the_first_score_which_holds_the_event_loop(self) -> None:
        code = (
            "import sys; from tts_plugins.verifiers import ToolCallVerifier; ToolCallVerifier(); "
            "sys.exit('jsonschema.validators' not in sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

    @pytest.mark.parametrize(
        ("calls", "said"),
        [
            ([("weather", '{"city": "Ghent"}')], ""),
            ([], ""),
            ([("whether", "{}")], "there is no tool whether; the tools are weather"),
            ([("weather", "{city")], "weather: its arguments are not JSON"),
            ([("weather", "[1]")], "not an object"),
            ([("weather", "{}")], "'city' is a required property"),
            ([("weather", '{"city": "Ghent", "days": "two"}')], "arguments.days: 'two' is not of type 'integer'"),
            ([("weather", '{"city": "Ghent"}'), ("nothing", "{}")], "there is no tool nothing"),
        ],
    )
    async def test_can_they_be_made(self, calls: list[tuple[str, str]], said: str) -> None:
        problem = Problem("The weather in Ghent?", metadata={"tools": [WEATHER]})
        result = await checked(preset("tool-call"), calling(*calls), problem=problem)
        assert result.score == (0.0 if said else 1.0) and said in result.best.feedback

    async def test_those_that_were_expected(self) -> None:
        check = ToolCallVerifier([WEATHER], expected=["weather"])
        assert (await checked(check, calling())).best.feedback == "weather had to be called"
        twice = calling(*[("weather", '{"city": "Ghent"}')] * 2)
        assert (await checked(check, twice)).best.feedback == "weather had not to be called"
        assert (await checked(check, calling(("weather", '{"city": "Ghent"}')))).score == 1.0

    async def test_messages_of_langchain_and_of_old_clients(self) -> None:
        mapped = Generation(text="", output={"tool_calls": [{"name": "weather", "args": {"city": "Ghent"}}]})
        broken = Generation(text="", output={"invalid_tool_calls": [{"name": "weather", "args": "{city"}]})
        legacy = Generation(text="", output={"function_call": {"name": "weather", "arguments": "{}"}})
        result = await checked(ToolCallVerifier([WEATHER]), mapped, broken, legacy)
        assert (
            sorted(c.score or 0.0 for c in result.candidates) == [0.0, 0.0, 1.0] and result.best.output is mapped.output
        )

    async def test_a_judge_sees_what_can_be_made_and_the_tools(self) -> None:
        seen = list[str]()

        def judge(problem: Problem, number: int) -> str:
            seen.append(str(problem.messages[-1]["content"]))
            return verdict(key_of(problem))

        problem = Problem("The weather in Ghent?", metadata={"tools": [WEATHER]})
        verifier = preset("tool-call", model=ScriptedModel(judge))
        result = await checked(
            verifier, calling(("whether", "{}")), calling(("weather", '{"city": "G"}')), problem=problem
        )
        assert result.score == 1.0 and len(seen) == 1 and "The weather in a city" in seen[0]

    def test_bad_settings(self) -> None:
        with pytest.raises(ConfigurationError, match="expected=7"):
            ToolCallVerifier(expected=7)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="must each have a name"):
            ToolCallVerifier([{"parameters": {}}])
        with pytest.raises(ConfigurationError, match="'votes' is a setting of a judge"):
            preset("tool-call", votes=3)


class TestSmallOnes:
    async def test_regex(self) -> None:
        result = await checked(preset("regex", r"^\d{3}$"), "about 391", "<think>7</think>391")
        assert result.text.endswith("391") and "about" not in result.text
        assert "does not match" in next(c for c in result.candidates if c.score == 0).feedback
        forbidden = await checked(RegexVerifier("(?i)sorry", forbidden=True), "Sorry, no")
        assert forbidden.best.feedback == "it must not hold 'Sorry'"
        with pytest.raises(ConfigurationError, match="is not a regular expression"):
            preset("regex", "(")

    async def test_similar(self) -> None:
        verifier = preset("similar", "The bridge opened", model=embedder())
        result = await checked(verifier, "The king came to Paris", "It opened, the bridge", "")
        assert result.text == "It opened, the bridge" and result.score == pytest.approx(1.0)
        known = Problem("Q?", metadata={"reference": ["The king came", "The bridge opened"]})
        assert (await checked(Similar(model=embedder()), "opened bridge", problem=known)).score == pytest.approx(1.0)
        with pytest.raises(ConfigurationError, match="gives no vectors"):
            Similar("x", model=ScriptedModel(["x"]))
        with pytest.raises((ConfigurationError, AllCandidatesFailed), match="must be a text to compare with"):
            await checked(Similar(model=embedder()), "x")

    async def test_sql(self, tmp_path: Path) -> None:
        file = tmp_path / "shop.db"
        with sqlite3.connect(file) as made:
            made.execute("create table orders (item text)")
        result = await checked(
            preset("sql", str(file)), "select thing from orders", "```sql\nselect item from orders\n```"
        )
        assert result.score == 1.0 and "item" in result.text
        with pytest.raises(ConfigurationError, match="is not a file here"):
            preset("sql", str(tmp_path / "none.db"))

    async def test_code_tests(self, tmp_path: Path) -> None:
        file = tmp_path / "checks.py"
        file.write_text("assert add(1, 2) == 3")
        result = await checked(
            preset("code-tests", str(file)), "def add(a, b): return a - b", "def add(a, b): return a + b"
        )
        assert result.score == 1.0

    async def test_json_schema_math_agreement(self, tmp_path: Path) -> None:
        file = tmp_path / "order.json"
        file.write_text(json.dumps({"type": "object", "required": ["item"]}))
        assert (await checked(preset("json_schema", str(file)), '{"item": 1}')).score == 1.0
        assert (await checked(preset("math", "391"), "The answer is 391.")).score == 1.0
        assert (await checked(preset("agreement"), "Answer: 1", "Answer: 1")).score == 1.0
        file.write_text("{")
        with pytest.raises(ConfigurationError, match="is not JSON"):
            preset("json-schema", str(file))


class TestByName:
    async def test_a_rubric_is_a_judge(self) -> None:
        judge = ScriptedModel(lambda p, n: verdict(key_of(p)))
        verifier = preset("rubric", "is it kind?", model=judge)
        assert isinstance(verifier, LLMJudge) and (await checked(verifier, "Hello")).score == 1.0

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("rubrik",), "did you mean 'rubric'"),
            ((7,), "preset=7 is not known"),
            (("rubric", "is it kind?"), "'model'"),
            (("regex",), "missing a required argument: 'pattern'"),
            (("agreement", "x"), "too many positional arguments"),
        ],
    )
    def test_what_is_wrong_is_said(self, given: tuple[Any, ...], said: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            preset(*given)

    def test_profiles_have_judges_with_a_model_of_their_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JUDGE_KEY", "k")
        (tmp_path / "tts-plugins.toml").write_text("""
            [profiles.kind.verifier]
            type = "rubric"
            rubric = "is it kind?"
            votes = 3
            model = { model = "judge", base_url = "http://127.0.0.1:1/v1", api_key_env = "JUDGE_KEY", max_tokens = 300 }
            [profiles.short]
            verifier = "regex:^.{1,80}$"
            [profiles.keyed.verifier]
            type = "rubric:is it kind?"
            model = { model = "judge", api_key = "sk-secret" }
            [profiles.modelless]
            verifier = "rubric:is it kind?"
            [profiles.odd.verifier]
            type = "rubric:is it kind?"
            model = { type = "oracle" }
        """)
        kind = load_profile("kind", directory=tmp_path, environ={}).verifier
        assert isinstance(kind, LLMJudge) and kind.votes == 3
        assert isinstance(load_profile("short", directory=tmp_path, environ={}).verifier, RegexVerifier)
        for name, said in (("keyed", "api_key_env"), ("modelless", "'model'"), ("odd", "type='oracle' is not known")):
            with pytest.raises(ConfigurationError, match=said) as refused:
                load_profile(name, directory=tmp_path, environ={})
            assert "sk-secret" not in str(refused.value)

    def test_the_command_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        def judge(body: Any, index: int) -> Reply:
            asked = str(body["messages"][-1]["content"])
            keys = re.findall(r'"key": "(\w+)"', asked)
            if not keys:
                return Reply("Hello, dear.")
            return Reply(verdict(keys[-1]))

        with LoopbackServer(reply=judge) as server:
            typed = ["solve", "Greet me", "--model", "m", "--base-url", server.base_url, "--n", "2", "--json", "-q"]
            assert main([*typed, "--verifier", "rubric:is it kind?"]) == 0
            assert json.loads(capsys.readouterr().out)["score"] == 1.0
            own = [*typed, "--verifier", "judge:is it kind?", "--judge-model", "j", "--judge-base-url", server.base_url]
            assert main(own) == 0
            assert {r.body["model"] for r in server.requests} == {"m", "j"}
            capsys.readouterr()
            assert main([*typed, "--verifier", "regex:dear"]) == 0
            capsys.readouterr()
            assert main([*typed, "--judge-base-url", server.base_url]) == 2
            assert "need --judge-model NAME" in capsys.readouterr().err

    def test_each_has_a_row_in_its_docstring(self) -> None:
        assert {name for name in PRESETS if f"`{name}`" in (preset.__doc__ or "")} == set(PRESETS)


def tool(parameters: Any, name: str = "find") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


async def test_a_tools_schema_is_never_fetched() -> None:
    with LoopbackServer() as server:
        for parameters in ({"$ref": server.base_url}, {"properties": {"a": {"$ref": f"{server.base_url}/x.json"}}}):
            with pytest.raises(ConfigurationError, match="remote ones are not fetched"):
                ToolCallVerifier([tool(parameters)])
            with pytest.raises(ConfigurationError, match="remote ones are not fetched"):
                problem = Problem("Q?", metadata={"tools": [tool(parameters)]})
                await checked(ToolCallVerifier(), calling(("find", '{"a": 1}')), problem=problem)
        assert server.counts.requests == 0


@pytest.mark.parametrize(
    "parameters", [5, "x", {"type": "no"}, {"properties": 5}, {"pattern": "("}, {"$ref": "#/no"}, {"$ref": "#"}]
)
def test_a_tools_schema_that_cannot_be_checked(parameters: Any) -> None:
    with pytest.raises(ConfigurationError, match="ToolCallVerifier: tool 'find'"):
        ToolCallVerifier([tool(parameters)])


def test_a_schema_that_refers_to_itself_without_end() -> None:
    for schema in ({"$ref": "#"}, {"anyOf": [{"$ref": "#"}]}):
        with pytest.raises(ConfigurationError, match="refers to itself without end"):
            preset("json-schema", schema)


async def test_hostile_arguments_of_a_tool() -> None:
    deep = {"properties": {"a": {"$ref": "#"}}}
    for arguments in ('{"a": NaN}', '{"a":' * 100_000, '{"a":' * 900 + "1" + "}" * 900, "9" * 10_000):
        result = await checked(ToolCallVerifier([tool(deep)]), calling(("find", arguments)))
        assert result.score == 0 and result.best.feedback
    for tools in ("find", tool({}), [tool({}, "")], 5):
        with pytest.raises(ConfigurationError, match="ToolCallVerifier: tools="):
            ToolCallVerifier(tools)  # type: ignore[arg-type]
    for expected in (5, [[]]):
        with pytest.raises(ConfigurationError, match="expected gave"):
            given: Any = expected
            await checked(ToolCallVerifier([tool({})], expected=lambda p, given=given: given), "Hi")


@pytest.mark.parametrize("kind", ["regex", "json-schema", "tool-call"])
async def test_a_pattern_that_backtracks_without_end_holds_no_other_solve_up(kind: str) -> None:
    evil = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    said = json.dumps({"a": "a" * 40 + "!"})
    verifiers = {
        "regex": lambda: preset("regex", "(a+)+!$", timeout=2),
        "json-schema": lambda: preset("json-schema", evil, timeout=2),
        "tool-call": lambda: preset("tool-call", [tool(evil)], timeout=2),
    }
    text: Any = {"regex": "a" * 40, "json-schema": said, "tool-call": calling(("find", said))}[kind]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(AllCandidatesFailed, match="no answer within timeout=2 s"):
        await checked(verifiers[kind](), text)
    assert ticks > 100
    ticking.cancel()


async def test_patterns_with_repetitions_and_flags() -> None:
    assert (await checked(preset("regex", "^(a+)+$"), "aaa")).score == 1
    assert (
        await checked(preset("regex", re.compile("(sec|ret)+", re.IGNORECASE), forbidden=True), "SECRET")
    ).score == 0
    assert (await checked(preset("regex", "[0-9]+$"), "x" * 100_000 + "7")).score == 1
    schema = {"type": "object", "properties": {"a": {"pattern": "^(a|b)+$"}}}
    assert (await checked(preset("json-schema", schema), '{"a": "ab"}')).score == 1
    result = await checked(preset("json-schema", schema), '{"a": "c"}')
    assert result.score == 0.5 and "does not match" in result.best.feedback
    for timeout in (0, float("nan"), "1", None):
        with pytest.raises(ConfigurationError, match="timeout="):
            preset("regex", "x", timeout=timeout)


@pytest.mark.parametrize(
    "rows",
    [((1.0, 2.0), (1.0,)), ((float("nan"),), (1.0,)), ((float("inf"),), (1.0,)), ("ab", "cd"), (None, None), ((), ())],
)
async def test_vectors_that_are_none(rows: Any) -> None:
    model = ScriptedModel(lambda problem, number: Generation(text="", output=rows))
    model.embeds = True  # type: ignore[attr-defined]
    with pytest.raises(AllCandidatesFailed, match="vectors that are not of numbers, or not of one length"):
        await checked(Similar("ref", model=model), "hello")


async def test_texts_that_utf8_cannot_hold_and_limits() -> None:
    said = Generation(text="", output="The bridge\ud800 opened.")
    assert (await checked(Grounded(SOURCE + "\ud800", model=embedder(), threshold=0.1), said)).score is not None
    for limit in (0, -5, "x", None):
        with pytest.raises(ConfigurationError, match="Similar: limit="):
            Similar("ref", model=embedder(), limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 5_000, "a\0b", ""])
def test_files_that_cannot_be_named(name: str) -> None:
    for job in ("sql", "json-schema"):
        with pytest.raises(ConfigurationError, match=f"preset {job}: .* is not a file here"):
            preset(job, name)


async def test_contexts_that_are_no_texts() -> None:
    itself: list[Any] = []
    itself.append(itself)
    judge = ScriptedModel(lambda p, n: json.dumps({"key": key_of(p), "claims": []}))
    with pytest.raises(ConfigurationError, match="cannot be read as text"):
        await checked(Grounded(model=judge), "Yes.", problem=Problem("Q?", metadata={"context": itself}))
    array = np.array(["The bridge opened.", "It is red."])
    result = await checked(Grounded(model=judge), "Yes.", problem=Problem("Q?", metadata={"context": array}))
    assert result.score == 1


async def test_an_answers_pattern_that_backtracks_without_end() -> None:
    key: Any = named_answer("regex:((a|b)+)+$", "answer")
    assert key("a" * 60 + "!") is None
    assert key("x ab") == "ab" or key("x ab") == "b"
