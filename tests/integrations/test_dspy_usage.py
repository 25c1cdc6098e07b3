"""What a search over a program is charged, and what the program's own trackers see."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import Scaled, ScaledLM

from tests.dspy_models import VERSION, aclose, close, program, score
from tests.imitations import said
from tts_plugins import Budget, Ledger
from tts_plugins.testing.loopback import LoopbackServer, RawReply, RawRequest, RawServer, Reply


class Tracked(dspy.Module):  # type: ignore[misc]
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer: int", **settings)

    def forward(self, question: str) -> Any:
        with dspy.track_usage() as usage:
            prediction = self.ask(question=question)
        self.seen = usage.get_total_tokens()
        return prediction


def test_a_tracker_inside_a_program_leaves_the_account_exact_and_replays_free(
    dspy_server: LoopbackServer, dspy_lm: Any
) -> None:
    account = Ledger(Budget(tokens=100_000))
    scaled = Scaled(Tracked(), n=3, verifier=score, budget=account)
    for _ in range(3):
        scaled(question="q")
    counted = dspy_server.wait()
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 3
    assert account.usage.exact


def test_several_choices_of_one_call_are_counted_exactly(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    account = Ledger(Budget(tokens=100_000))
    scaled = Scaled(dspy.Predict("question -> answer: int", n=3), n=2, verifier=score, budget=account)
    for _ in range(2):
        scaled(question="q")
    counted = dspy_server.wait()
    assert account.usage.calls == 6
    if VERSION >= (3, 4):  # one request for each choice; before, one for all, whose count may be of the first alone
        assert account.spent.tokens == counted.tokens and account.usage.exact
    assert account.spent.tokens >= counted.tokens


def test_the_chosen_prediction_knows_its_usage(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    with dspy.context(track_usage=True):
        result = Scaled(program(), n=2, verifier=score).solve(question="a?")
        prediction = Scaled(program(), n=2, verifier=score)(question="b?")
    own, all_of_it = (p.get_lm_usage()["openai/small"]["completion_tokens"] for p in (result.output, prediction))
    assert 0 < own < all_of_it


class Fallback(dspy.BaseLM):  # type: ignore[misc]
    """A model that passes its calls on to others."""

    def __init__(self, *models: Any) -> None:
        super().__init__(model="fallback", max_tokens=100)
        self.models = models

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        given = {} if messages is None else {"messages": messages}
        return self.models[0](*([] if prompt is None else [prompt]), **given, **kwargs)


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message")
def test_a_model_that_passes_calls_on_is_counted_once(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    account = Ledger(Budget(calls=3, tokens=100_000))
    with dspy.context(lm=Fallback(dspy_lm)):
        result = Scaled(program(), n=3, verifier=score, budget=account).solve(question="q")
    counted = dspy_server.wait()
    assert len({c.output.answer for c in result.candidates}) == 3
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 3


async def test_trackers_within_trackers_under_acall(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Twice(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        async def aforward(self, question: str) -> Any:
            with dspy.track_usage() as outer:
                await self.ask.acall(question=question)
                with dspy.track_usage() as inner:
                    last = await self.ask.acall(question=f"{question} again")
            told = [tracker.get_total_tokens().get("openai/small", {}) for tracker in (outer, inner)]
            return dspy.Prediction(told=told, answer=last.answer)

    account = Ledger(Budget(tokens=100_000))
    scaled = Scaled(Twice(), n=3, verifier=score, budget=account)
    for _ in range(2):
        await scaled.acall(question="q")
    counted = dspy_server.wait()
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 6
    assert account.usage.exact
    await aclose(dspy_lm)


def test_a_tracker_around_threads_of_a_program(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Wide(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = program()

        def forward(self, question: str) -> Any:
            with dspy.track_usage():
                asked = [(self.ask, {"question": f"{question} {i}"}) for i in range(3)]
                return dspy.Parallel(num_threads=2, disable_progress_bar=True)(asked)[0]

    if Wide()(question="bare") is None:
        pytest.skip("this version's dspy.Parallel fails inside of a usage tracker")
    dspy_server.reset()
    account = Ledger(Budget(tokens=100_000))
    scaled = Scaled(Wide(), n=4, verifier=score, budget=account)
    for _ in range(2):
        assert len(scaled.solve(question="q").candidates) == 4, "none is lost, though each shows progress of its own"
    counted = dspy_server.wait()
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 12


def test_a_prediction_knows_the_usage_of_a_searching_model(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    with dspy.context(track_usage=True, lm=ScaledLM(dspy_lm, n=3)):
        usage = program()(question="q").get_lm_usage()["openai/small"]
    counted = dspy_server.wait()
    assert usage["prompt_tokens"] + usage["completion_tokens"] == counted.tokens and counted.requests == 3


def test_bars_may_be_made_while_others_clear_them() -> None:
    import tqdm

    bar = tqdm.tqdm.__new__(tqdm.tqdm, total=1, disable=True)
    tqdm.tqdm._instances.clear()  # as another `dspy.Parallel` does at this moment
    bar.__init__(total=1, disable=True)


def test_tool_calls_are_counted_as_the_server_counts_them(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    function = {"name": "look", "arguments": '{"city": "Paris"}'}
    call = {"id": "call_0123456789abcdef", "type": "function", "function": function}
    dspy_server.configure(reply=lambda body, index: Reply("", finish_reason="tool_calls", tool_calls=[call] * 3))

    class Calling(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=str(dspy.settings.lm(question)))

    result = Scaled(Calling(), n=2, verifier=lambda pred: 0.5).solve(question="q")
    counted = dspy_server.wait()
    assert result.usage.exact and result.usage.tokens == counted.tokens and counted.requests == 2


class Two(dspy.Module):  # type: ignore[misc]
    """Two searches in one program, which say nothing of prices."""

    def __init__(self, threads: bool) -> None:
        super().__init__()
        self.first, self.second = Scaled(program(), n=2, verifier=score), Scaled(program(), n=2, verifier=score)
        self.threads = threads

    def forward(self, question: str) -> Any:
        if self.threads:
            pairs = [(self.first, {"question": question}), (self.second, {"question": f"{question} again"})]
            return dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)[0]
        self.first(question=question)
        return self.second(question=f"{question} again")


@pytest.mark.parametrize("threads", [False, True])
def test_searches_inside_of_one_with_a_price_have_that_price(
    dspy_server: LoopbackServer, dspy_lm: Any, threads: bool
) -> None:
    scaled = Scaled(Two(threads), n=2, verifier=score, price=(1.0, 2.0), budget=Budget(usd=0.01))
    result = scaled.solve(question="q")
    counted = dspy_server.wait()
    assert counted.requests == 8 and result.usage.exact
    assert result.usage.usd == pytest.approx((counted.prompt_tokens + 2 * counted.completion_tokens) / 1e6)


def _response(request: RawRequest) -> RawReply:
    """What OpenAI's Responses API answers; its usage has other names than that of chat completions."""
    text = {"type": "output_text", "text": said(answer=len(request.body)), "annotations": []}
    message = {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": [text]}
    usage = {"input_tokens": 20, "output_tokens": 12, "total_tokens": 32}
    details = {"input_tokens_details": {"cached_tokens": 8}, "output_tokens_details": {"reasoning_tokens": 0}}
    return RawReply(
        {
            "id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "gpt-4o-mini",
            "output": [message], "usage": {**usage, **details}, "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [], "temperature": 1.0, "top_p": 1.0, "error": None, "incomplete_details": None,
            "instructions": None, "metadata": {},
        }
    )  # fmt: skip


def test_the_responses_api_is_counted_exactly(dspy_server: LoopbackServer) -> None:
    if dspy.__version__ == "3.0.0":
        pytest.skip("this version of DSPy reads neither the answers nor the usage of the Responses API")
    with RawServer(_response) as server:
        lm = dspy.LM(
            "openai/gpt-4o-mini", model_type="responses", api_base=server.base_url, api_key="-", max_tokens=100,
            num_retries=0,
        )  # fmt: skip
        with dspy.context(lm=lm):
            scaled = Scaled(program(), n=3, verifier=lambda pred: 0.5, budget=Budget(tokens=50_000))
            usage = scaled.solve(question="q").usage
            assert scaled.solve(question="q").usage.calls == 0
        assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (60, 36, 24) and usage.exact
        assert len(server.requests) == 3
        close(lm)
