"""One suite over every model, verifier and strategy of the package; and what is broken does not pass it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import tts_plugins.models
import tts_plugins.strategies
import tts_plugins.verifiers
from tts_plugins import (
    DVTS,
    BeamSearch,
    BestOfN,
    ComputeOptimal,
    ParticleFilter,
    Problem,
    RecursiveAggregation,
    Revision,
    SelfConsistency,
    TreeSearch,
    Usage,
)
from tts_plugins.budget import FREE, Bound
from tts_plugins.models import CallableModel, EmbeddingModel, OpenAICompatibleModel, ReplayModel
from tts_plugins.policies import Difficulty, Plan, Stage
from tts_plugins.protocols import Model, Run, SetVerifier, Strategy, Verifier
from tts_plugins.stopping import Threshold, VoteDecided, VoteLead
from tts_plugins.testing import ScriptedModel, TableVerifier
from tts_plugins.testing.contracts import ModelContract, StrategyContract, VerifierContract
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Candidate, Generation, Reply, Score, Scored
from tts_plugins.verifiers import (
    AnswerAgreement,
    Calibrated,
    Calibration,
    CallableVerifier,
    Canaries,
    Cascade,
    Ensemble,
    GenerativeVerifier,
    Grounded,
    JSONSchemaVerifier,
    LearnedHead,
    LearnedVerifier,
    LLMJudge,
    PairwiseJudge,
    ProcessJudge,
    RecordedVerifier,
    RegexVerifier,
    Screen,
    Similar,
    ToolCallVerifier,
    Veto,
)

# Models ---------------------------------------------------------------------------------------------------------------


class TestScriptedModel(ModelContract):
    def make(self) -> Model:
        return ScriptedModel(["#### 391"], latency=0.01)


class TestScriptedModelInBatches(ModelContract):
    def make(self) -> Model:
        return ScriptedModel(["#### 391"], latency=0.01, batch=8, price=1e-6)


class TestCallableModel(ModelContract):
    def make(self) -> Model:
        return CallableModel(lambda content: "#### 391", max_tokens=20)


class TestAsyncCallableModel(ModelContract):
    def make(self) -> Model:
        async def function(content: str, seed: int | None) -> tuple[str, Usage]:
            await asyncio.sleep(0.001)
            return "#### 391", Usage(calls=1, prompt_tokens=9, completion_tokens=3)

        return CallableModel(function, max_tokens=20, concurrency=2, price=(1.0, 2.0))


class TestUnboundedCallableModel(ModelContract):
    max_tokens_known = False

    def make(self) -> Model:
        return CallableModel(lambda content: "#### 391")


class TestReplayModel(ModelContract):
    waits = False
    pool = synthetic_pool(2, 8)
    problem = pool.problems[0].problem()

    def make(self) -> Model:
        self.problem = self.pool.problems[0].problem()
        return ReplayModel(self.pool)


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply="seeded", latency=0.01) as running:
        yield running


@pytest.mark.usefixtures("transport")
class TestOpenAICompatibleModel(ModelContract):
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @pytest.fixture(autouse=True)
    def _served(self, server: LoopbackServer) -> None:
        self.address = server.base_url

    def make(self) -> Model:
        return OpenAICompatibleModel(
            "loopback", base_url=self.address, api_key="-", max_tokens=40, temperature=0.8, price=(1.0, 2.0),
            **self.settings,
        )  # fmt: skip


class TestStreamingOpenAICompatibleModel(TestOpenAICompatibleModel):
    settings = {"stream": True, "batch": 1}  # noqa: RUF012 - never changed


class TestEmbeddingModel(TestOpenAICompatibleModel):
    problem = Problem(("a text", "another text"))

    def make(self) -> Model:
        return EmbeddingModel("loopback", base_url=self.address, api_key="-", price=2.0)


# Verifiers ------------------------------------------------------------------------------------------------------------


def judged(problem: Problem, number: int) -> str:
    """A judge for all of them: the key that is asked for, and a verdict in each one's form."""
    text = "\n".join(str(m["content"]) for m in problem.messages)
    key = (re.findall(r'"key": "(\w+)"', text) or re.findall(r"Verdict (\w{8}):", text) or [""])[-1]
    if "Verdict " in text:
        return f"Let me see.\nVerdict {key}: Yes"
    return json.dumps(
        {
            "key": key, "critique": "fine", "criteria": {"correctness": 4, "completeness": 4}, "score": 4,
            "better": "A", "scores": [4, 3], "claims": [{"claim": "it is so", "supported": True}],
        }
    )  # fmt: skip


def judge(**settings: Any) -> ScriptedModel:
    return ScriptedModel(judged, latency=0.001, prompt_tokens=400, **settings)


def check(problem: Problem, candidate: Candidate) -> float:
    return 1.0 if candidate.answer == "391" else 0.25


async def check_later(problem: Problem, candidate: Candidate) -> tuple[float, str]:
    await asyncio.sleep(0.001)
    return check(problem, candidate), "looked at"


def vectors() -> ScriptedModel:
    made = ScriptedModel(lambda p, n: Generation(text="", output=tuple((0.5, 0.1) for _ in p.content)), name="v")
    made.embeds = True  # type: ignore[attr-defined]
    return made


def learned() -> LearnedVerifier:
    return LearnedVerifier(vectors(), LearnedHead(weights=(0.3,) * 4, bias=0.0, embedding="v", logprobs=False))


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
VERIFIERS: dict[str, Callable[[], Any]] = {
    "TableVerifier": lambda: TableVerifier({"391": 1.0}, default=0.0),
    "CallableVerifier": lambda: CallableVerifier(check),
    "CallableVerifier, async": lambda: CallableVerifier(check_later),
    "CallableVerifier, inline": lambda: CallableVerifier(check, inline=True),
    "AnswerAgreement": AnswerAgreement,
    "JSONSchemaVerifier": lambda: JSONSchemaVerifier(SCHEMA),
    "LLMJudge": lambda: LLMJudge(judge()),
    "LLMJudge, 3 votes": lambda: LLMJudge(judge(batch=2), votes=3),
    "GenerativeVerifier": lambda: GenerativeVerifier(judge(), k=2),
    "PairwiseJudge": lambda: PairwiseJudge(judge()),
    "PairwiseJudge, swiss": lambda: PairwiseJudge(judge(), mode="swiss", rounds=2),
    "Cascade": lambda: Cascade(CallableVerifier(check), LLMJudge(judge())),
    "Ensemble": lambda: Ensemble([CallableVerifier(check), LLMJudge(judge())]),
    "Veto": lambda: Veto(LLMJudge(judge()), CallableVerifier(check)),
    "Screen": Screen,
    "Canaries": lambda: Canaries(LLMJudge(judge()), rate=0.5),
    "Calibrated": lambda: Calibrated(CallableVerifier(check), Calibration.fit([0.1, 0.4, 0.8, 0.9], [0, 0, 1, 1])),
    "RegexVerifier": lambda: RegexVerifier(r"391$"),
    "ToolCallVerifier": ToolCallVerifier,
    "Grounded": lambda: Grounded("17 * 23 = 391", model=judge()),
    "Grounded, vectors": lambda: Grounded("17 * 23 = 391", model=vectors()),
    "Similar": lambda: Similar("17 * 23 = 391", model=vectors()),
    "ProcessJudge": lambda: ProcessJudge(judge()),
    "LearnedVerifier": learned,
    "ProcessJudge, yes_no": lambda: ProcessJudge(ScriptedModel(["Yes"], prompt_tokens=400), mode="yes_no"),
}


@pytest.fixture(params=list(VERIFIERS))
def made(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return VERIFIERS[str(request.param)]


class TestVerifiers(VerifierContract):
    @pytest.fixture(autouse=True)
    def _made(self, made: Callable[[], Any]) -> None:
        self.made = made

    def make(self) -> Verifier | SetVerifier:
        verifier: Verifier | SetVerifier = self.made()
        return verifier

    # Of two steps each, for those that score steps.
    texts = ("17 * 23 = 391\n\n#### 391", "340 + 51 = 391\n\n#### 391", "It is large.\n\n#### 400")


class TestRecordedVerifier(VerifierContract):
    pool = synthetic_pool(1, 3)
    problem = pool.problems[0].problem()

    @property
    def texts(self) -> Sequence[str]:  # type: ignore[override]
        return [c.text or c.answer or "" for c in self.pool.problems[0].candidates]

    def model(self) -> Model:
        self.problem = self.pool.problems[0].problem()
        return ReplayModel(self.pool)

    def make(self) -> Verifier | SetVerifier:
        return RecordedVerifier()


# Strategies -----------------------------------------------------------------------------------------------------------


def plan(budget: int) -> Plan:
    """A probe of three, after which easy problems stop, and the hardest are revised."""
    stages = (
        Stage(
            count=3, difficulty=Difficulty(signal="agreement", edges=(0.5, 0.9)),
            choices=(SelfConsistency(n=3), None, Revision(chains=2, rounds=2)),
        ),
    )  # fmt: skip
    return Plan(budget=budget, fixed=SelfConsistency(n=budget, stop=VoteLead(4)), stages=stages)


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "BestOfN": lambda: BestOfN(n=6),
    "BestOfN, weighted": lambda: BestOfN(n=6, select="weighted"),
    "BestOfN, stopped": lambda: BestOfN(n=9, stop=Threshold(0.9) | VoteLead(3)),
    "BestOfN, waves": lambda: BestOfN(n=7, stop=VoteLead(7), wave=3),
    "SelfConsistency": lambda: SelfConsistency(n=6),
    "SelfConsistency, stopped": lambda: SelfConsistency(n=9, stop=VoteDecided()),
    "Revision": lambda: Revision(chains=2, rounds=3),
    "RecursiveAggregation": lambda: RecursiveAggregation(population=4, subset=2, loops=2),
    "TreeSearch": lambda: TreeSearch(n=6),
    "ComputeOptimal": lambda: ComputeOptimal(plans=(plan(4), plan(9))),
}


# They need scores of steps, which no set verifier gives.
SEARCHES: dict[str, Callable[[], Strategy]] = {
    "BeamSearch": lambda: BeamSearch(n=4, beam_width=2),
    "BeamSearch, lookahead": lambda: BeamSearch(n=4, beam_width=4, lookahead=2),
    "DVTS": lambda: DVTS(n=4, beam_width=2),
    "ParticleFilter": lambda: ParticleFilter(n=4),
}


@pytest.fixture(params=list(SEARCHES))
def search(request: pytest.FixtureRequest) -> Callable[[], Strategy]:
    return SEARCHES[str(request.param)]


class TestSearches(StrategyContract):
    @pytest.fixture(autouse=True)
    def _search(self, search: Callable[[], Strategy]) -> None:
        self.made = search

    def make(self) -> Strategy:
        return self.made()


@pytest.fixture(params=list(STRATEGIES))
def strategy(request: pytest.FixtureRequest) -> Callable[[], Strategy]:
    return STRATEGIES[str(request.param)]


class TestStrategies(StrategyContract):
    @pytest.fixture(autouse=True)
    def _strategy(self, strategy: Callable[[], Strategy]) -> None:
        self.made = strategy

    def make(self) -> Strategy:
        return self.made()


class TestStrategiesWithASetVerifier(TestStrategies):
    @pytest.fixture(autouse=True)
    def _one_at_a_time(self, request: pytest.FixtureRequest) -> None:
        if "ComputeOptimal" in request.node.name:
            pytest.skip("it refuses verifiers that score sets where it probes; tests/unit/test_compute_optimal.py")

    def verifier(self) -> Verifier | SetVerifier | None:
        return AnswerAgreement()


def test_every_strategy_of_the_package_is_held_against_the_contract() -> None:
    named = {name for name in tts_plugins.strategies.__all__ if not name.startswith("Base")}
    assert named <= {name.partition(",")[0] for name in [*STRATEGIES, *SEARCHES]}


def test_every_verifier_of_the_package_is_held_against_the_contract() -> None:
    verifiers = {
        name for name in tts_plugins.verifiers.__all__
        if hasattr(getattr(tts_plugins.verifiers, name), "score")
        or hasattr(getattr(tts_plugins.verifiers, name), "score_set")
    }  # fmt: skip
    held = {name.partition(",")[0] for name in VERIFIERS} | {"RecordedVerifier"}
    # These need a server of their own, or what is not installed everywhere; their own tests hold them.
    own = {"MathAnswer", "ProcessVerifierHTTP", "ProcessVerifierTransformers", "CodeTests", "SQLVerifier"}
    assert verifiers - held <= own


# What is broken is caught ---------------------------------------------------------------------------------------------


def failures(contract: Any) -> dict[str, str]:
    """What fails of a contract, with the words that somebody would read."""
    found = {}
    for name in sorted(n for n in dir(contract) if n.startswith("test_")):
        try:
            getattr(contract(), name)()
        except Exception as error:  # noqa: BLE001 - it is what is looked at
            found[name.removeprefix("test_")] = f"{type(error).__name__}: {error}"
    return found


class Good(ScriptedModel):
    def __init__(self, latency: float = 0.001) -> None:
        super().__init__(["#### 391"], latency=latency)


class Silent(Good):
    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        return Reply(generations=(), usage=Usage())


class Generous(Good):
    batch = 4

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        return await super().generate(problem, [*seeds, 1])


class Dearer(Good):
    async def bound(self, problem: Problem) -> Bound:
        return Bound(prompt_tokens=1, completion_tokens=1)


class Deaf(Good):
    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return await super().generate(problem, seeds)


class OneLoop(Good):
    """Keeps something of the first loop that it meets."""

    def __init__(self) -> None:
        super().__init__(0.02)
        self._loop: Any = None

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        self._loop = self._loop or asyncio.get_running_loop()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        return await super().generate(problem, seeds)


class Textless(Good):
    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        return Reply(generations=(Generation(text=None),), usage=None)  # type: ignore[arg-type]


class Nameless(Good):
    def __init__(self) -> None:
        super().__init__()
        self.name = ""


@pytest.mark.parametrize(
    ("broken", "caught"),
    [
        (Good, {}),
        (Silent, {"a_reply_has_a_generation_and_stays_within_the_bound": "0 generations for 1 seeds"}),
        (Generous, {"a_batch_brings_no_more_than_was_asked_for": "generations for 3 seeds"}),
        (Dearer, {"a_reply_has_a_generation_and_stays_within_the_bound": "15 tokens are more than its bound of 2"}),
        (Deaf, {"a_cancelled_call_ends_at_once": "as if it had not been cancelled"}),
        (OneLoop, {"it_serves_two_event_loops_at_once": "attached to a different loop"}),
        (Textless, {"a_call_without_a_seed_is_answered_too": "its text is None"}),
        (Nameless, {"it_is_a_model": "name is empty"}),
        (object, {"it_is_a_model": "lacks a method or a property"}),
    ],
)
def test_a_broken_model_is_caught(broken: type[Any], caught: dict[str, str]) -> None:
    class Held(ModelContract):
        def make(self) -> Model:
            model: Model = broken()
            if broken is Generous:
                model.batch = 4  # type: ignore[misc]
            return model

    found = failures(Held)
    assert (found == {}) == (caught == {}), found
    assert all(words in found[name] for name, words in caught.items()), found


class Verifying:
    name = "mine"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        return Score(value=0.5)


class OutOfRange(Verifying):
    async def score(self, run: Run, candidate: Candidate) -> Score:
        return Score(value=7.0 if candidate.index == 1 else 0.5)


class Overspending(Verifying):
    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return Bound(prompt_tokens=5, completion_tokens=10)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        for _ in range(2):
            await run.generate(self.model, Problem("rate it"))
        return Score(value=0.5)

    model = ScriptedModel(["x"])


class Unbounded(Verifying):
    async def bound(self, problem: Problem, tokens: int | None) -> Any:
        return 3 + (tokens or 0)


class Sleeping(Verifying):
    async def score(self, run: Run, candidate: Candidate) -> Score:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                end = max(end, time.monotonic() + 2.0)
        return Score(value=0.5)


class ShortSet:
    name = "short"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        return [Score(value=0.5)] * (len(candidates) - 1)


@pytest.mark.parametrize(
    ("broken", "caught"),
    [
        (Verifying, {}),
        (OutOfRange, {"scores_are_finite_and_between_0_and_1": "it returned what is not a score: InvalidScore"}),
        (Overspending, {"it_spends_no_more_than_its_bound": "6 calls are more than its bound of 1 each"}),
        (Unbounded, {"its_bound_says_the_worst_that_a_score_can_cost": "which is not a budget.Bound"}),
        (Sleeping, {"a_cancelled_score_ends_at_once": "it swallows CancelledError"}),
        (ShortSet, {"scores_are_finite_and_between_0_and_1": "2 scores for 3 candidates"}),
        (object, {"it_is_a_verifier": "neither score nor score_set"}),
    ],
)
def test_a_broken_verifier_is_caught(broken: type[Any], caught: dict[str, str]) -> None:
    class Held(VerifierContract):
        prompt = 0.2 if broken is Sleeping else 10.0

        def make(self) -> Verifier | SetVerifier:
            verifier: Verifier | SetVerifier = broken()
            return verifier

    found = failures(Held)
    assert (found == {}) == (caught == {}), found
    assert all(words in found[name] for name, words in caught.items()), found


async def fine(run: Run, problem: Problem) -> Scored:
    return max([c async for c in run.sample(problem, 4)], key=lambda c: (c.score or 0.0, -c.index))


async def inventing(run: Run, problem: Problem) -> Scored:
    await fine(run, problem)
    return Scored(problem, text="#### 391", score=1.0)


async def going_past_the_run(run: Run, problem: Problem) -> Scored:
    await run.model.generate(problem, [1])
    return await fine(run, problem)


async def by_chance(run: Run, problem: Problem) -> Scored:
    for _ in range(random.randint(1, 40)):
        best = await fine(run, problem)
    return best


async def giving_up(run: Run, problem: Problem) -> Scored:
    made = [c async for c in run.sample(problem, 4)]
    if len(made) < 4:
        raise ValueError("too few")
    return made[0]


COUNTED = [0]


async def remembering(run: Run, problem: Problem) -> Scored:
    COUNTED[0] += 1
    made = [c async for c in run.sample(problem, 4)]
    return made[COUNTED[0] % 3]


@pytest.mark.parametrize(
    ("broken", "caught"),
    [
        (fine, {}),
        (inventing, {"it_returns_a_candidate_that_was_made_through_the_run": "not one that the run made"}),
        (going_past_the_run, {"it_returns_a_candidate_that_was_made_through_the_run": "calls went past the run"}),
        (by_chance, {"the_same_seed_sends_the_same_requests": "take randomness from run.seed only"}),
        (giving_up, {"it_ends_on_any_budget_and_never_overspends": "too few"}),
        (remembering, {"it_keeps_nothing_between_solves": "different results when it is used again"}),
    ],
)
def test_a_broken_strategy_is_caught(broken: Any, caught: dict[str, str]) -> None:
    random.seed(3)

    class Held(StrategyContract):
        def make(self) -> Strategy:
            return broken  # type: ignore[no-any-return]

    found = failures(Held)
    assert (found == {}) == (caught == {}), found
    assert all(words in found[name] for name, words in caught.items()), found


def test_what_is_not_overridden_says_so() -> None:
    for contract in (ModelContract, VerifierContract, StrategyContract):
        with pytest.raises(NotImplementedError, match=r"override make\(\)"):
            contract().make()
