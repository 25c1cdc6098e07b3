"""What a solve may take, before it takes it; many problems from synchronous code; a result as JSON and in one line."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pydantic
import pytest

from tts_plugins import BestOfN, Budget, Generation, SelfConsistency, dry_run, solve_many_sync, solve_sync
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.verifiers import CallableVerifier, LLMJudge


def test_nothing_is_sent_and_the_figures_are_those_of_the_bounds() -> None:
    with LoopbackServer() as server:
        model = OpenAICompatibleModel("m", base_url=server.base_url, max_tokens=100, price=(1.0, 2.0))
        found = dry_run("x" * 40, model=model, strategy=BestOfN(n=4), verifier=CallableVerifier(lambda p, c: 1.0))
        judged = dry_run("x" * 40, model=model, verifier=LLMJudge(model))
        assert not server.requests
    assert found.costs["minimum"].calls == found.costs["worst_case"].calls == 4
    assert found.costs["worst_case"].completion_tokens == 400
    assert found.costs["worst_case"].usd is not None and found.costs["worst_case"].usd > 4 * 100 * 2e-6
    assert judged.costs["worst_case"].calls == 8 * 3  # a verdict may be asked for once more
    assert json.loads(json.dumps(found.to_dict()))["strategy"] == "BestOfN(n=4, select='best')"


def test_room_is_how_many_candidates_surely_fit() -> None:
    model = ScriptedModel(["a"], max_tokens=10)
    found = dry_run("?", model=model, strategy=SelfConsistency(n=8), budget=Budget(tokens=50))
    assert found.room == 3 and any("room for 3 of 8" in note for note in found.notes)
    result = solve_sync("?", model=model, strategy=SelfConsistency(n=8), budget=Budget(tokens=50))
    assert len(result.candidates) >= 3
    with pytest.raises(ConfigurationError, match="cannot hold"):
        dry_run("?", model=ScriptedModel(["a"], max_tokens=None), budget=Budget(tokens=50))


def test_the_worst_case_has_an_escalation_at_its_own_bounds() -> None:
    small, large = ScriptedModel(["a"], max_tokens=10), ScriptedModel(["b"], max_tokens=100, name="large")
    options: Any = {"model": small, "strategy": SelfConsistency(n=2), "abstain_below": 0.9, "on_abstain": "escalate"}
    alone = dry_run("?", model=small, strategy=SelfConsistency(n=2)).costs
    for escalate, calls, completion in ((large, 3, 120), (SelfConsistency(n=4), 6, 60)):
        found = dry_run("?", **options, escalate=escalate)
        worst = found.costs["worst_case"]
        assert (worst.calls, worst.completion_tokens, found.costs["expected"]) == (calls, completion, alone["expected"])
        assert "escalation" in found.notes[-1]
    with pytest.raises(ConfigurationError, match="large: max_tokens"):  # as in the solve
        unbounded = ScriptedModel(["b"], max_tokens=None, name="large")
        dry_run("?", **options, escalate=unbounded, budget=Budget(tokens=500))


def test_a_local_model_is_not_started() -> None:
    model = LocalModel("nowhere.gguf", max_tokens=10)
    assert dry_run("?", model=model).costs["expected"].usd == 0.0


async def test_inside_a_running_loop() -> None:
    assert dry_run("?", model=ScriptedModel(["a"])).costs["minimum"].calls == 8
    results = solve_many_sync(["?", "!"], model=ScriptedModel(["a"]), strategy=SelfConsistency(n=1))
    assert [r.text for r in results] == ["a", "a"]
    await asyncio.sleep(0)


def test_a_result_in_one_line_and_as_json() -> None:
    result = solve_sync("?", model=ScriptedModel(["Answer: 391"]), strategy=SelfConsistency(n=2), seed=1)
    assert repr(result) == (
        "Result(answer='391', text='Answer: 391', confidence=1.0, 2 candidates, 30 tokens, stopped='complete')"
    )
    said = json.loads(json.dumps(result.to_dict()))
    assert said["answer"] == "391" and len(said["candidates"]) == 2 and said["usage"]["tokens"] == 30


def holding_itself() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["self"] = made
    return made


class Row(pydantic.BaseModel):
    tool_calls: Any = None


@pytest.mark.parametrize(
    "output",
    [
        {"bytes": b"\xff", "keys": {1: {2, 3}}, "nan": float("nan"), "\ud800": "\ud800", "row": Row()},
        holding_itself(), Row(tool_calls=object()), Row(tool_calls=[b"\xff"]), b"x", float("inf"), (1, 2), object(),
        Decimal("NaN"), range(3),
    ],
)  # fmt: skip
def test_any_output_as_json(output: Any) -> None:
    model = ScriptedModel([Generation(text="said", output=output)])
    result = solve_sync("Q?", model=model, strategy=BestOfN(n=1), verifier=lambda candidate: 1.0)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False).encode())["text"] == "said"


def test_hostile_text_in_one_line() -> None:
    model = ScriptedModel(["Answer: \x1b]0;x\x07\u202e" + "9" * 100_000])
    result = solve_sync("Q?", model=model, strategy=BestOfN(n=1), verifier=lambda candidate: 1.0)
    assert len(repr(result)) < 400 and repr(result).isprintable()


@pytest.mark.parametrize("problems", ["What is 2 + 2?", b"x", {"content": "x"}, None, 5])
def test_one_problem_is_not_taken_for_many(problems: Any) -> None:
    with pytest.raises(ConfigurationError, match="solve_many: problems="):
        solve_many_sync(problems, model=ScriptedModel(["4"]))
