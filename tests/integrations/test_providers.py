"""Models of providers over their own wire formats, as any-llm's SDKs speak them, on a real socket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("any_llm")
pytest.importorskip("anthropic")
pytest.importorskip("google.genai")
pytest.importorskip("boto3")

from tests.integrations.test_server_replies import reported
from tts_plugins import BeamSearch, BestOfN, Budget, Ledger, Problem, Result, SelfConsistency, solve, solve_sync
from tts_plugins.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    CallTimedOut,
    ConfigurationError,
    ConnectionFailed,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    ServerFailed,
)
from tts_plugins.models import ProviderModel
from tts_plugins.protocols import Model
from tts_plugins.testing.contracts import ModelContract
from tts_plugins.testing.loopback import ProviderReply, RawReply, RawRequest, RawServer, provider_replies
from tts_plugins.verifiers import CallableVerifier, LLMJudge

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the SDKs
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
PROVIDERS = ["anthropic", "gemini", "bedrock"]
NAMES = {"anthropic": "anthropic/claude-haiku-4-5", "gemini": "gemini/gemini-2.5-flash",
         "bedrock": "bedrock/amazon.nova-lite-v1:0"}  # fmt: skip
KEY = "key-planted-0815-xyz"
ASK = "How much is it?"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTED0815")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with RawServer(provider_replies(lambda request: ProviderReply(text="4"))) as running:
        yield running


def model_of(server: RawServer, provider: str, **settings: Any) -> ProviderModel:
    key = None if provider == "bedrock" else KEY
    return ProviderModel(
        NAMES[provider], **{"api_key": key, "base_url": server.origin, "max_tokens": 50, "temperature": 0.8, **settings}
    )


def says(server: RawServer, say: Callable[[RawRequest], ProviderReply]) -> None:
    server.reply = provider_replies(say)


async def searched(server: RawServer, provider: str, n: int = 3, **settings: Any) -> tuple[Any, Ledger]:
    ledger = settings.pop("ledger", None) or Ledger(Budget(calls=100, tokens=100_000, seconds=30))
    attempts = settings.pop("attempts", 2)
    model = model_of(server, provider, **settings)
    try:
        end: Any = await solve(
            ASK, model=model, strategy=SelfConsistency(n=n), budget=ledger, attempts=attempts, seed=1
        )
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        end = error
    await model.aclose()
    assert ledger.open_holds == 0
    return end, ledger


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_each_sample_is_one_request_and_all_is_counted(server: RawServer, provider: str) -> None:
    says(server, lambda request: ProviderReply(text="4", prompt=30, cached=10, completion=7, thinking="a b c"))
    end, ledger = await searched(server, provider, system="Be short.", stop="END")
    assert isinstance(end, Result), end
    assert len(server.requests) == 3 == len(end.candidates) and end.best.text == "4"
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.exact) == (90, 21, True)
    assert ledger.spent.tokens == 111 and ledger.spent.calls == 3
    assert "a b c" in (end.best.reasoning or "")
    body = str(server.bodies[0])
    assert "50" in body and "0.8" in body and "Be short." in body and "END" in body and ASK in body
    assert end.trace is not None and KEY not in str(end.trace.to_dict())


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_cut_answer_and_a_tool_call(server: RawServer, provider: str) -> None:
    says(server, lambda request: ProviderReply(text="half an", cut=True))
    end, _ = await searched(server, provider, n=1)
    assert end.best.truncated and end.best.finish_reason == "length"
    says(server, lambda request: ProviderReply(tool=("weather", {"city": "Rome"})))
    tools = [
        {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
    ]
    end, _ = await searched(server, provider, n=1, params={"tools": tools})
    (call,) = end.best.output.tool_calls
    assert call.function.name == "weather" and "Rome" in call.function.arguments


FAILURES = [
    (400, RequestRefused), (401, AuthenticationFailed), (403, AuthenticationFailed), (404, ModelNotFound),
    (429, RateLimited), (500, ServerFailed), (503, ServerFailed), (529, ServerFailed),
]  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("status", "kind"), FAILURES)
async def test_failures_have_their_kinds_and_each_attempt_counts(
    server: RawServer, provider: str, status: int, kind: type[Exception]
) -> None:
    says(server, lambda request: ProviderReply(text=f"no, {KEY}", status=status, headers={"retry-after": "0"}))
    end, ledger = await searched(server, provider, n=1, attempts=3)
    first = end if not isinstance(end, AllCandidatesFailed) else end.__cause__
    assert type(first) is kind, (end, first)
    retried = kind in (RateLimited, ServerFailed)
    assert len(server.requests) == (3 if retried else 1), "no hidden retries"
    assert ledger.spent.calls == len(server.requests)
    assert kind is ServerFailed or ledger.spent.tokens == 0
    assert KEY not in reported(end) and KEY not in str(end)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_budget_holds(server: RawServer, provider: str) -> None:
    says(server, lambda request: ProviderReply(text="4", prompt=100, completion=50))
    end, ledger = await searched(server, provider, n=50, ledger=Ledger(Budget(tokens=2000)))
    assert isinstance(end, Result) and end.stopped == "budget"
    assert ledger.spent.tokens <= 2000 and len(server.requests) * 150 == ledger.spent.tokens


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_money_is_counted_at_the_published_price(server: RawServer, provider: str) -> None:
    pytest.importorskip("genai_prices")
    bound = await model_of(server, provider).bound(Problem(ASK))
    assert bound is not None and bound.usd is not None and 0 < bound.usd < 0.01


@pytest.mark.parametrize(
    ("provider", "field"),
    [("anthropic", "seed"), ("anthropic", "logprobs"), ("anthropic", "frequency_penalty"), ("gemini", "logprobs"),
     ("gemini", "parallel_tool_calls"), ("bedrock", "seed"), ("bedrock", "logit_bias")],
)  # fmt: skip
def test_what_would_be_dropped_is_refused(provider: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"does not take '{field}'"):
        ProviderModel(NAMES[provider], params={field: 1})


async def test_seeds_go_where_they_are_taken(server: RawServer) -> None:
    await searched(server, "gemini", n=2)
    assert len({str(body["generationConfig"]["seed"]) for body in server.bodies}) == 2
    end, _ = await searched(server, "anthropic", n=2)
    assert isinstance(end, Result) and "seed" not in server.bodies[-1]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_nobody_there_and_nobody_answers(server: RawServer, provider: str) -> None:
    end, ledger = await searched(server, provider, n=1, attempts=1, base_url="http://127.0.0.1:9")
    assert isinstance(end.__cause__, ConnectionFailed) and ledger.spent.tokens == 0, end
    import time

    server.reply = lambda request: (time.sleep(1.5), RawReply({}))[1]  # type: ignore[func-returns-value]
    end, ledger = await searched(server, provider, n=1, attempts=1, timeout=0.5)
    assert isinstance(end.__cause__, CallTimedOut) and ledger.spent.tokens >= 50, end


@pytest.mark.parametrize("provider", ["anthropic", "gemini"])
async def test_no_redirect_leads_to_another_server(server: RawServer, provider: str) -> None:
    with RawServer(provider_replies(lambda request: ProviderReply(text="stranger"))) as stranger:
        server.reply = lambda request: RawReply("", status=307, headers={"Location": stranger.origin + request.path})
        end, _ = await searched(server, provider, n=1, attempts=1)
        assert stranger.requests == [], end
    assert not isinstance(end, Result)


class Contract(ModelContract):
    provider = ""

    @pytest.fixture(autouse=True)
    def _server(self, server: RawServer) -> None:
        says(server, lambda request: ProviderReply(text="#### 391"))
        self.server = server

    def make(self) -> Model:
        return model_of(self.server, self.provider)


class TestAnthropic(Contract):
    provider = "anthropic"


class TestGemini(Contract):
    provider = "gemini"


class TestBedrock(Contract):
    provider = "bedrock"


del Contract


def test_on_two_loops(server: RawServer) -> None:
    model = model_of(server, "anthropic")
    for _ in range(2):
        assert solve_sync(ASK, model=model, strategy=SelfConsistency(n=2)).best.text == "4"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_judge_of_another_provider(server: RawServer, provider: str) -> None:
    def verdict(request: RawRequest) -> ProviderReply:
        keys = re.findall(r'\\?"key\\*": \\*"(\w+)', json.dumps(request.body))
        marks = {"correctness": 4, "completeness": 4}
        said = {"key": keys[-1] if keys else "", "critique": "fine", "criteria": marks, "score": 4}
        return ProviderReply(text=json.dumps(said) if keys else "4")

    says(server, verdict)
    judge = LLMJudge(model_of(server, provider, temperature=0.0))
    model = model_of(server, "anthropic")
    result = await solve(ASK, model=model, strategy=BestOfN(n=2), verifier=judge, budget=Budget(calls=20))
    assert result.score is not None and result.usage.calls >= 4
    await model.aclose()


async def test_steps_are_asked_for_in_words(server: RawServer) -> None:
    def steps(problem: Any, candidate: Any) -> list[float]:
        return [0.5] * len(candidate.steps)

    says(server, lambda request: ProviderReply(text="Answer: 4"))
    model = model_of(server, "anthropic")
    result = await solve(
        ASK, model=model, strategy=BeamSearch(n=2, beam_width=2, max_steps=2), verifier=CallableVerifier(steps)
    )
    assert result.answer == "4"
    await model.aclose()


@pytest.mark.parametrize("name", ["claude", "/x", "anthropic/", "nobody/x", 5, None])
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="ProviderModel"):
        ProviderModel(name)


async def test_a_missing_key_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    ledger = Ledger(Budget(tokens=10_000))
    model = ProviderModel(NAMES["anthropic"], max_tokens=50)
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        await solve(ASK, model=model, strategy=SelfConsistency(n=2), budget=ledger)
    assert ledger.spent == (0, 0, 0)


def test_the_command_line_takes_a_provider_s_model(server: RawServer, capsys: Any, monkeypatch: Any) -> None:
    pytest.importorskip("typer")
    from tts_plugins.cli import main

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.origin)
    solving = ["solve", ASK, "--model", NAMES["anthropic"], "--n", "2", "--max-tokens", "40"]
    assert main([*solving, "--budget-tokens", "5000"]) == 0 and len(server.requests) == 2
    assert "4" in capsys.readouterr().out
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert main(solving) == 2 and "ANTHROPIC_API_KEY" in capsys.readouterr().err
    assert main(["solve", ASK, "--model", "nobody/model"]) == 2 and "not known" in capsys.readouterr().err


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_compressed_as_nobody_asked_is_told_at_once(server: RawServer, provider: str) -> None:
    server.reply = lambda request: RawReply(b"\x0b\x02\x80abc\x03", headers={"Content-Encoding": "zstd"})
    end, ledger = await searched(server, provider, n=1, attempts=4)
    assert isinstance(end, AllCandidatesFailed) and ledger.spent.tokens > 0, end
    assert provider == "bedrock" or [r.headers["accept-encoding"] for r in server.requests] == ["gzip, deflate"]
