"""Other providers' message shapes: Anthropic's and Ollama's own packages against loopback servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_anthropic")
pytest.importorskip("langchain_ollama")

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableLambda
from langchain_ollama import ChatOllama
from tts_plugins_langchain import ScaledChatModel, scale
from tts_plugins_langchain._io.usage import counts_of, ended_by, was_cut

from tests.native_servers import anthropic_server, ollama_server
from tts_plugins import Budget, Ledger, SelfConsistency
from tts_plugins.errors import BudgetExhausted

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the packages' own connections


CACHED = {"input_tokens": 12, "output_tokens": 20, "cache_read_input_tokens": 3000, "cache_creation_input_tokens": 0}
WRITTEN = {"input_tokens": 12, "output_tokens": 20, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 500}


def anthropic(url: str, **settings: Any) -> Any:
    return ChatAnthropic(
        model="claude-small", base_url=url, api_key="-", max_retries=0, max_tokens=64, temperature=1.0, **settings
    )


def ollama(url: str, **settings: Any) -> Any:
    return ChatOllama(model="small", base_url=url, num_predict=64, temperature=1.0, **settings)


def streamed(model: Any) -> Any:
    """A chain that streams its model by itself, whatever LangChain would do."""

    def run(value: str) -> Any:
        whole = None
        for chunk in model.stream(value):
            whole = chunk if whole is None else whole + chunk
        return whole

    return RunnableLambda(run)


@pytest.mark.parametrize("usage", [CACHED, WRITTEN])
@pytest.mark.parametrize("way", ["model", "chain", "streamed"])
def test_what_a_cache_had_is_charged_too(usage: Mapping[str, int], way: str) -> None:
    with anthropic_server(lambda body: {"usage": usage}) as server:
        model, ledger = anthropic(server.url), Ledger(Budget(tokens=100_000))
        each = sum(usage.values())
        if way == "model":
            message = ScaledChatModel(model, n=3, budget=ledger).invoke("2 + 2?")
            assert message.usage_metadata is not None and message.usage_metadata["total_tokens"] == 3 * each
            details = message.usage_metadata["input_token_details"]
            assert details.get("cache_read", 0) == 3 * usage["cache_read_input_tokens"]
            assert details.get("cache_creation", 0) == 3 * usage["cache_creation_input_tokens"]
        else:
            chain = streamed(model) if way == "streamed" else model
            scale(chain, n=3, budget=ledger).invoke("2 + 2?")
        assert ledger.usage.tokens == 3 * each and ledger.usage.exact and len(server.bodies) == 3


def test_a_ledger_ends_where_the_cached_tokens_end_it() -> None:
    with anthropic_server(lambda body: {"usage": CACHED}) as server:
        ledger = Ledger(Budget(tokens=10_000))
        scaled = scale(anthropic(server.url), n=3, budget=ledger, concurrency=1)
        scaled.invoke("2 + 2?")
        assert ledger.usage.tokens == 3 * 3032
        with pytest.raises(BudgetExhausted, match="of it are 3 calls, 9,096 tokens spent"):
            scaled.invoke("2 + 2?")
        assert len(server.bodies) == 3


@pytest.mark.parametrize("way", ["model", "streamed"])
def test_ollamas_counts_are_the_same_streamed_or_not(way: str) -> None:
    with ollama_server(lambda body: {"text": "4"}) as server:
        ledger = Ledger(Budget(tokens=100_000))
        model = ollama(server.url)
        scale(streamed(model) if way == "streamed" else model, n=3, budget=ledger).invoke("2 + 2?")
        assert ledger.usage.tokens == 96 and ledger.usage.exact
        assert {body["options"]["num_predict"] for body in server.bodies} == {64}


@pytest.mark.parametrize("make", [(anthropic_server, anthropic), (ollama_server, ollama)])
def test_a_cut_answer_never_wins_a_tie(make: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
    serve, of = make
    answers = iter(
        [
            {"text": "Answer: 5", "stop_reason": "max_tokens", "done_reason": "length"},
            {"text": "Answer: 4"},
        ]
    )
    with serve(lambda body: next(answers)) as server:
        model = ScaledChatModel(of(server.url), strategy=SelfConsistency(n=2), concurrency=1)
        message = model.invoke("2 + 2?")
    assert message.content == "Answer: 4"


@pytest.mark.parametrize(
    "reported",
    [
        {"finish_reason": "length"},
        {"stop_reason": "max_tokens"},
        {"stop_reason": "model_context_window_exceeded"},
        {"done_reason": "length"},
        {"finish_reason": "MAX_TOKENS"},
        {"finish_reason": "FinishReason.MAX_TOKENS"},
        {"stopReason": "max_tokens"},
        {"completionReason": "LENGTH"},
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {"finish_reason": "REASON_MAX_LEN"},
    ],
)
def test_truncation_in_any_providers_words(reported: dict[str, Any]) -> None:
    assert was_cut(reported) and ended_by(reported) == "length"


@pytest.mark.parametrize(
    "reported",
    [{}, {"finish_reason": "stop"}, {"stop_reason": "end_turn"}, {"incomplete_details": None}, {"finish_reason": 1}],
)
def test_other_ends_are_no_truncation(reported: dict[str, Any]) -> None:
    assert not was_cut(reported) and ended_by(reported) != "length"


@pytest.mark.parametrize(
    ("usage", "output", "counts"),
    [
        (
            {"input_tokens": 3012, "output_tokens": 20, "total_tokens": 3032},
            {"usage": {"input_tokens": 12}},
            (3012, 20),
        ),
        ({"input_tokens": 1, "output_tokens": 3, "total_tokens": 13}, {}, (1, 12)),  # thoughts in the total only
        (
            {"input_tokens": 9, "output_tokens": 5, "total_tokens": 64, "output_token_details": {"reasoning": 50}},
            {},
            (9, 55),  # thoughts beside the output
        ),
        (
            {"input_tokens": 9, "output_tokens": 55, "total_tokens": 64, "output_token_details": {"reasoning": 50}},
            {},
            (9, 55),
        ),
        (None, {"usage": {"input_tokens": 12, "output_tokens": 3, "cache_read_input_tokens": 90}}, (102, 3)),
        (None, {"usage": {"inputTokens": 12, "outputTokens": 3, "cacheReadInputTokens": 9}}, (21, 3)),
        (None, {"token_usage": {"prompt_tokens": 7, "completion_tokens": 2}}, (7, 2)),
        (None, {}, (None, None)),
    ],
)
def test_the_normalised_counts_come_first(usage: Any, output: Any, counts: tuple[int | None, int | None]) -> None:
    message = AIMessage("4", usage_metadata=usage)
    found = counts_of(LLMResult(generations=[[ChatGeneration(message=message)]], llm_output=output), [message])
    assert (found.prompt, found.completion) == counts
