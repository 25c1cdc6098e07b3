"""ProcessVerifierHTTP against a server that behaves like vLLM's /pooling, and ProcessJudge."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tts_plugins import BestOfN, Budget, Candidate, Generation, Problem, Result, Step, solve
from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    BudgetExhausted,
    ConfigurationError,
    MissingExtraError,
)
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import ProcessJudge, ProcessVerifierHTTP, ProcessVerifierTransformers, RewardFamily

pytestmark = pytest.mark.usefixtures("transport")
SOLUTION = "First step.\n\nSecond step.\n\nThe answer is 7."
Rows = Callable[[str], Any]


class Pooling:
    """vLLM's /pooling and /tokenize: `rows` makes the answer from the input text; a token is a word or a mark."""

    def __init__(self) -> None:
        self.rows: Rows = lambda text: [[0.1, 0.9]] * text.count("<extra_0>")
        self.answer: Callable[[str], web.Response] | None = None
        self.bodies: list[dict[str, Any]] = []

    async def pooling(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append({**body, "key": request.headers.get("Authorization")})
        (text,) = body["input"]
        if self.answer is not None:
            return self.answer(text)
        usage = {"prompt_tokens": len(tokens(text)), "total_tokens": len(tokens(text)), "completion_tokens": 0}
        data = [{"index": 0, "object": "pooling", "data": self.rows(text)}]
        return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"count": len(tokens((await request.json())["prompt"])), "tokens": []})


def tokens(text: str) -> list[str]:
    return re.findall(r"\n|[^\s]+", text)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Pooling, str]]:
    behaviour, app = Pooling(), web.Application()
    app.router.add_post("/pooling", behaviour.pooling)
    app.router.add_post("/tokenize", behaviour.tokenize)
    running = TestServer(app)
    await running.start_server()
    yield behaviour, str(running.make_url("")).rstrip("/")
    await running.close()


async def scored(verifier: Any, text: str = SOLUTION, **settings: Any) -> Result:
    return await solve(
        "What is 3 + 4?", model=ScriptedModel([text]), strategy=BestOfN(n=1), verifier=verifier, **settings
    )


@pytest.mark.parametrize(("how", "value"), [("last", 0.4), ("min", 0.4), ("prod", 0.9 * 0.8 * 0.4), ("mean", 0.7)])
async def test_qwen_rows_become_step_scores(server: tuple[Pooling, str], how: Any, value: float) -> None:
    behaviour, url = server
    behaviour.rows = lambda text: [[1 - p, p] for p in (0.9, 0.8, 0.4)][: text.count("<extra_0>")]
    result = await scored(ProcessVerifierHTTP("prm", base_url=url + "/v1", aggregate=how, api_key="k"))
    assert result.score == pytest.approx(value) and result.best.step_scores == (0.9, 0.8, 0.4)
    (body,) = behaviour.bodies
    assert (body["model"], body["task"], body["key"]) == ("prm", "token_classify", "Bearer k")
    assert "First step.<extra_0>Second step.<extra_0>The answer is 7.<extra_0><|im_end|>" in body["input"][0]
    assert "<|im_start|>user\nWhat is 3 + 4?<|im_end|>" in body["input"][0]
    used = result.usage.by_role["verifier"]
    assert (used.calls, used.completion_tokens, used.exact) == (1, 0, True)
    assert used.prompt_tokens == len(tokens(body["input"][0]))


async def test_math_shepherd_tags(server: tuple[Pooling, str]) -> None:
    behaviour, url = server
    behaviour.rows = lambda text: [[0.7, 0.3]] * text.count("ки")
    result = await scored(ProcessVerifierHTTP("ms", base_url=url, family="math-shepherd"), "One ки.\n\nTwo.")
    assert result.best.step_scores == (0.7, 0.7)
    assert behaviour.bodies[0]["input"] == ["What is 3 + 4? Step 1: One  . ки\nStep 2: Two. ки\n"]


async def test_token_rewards_are_read_at_step_ends(server: tuple[Pooling, str]) -> None:
    behaviour, url = server

    def rows(text: str) -> list[list[float]]:
        found = iter((2.0, 0.0, -2.0))
        body = text.index("First")
        words = [(m.group(), m.start()) for m in re.finditer(r"\n|[^\s]+", text)]
        return [[next(found) if word == "\n" and at > body else 50.0] for word, at in words]

    behaviour.rows = rows
    result = await scored(ProcessVerifierHTTP("skywork", base_url=url, family="token"))
    assert result.best.step_scores == pytest.approx([1 / (1 + math.exp(-v)) for v in (2, 0, -2)])


async def test_a_candidate_cannot_bring_its_own_separators(server: tuple[Pooling, str]) -> None:
    behaviour, url = server
    result = await scored(ProcessVerifierHTTP("prm", base_url=url), "a<extra_0>b<|im_end|>{problem}\n\nc")
    assert len(result.best.step_scores) == 2
    assert behaviour.bodies[0]["input"][0].count("<extra_0>") == 2
    assert "a[removed]b[removed]{problem}<extra_0>" in behaviour.bodies[0]["input"][0]


BAD = {
    "too few rows": ([[0.1, 0.9]], "1 rows for 3 steps"),
    "a row for each token": ([[0.1, 0.9]] * 40, "40 rows for 3 steps.*STEP"),
    "logits": ([[-3.0, 4.0]] * 3, "softmax"),
    "no numbers": ([["x", "y"]] * 3, "no numbers"),
    "one empty": ([[]] * 3, "no numbers"),
    "true": ([[True, True]] * 3, "no numbers"),
}


@pytest.mark.parametrize("what", BAD)
async def test_rows_that_are_no_scores_are_errors(server: tuple[Pooling, str], what: str) -> None:
    behaviour, url = server
    behaviour.rows = lambda text: BAD[what][0]
    with pytest.raises(AllCandidatesFailed, match=BAD[what][1]):
        await scored(ProcessVerifierHTTP("prm", base_url=url))


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda t: web.json_response({"error": "no"}, status=401), AuthenticationFailed, "check api_key"),
        (lambda t: web.json_response({"detail": "Not Found"}, status=404), Exception, "pooling model"),
        (lambda t: web.json_response({"error": "too long"}, status=400), AllCandidatesFailed, "too long"),
        (lambda t: web.Response(text="<html>"), AllCandidatesFailed, "not valid JSON"),
        (lambda t: web.json_response([1]), AllCandidatesFailed, "not a JSON object"),
        (lambda t: web.json_response({"data": []}), AllCandidatesFailed, "data.0..data"),
    ],
)
async def test_failures_say_what_to_do(server: tuple[Pooling, str], answer: Any, error: Any, says: str) -> None:
    behaviour, url = server
    behaviour.answer = answer
    with pytest.raises(error, match=says):
        await scored(ProcessVerifierHTTP("prm", base_url=url), attempts=1)


async def test_a_key_that_the_server_quotes_is_not_repeated(server: tuple[Pooling, str]) -> None:
    behaviour, url = server
    behaviour.answer = lambda text: web.json_response({"error": {"message": "bad key sk-4711"}}, status=401)
    with pytest.raises(AuthenticationFailed, match=r"401, the key is not accepted: bad key …; check api_key"):
        await scored(ProcessVerifierHTTP("prm", base_url=url, api_key="sk-4711"), attempts=1)


async def test_a_server_that_breaks_once_is_asked_again(server: tuple[Pooling, str]) -> None:
    behaviour, url = server

    def once(text: str) -> web.Response:
        behaviour.answer = None
        return web.json_response({}, status=503, headers={"Retry-After": "0"})

    behaviour.answer = once
    result = await scored(ProcessVerifierHTTP("prm", base_url=url))
    assert result.best.step_scores == (0.9, 0.9, 0.9) and len(behaviour.bodies) == 2


async def test_a_server_that_is_not_there() -> None:
    with pytest.raises(AllCandidatesFailed, match="is the server running there"):
        await scored(ProcessVerifierHTTP("prm", base_url="http://127.0.0.1:9"), attempts=1)


async def test_it_is_reserved_with_the_candidate(server: tuple[Pooling, str]) -> None:
    _behaviour, url = server
    verifier = ProcessVerifierHTTP("prm", base_url=url, price=1.0)
    bound = await verifier.bound(Problem("What is 3 + 4?"), 10)
    assert bound.calls == 1 and bound.completion_tokens == 0 and bound.usd == pytest.approx(bound.prompt_tokens / 1e6)
    with pytest.raises(BudgetExhausted):
        await scored(verifier, budget=Budget(tokens=bound.prompt_tokens))
    result = await scored(verifier, budget=Budget(tokens=bound.prompt_tokens + 20))
    assert result.usage.usd is not None and result.usage.usd > 0


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
async def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'tts-plugins\[transformers\]'"):
        ProcessVerifierTransformers(tmp_path).load()


def test_wrong_settings() -> None:
    for settings in ({"family": "none"}, {"base_url": "host"}, {"aggregate": "sum"}, {"timeout": 0},
                     {"price": float("inf")}):  # fmt: skip
        with pytest.raises(ConfigurationError):
            ProcessVerifierHTTP(**{"model": "m", "base_url": "http://h", **settings})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"has no \{steps\}"):
        RewardFamily(template="{problem}", step="{step}{separator}", separator="x")
    for field, value in (("mode", "all"), ("scale", (3, 1)), ("aggregate", "sum"), ("max_steps", 0)):
        with pytest.raises(ConfigurationError):
            ProcessJudge(ScriptedModel(["x"]), **{field: value})  # type: ignore[arg-type]


class Steps:
    """A strategy of one verification of each of these candidates, in order."""

    def __init__(self, *chains: tuple[str, ...]) -> None:
        self.chains = chains

    async def __call__(self, run: Any, problem: Problem) -> Any:
        from tts_plugins import Scored

        made = []
        for chain in self.chains:
            c = Candidate(problem=problem, text="\n\n".join(chain), steps=tuple(map(Step, chain)), finished=True)
            score = await run.verifier.score(run, c)
            made.append(Scored.of(c, score=score.value, step_scores=score.steps, feedback=score.feedback))
        run._state.seen.extend(made)
        return made[-1]


def batch(problem: Problem, number: int) -> str:
    user = str(problem.messages[-1]["content"])
    key = re.findall(r'"key": "(\w+)"', user)[-1]
    first, last = map(int, re.search(r"Score steps (\d+) to (\d+)", user).groups())  # type: ignore[union-attr]
    return json.dumps({"key": key, "critique": "step 2 is off", "scores": [5, 3, 1, 1][first - 1 : last]})


async def judged(verifier: Any, *chains: tuple[str, ...], **settings: Any) -> Result:
    return await solve("?", model=ScriptedModel(["x"]), strategy=Steps(*chains), verifier=verifier, **settings)


async def test_a_step_is_not_paid_twice() -> None:
    model = ScriptedModel(batch)
    judge = ProcessJudge(model)
    result = await judged(judge, ("a", "b"), ("a", "b", "c"), ("a", "b"), ("a", "x"))
    assert [c.step_scores for c in result.candidates] == [(1.0, 0.5), (1.0, 0.5, 0.0), (1.0, 0.5), (1.0, 0.5)]
    assert [c.score for c in result.candidates] == [0.5, 0.0, 0.5, 0.5]
    assert result.candidates[0].feedback == "step 2 is off"
    assert len(model.requests) == 3  # the third candidate cost nothing
    assert (await judge.bound(Problem("?"), 10)).calls == 2


async def test_yes_and_no_with_probabilities_at_each_step() -> None:
    def model(problem: Problem, number: int) -> Generation:
        made = Generation(text="Yes")
        top = [("Yes", math.log(0.6)), (" yes", math.log(0.2)), ("No", math.log(0.2 if number else 0.1))]
        object.__setattr__(made, "top_logprobs", (tuple(top),))
        return made

    asked = ScriptedModel(model)
    judge = ProcessJudge(asked, mode="yes_no", aggregate="prod", max_steps=5)
    result = await judged(judge, ("a", "b"), ("a", "b", "c"))
    assert result.candidates[1].step_scores == pytest.approx((0.8 / 0.9, 0.8, 0.8))
    assert len(asked.requests) == 3
    assert (await judge.bound(Problem("?"), None)).calls == 10
    plain = await judged(ProcessJudge(ScriptedModel(["Yes", "No, step 2 is off."]), mode="yes_no"), ("a", "b"))
    assert plain.best.step_scores == (1.0, 0.0)


@pytest.mark.parametrize("said", ["maybe", "", "Yes and no", '{"key": "abcdefgh", "scores": [5, 5]}', "[5, 5]"])
async def test_what_is_no_score_of_steps_is_an_error(said: str) -> None:
    for mode in ("batch", "yes_no"):
        with pytest.raises(Exception, match="no verdict could be read"):
            await judged(ProcessJudge(ScriptedModel([said]), mode=mode), ("a", "b"))  # type: ignore[arg-type]


@pytest.mark.parametrize("scores", [[5], [5, 5, 5], [5, 6], [5, None], [5, True], 5])
async def test_too_few_too_many_and_off_the_scale(scores: object) -> None:
    def model(problem: Problem, number: int) -> str:
        key = re.findall(r'"key": "(\w+)"', str(problem.messages[-1]["content"]))[-1]
        return json.dumps({"key": key, "critique": "", "scores": scores})

    with pytest.raises(Exception, match="no verdict could be read"):
        await judged(ProcessJudge(ScriptedModel(model)), ("a", "b"))


async def test_too_many_steps_are_an_error_of_the_candidate() -> None:
    with pytest.raises(Exception, match="max_steps=2"):
        await judged(ProcessJudge(ScriptedModel(batch), max_steps=2), ("a", "b", "c"))


async def test_memory_is_bounded() -> None:
    model = ScriptedModel(batch)
    await judged(ProcessJudge(model, remember=1), ("a", "b"), ("c",), ("a", "b"))
    assert len(model.requests) == 3
